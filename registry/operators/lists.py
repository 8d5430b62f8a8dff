"""Lists over tables of any length: one tenant at a time, never counted to the end, related rows fetched by the page."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, cast

import psycopg
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import OperationalError, connection, models, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.models import Tenant
from registry.operators.scope import TenantScoped, scope_of

COUNTED = 5000  # rows; further back a filter is faster than paging, for the reader and for the database
LOOK_LIMIT = 3  # seconds for the queries of a list; a page that takes longer is of no use, and costs the payments
TENANTS_SHOWN = 50  # in the filter; others are reached from the page of tenants


class CappedPaginator(Paginator):
    """Counts to COUNTED and no further: `count(*)` over 10 M rows takes seconds."""

    most = COUNTED

    @cached_property
    def count(self) -> int:
        return cast(models.QuerySet, self.object_list).order_by()[:COUNTED].count()


class PageList(ChangeList):
    """Hands the rows of the page to `attach`, which may fetch what belongs to them in one query per kind."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        cast(Attaching, self.model_admin).attach(self.result_list)


class Attaching(TenantScoped):
    """For a ModelAdmin whose list shows what no join can fetch cheaply."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PageList

    def attach(self, rows: list[Any]) -> None:
        """Put on each row of the page what its columns need."""
        raise NotImplementedError


class BoundedList(Attaching):
    """Gives a list LOOK_LIMIT and then asks for a narrower question: some filters have no index of their own."""

    def attach(self, rows: list[Any]) -> None:
        """Nothing unless a subclass says more; the rows are read within the limit all the same."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL statement_timeout = {LOOK_LIMIT * 1000:.0f}")
                return super().changelist_view(request, extra_context)
        except OperationalError as error:
            if not (isinstance(error.__cause__, psycopg.errors.QueryCanceled) and request.GET):
                raise
        self.message_user(
            request,
            f"That would look through more rows than {LOOK_LIMIT} s allow. Choose a shorter time or fewer filters.",
            messages.WARNING,
        )
        return HttpResponseRedirect(request.path)


class TenantFilter(admin.SimpleListFilter):
    title = "tenant"
    parameter_name = "tenant"

    def __init__(self, request: HttpRequest, params: dict, model: type[models.Model], model_admin: Any) -> None:
        self.tenants = scope_of(request).narrow(Tenant.objects.all(), "pk")
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        slugs = list(self.tenants.values_list("slug", flat=True)[:TENANTS_SHOWN])
        asked = request.GET.get(self.parameter_name)
        if asked and asked not in slugs and self.tenants.filter(slug=asked).exists():
            slugs.append(asked)
        return [(slug, slug) for slug in slugs]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        slug = self.value()
        # The id and not a join: the indexes lead with it.
        return queryset if slug is None else queryset.filter(tenant_id=self.tenants.filter(slug=slug).values("pk")[:1])


class OneTenantFilter(TenantFilter):
    """Always one tenant, as in the indexes: the newest rows of all tenants together would be a walk through the table.

    A search looks at all tenants: what is searched for is unique, or nearly.
    """

    def __init__(self, request: HttpRequest, params: dict, model: type[models.Model], model_admin: Any) -> None:
        self.searching = bool(request.GET.get("q"))
        super().__init__(request, params, model, model_admin)

    def value(self) -> str | None:
        asked = super().value()
        if asked is not None or self.searching or not self.lookup_choices:
            return asked
        return self.lookup_choices[0][0]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        slug = self.value()
        if slug is None:
            return queryset
        # The value itself: only then does the planner see how many rows this tenant has.
        tenant_id = self.tenants.filter(slug=slug).values_list("pk", flat=True).first()
        return queryset.none() if tenant_id is None else queryset.filter(tenant_id=tenant_id)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for slug, title in self.lookup_choices:
            yield {
                "selected": self.value() == slug,
                "query_string": changelist.get_query_string({self.parameter_name: slug}),
                "display": title,
            }


class SinceFilter(admin.SimpleListFilter):
    """Rows younger than so long. Subclasses name the column."""

    parameter_name = "since"
    column = "created_at"
    SPANS = {
        "1h": ("last hour", 1),
        "24h": ("last 24 hours", 24),
        "7d": ("last 7 days", 168),
        "30d": ("last 30 days", 720),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(key, text) for key, (text, _) in self.SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        span = self.SPANS.get(self.value() or "")
        return queryset.filter(**{f"{self.column}__gte": Now() - timedelta(hours=span[1])}) if span else queryset


def since(column: str, title: str) -> type[SinceFilter]:
    return type("Since", (SinceFilter,), {"column": column, "title": title})


# -- What cells are made of ----------------------------------------------------------------------------------


def link_to(model: type[models.Model], pk: Any, text: Any) -> SafeString:
    """A link to the row's page in the admin."""
    return format_html('<a href="{}">{}</a>', reverse(_name(model, "change"), args=[quote(pk)]), text)


def link_to_list(model: type[models.Model], text: Any, **filters: Any) -> SafeString:
    """A link to the list of `model`, filtered."""
    return format_html('<a href="{}">{}</a>', reverse(_name(model, "changelist"), query=filters), text)


def _name(model: type[models.Model], page: str) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"


def pill(shape: str, colour: str, word: str) -> SafeString:
    """A state as word, colour and shape: never colour alone."""
    return format_html('<span class="pill pill-{}"><span aria-hidden="true">{}</span> {}</span>', colour, shape, word)


def exact(moment: datetime | None) -> SafeString | str:
    """To the second in the cell, to the millisecond in its title. UTC."""
    if moment is None:
        return "–"
    text = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    return format_html('<span class="figure" title="{} UTC">{}</span>', text[:-3], text[:-7])


def shortened(identifier: Any) -> SafeString:
    """An id cut in the middle, whole in its title."""
    text = str(identifier)
    return format_html('<span class="figure" title="{}">{}…{}</span>', text, text[:8], text[-4:])


def ago(seconds: float) -> str:
    """`seconds` as a person would say it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
