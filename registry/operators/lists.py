"""Admin lists of tables of any length: capped counts, a time limit, related rows fetched per page, filters."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar, cast

import psycopg
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import OperationalError, connection, models, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from registry.models import Tenant
from registry.operators.scope import TenantScoped, scope_of

COUNTED = 5000  # rows; to look further back a filter is faster than paging
LOOK_LIMIT = 3  # seconds for the queries of a list; longer ones would slow the payments down
TENANTS_SHOWN = 50  # in the filter; the page of tenants links to the others


class CappedPaginator(Paginator):
    """A paginator that counts at most COUNTED rows: `count(*)` of 10 M rows takes seconds."""

    most = COUNTED

    @cached_property
    def count(self) -> int:
        return cast(models.QuerySet, self.object_list).order_by()[:COUNTED].count()


class PageList(ChangeList):
    """A change list that passes the rows of its page to `attach`, which fetches related rows in one query per kind."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        cast(Attaching, self.model_admin).attach(self.result_list)


class Attaching(TenantScoped):
    """An admin page whose list shows related rows that no join can fetch cheaply."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PageList

    def attach(self, rows: list[Any]) -> None:
        """Set on each row of the page the values that its columns need."""
        raise NotImplementedError


class BoundedList(Attaching):
    """A list whose queries may take LOOK_LIMIT: some combinations of filters have no index. Past that it drops the filters."""

    def attach(self, rows: list[Any]) -> None:
        """Attach nothing; the rows are still read within the limit."""

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
        # The id and not a join: the indexes begin with it.
        return queryset if slug is None else queryset.filter(tenant_id=self.tenants.filter(slug=slug).values("pk")[:1])


class OneTenantFilter(TenantFilter):
    """Always one tenant, as in the indexes: the newest rows of all tenants together would be a scan of the table.

    A search covers all tenants: its terms are unique, or nearly.
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
        # A value and no subquery: only then does the planner know how many rows this tenant has.
        tenant_id = self.tenants.filter(slug=slug).values_list("pk", flat=True).first()
        return queryset.none() if tenant_id is None else queryset.filter(tenant_id=tenant_id)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        return _links(self, changelist)


class ChoiceFilter(admin.SimpleListFilter):
    """Rows that meet the condition of the chosen option. `choices_of` makes one for a parameter."""

    options: ClassVar[dict[str, tuple[str, models.Q]]]  # value → its label and condition
    default: ClassVar[str | None] = None  # the option chosen by a bare address; None: all rows

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, label) for value, (label, _) in self.options.items()]

    def value(self) -> str | None:
        return super().value() or self.default

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        return super().choices(changelist) if self.default is None else _links(self, changelist)

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        value = self.value()
        if value is None:
            return queryset
        option = self.options.get(value)
        return queryset.filter(option[1]) if option else queryset.none()


def _links(shown: admin.SimpleListFilter, changelist: ChangeList) -> Iterator[Any]:
    """The options without Django's "All"."""
    for value, title in shown.lookup_choices:
        query = changelist.get_query_string({str(shown.parameter_name): value})
        yield {"selected": shown.value() == value, "query_string": query, "display": title}


def choices_of(
    parameter: str, options: dict[str, tuple[str, models.Q]], *, title: str = "", default: str | None = None
) -> type[ChoiceFilter]:
    """A filter by `?parameter=`, with the options and their conditions in this order."""
    given = {"parameter_name": parameter, "title": title or parameter, "options": options, "default": default}
    return type("Choices", (ChoiceFilter,), given)


ALL = ("all", models.Q())


def resolutions(choices: Iterable[tuple[str, str]]) -> type[ChoiceFilter]:
    """A filter by `resolution`, empty while a row is open: open rows unless another option is chosen."""
    options = {value: (str(label), models.Q(resolution=value)) for value, label in choices}
    return choices_of("resolution", {"open": ("open", models.Q(resolution="")), **options, "all": ALL}, default="open")


def since(column: str, title: str) -> type[ChoiceFilter]:
    """A filter by the age of a time in `column`."""
    spans = {
        "1h": ("last hour", 1),
        "24h": ("last 24 hours", 24),
        "7d": ("last 7 days", 168),
        "30d": ("last 30 days", 720),
    }
    options = {
        value: (label, models.Q(**{f"{column}__gte": Now() - timedelta(hours=hours)}))
        for value, (label, hours) in spans.items()
    }
    return choices_of("since", options, title=title)
