"""Guarded actions on rows of the admin: offered on a list and on a row's own page, for rows in the expected state."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.options import ActionLocation
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet
from psycopg import AsyncConnection

from registry.operators.confirm import Action, Confirmed, Perform, ReasonForm, carry_out_sync
from registry.operators.decide import Done, Moved, decide
from registry.operators.scope import TenantScoped, scope_of

MOST = 1000  # rows of one action: what a person can answer for, and what ends within a request
SHOWN = 20  # rows named on the page

type Expected = dict[str, Any]  # conditions of the ORM that a row must meet


def guarded(
    name: str,
    *,
    label: str,
    warning: str,
    expects: Expected,
    perform: Perform | None = None,
    sets: dict[str, Any] | None = None,
    check: Callable[[Any], None] | None = None,
    consequence: Callable[[list[Any]], str] | None = None,
) -> Callable:
    """An admin action `name` (`noun.verb`) for rows that match `expects`; the page counts the others as left out.

    `perform` compares and sets, and records what it did in the same transaction. An action that only sets fields gives
    them as `sets` instead; `check` raises a Problem for a row that may not be set so, and then nothing is changed. `consequence` says what the action means for these rows, beside the warning.
    """

    def action(page: TenantScoped, request: HttpRequest, queryset: models.QuerySet) -> HttpResponse | None:
        eligible = _eligible(page, request, queryset, expects)
        count = eligible[: MOST + 1].count()
        if not 0 < count <= MOST:
            why = f"more than {MOST} rows" if count else "none of the selected rows is in a state for it"
            messages.warning(request, f"{label}: {why}. Nothing was changed.")
            return None
        every = list(_with_names(page, eligible)[: MOST if consequence or "seen" in request.POST else SHOWN])
        rows = every if "seen" in request.POST else every[:SHOWN]
        bound = Action(
            name=name,
            label=label,
            warning=warning,
            perform=perform or _setting(page, expects, sets or {}, check),
            count=count,
            noun=str(page.opts.verbose_name),
            plural=str(page.opts.verbose_name_plural),
            back=request.get_full_path(),
            fields=_fields(request),
            consequence=consequence(every) if consequence else "",
            rows=rows,
            shown=[page.name_of(row) for row in rows[:SHOWN]],
            more=max(0, count - SHOWN),
            left_out=queryset.order_by()[: MOST + 1].count() - count,
        )
        return _answer(page, request, bound)

    action.__name__ = name.replace(".", "_")
    described = admin.action(action, permissions=["act"], description=label)
    described.locations = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]  # type: ignore[attr-defined]
    return described


def _eligible(
    page: TenantScoped, request: HttpRequest, queryset: models.QuerySet, expects: Expected
) -> models.QuerySet:
    """Rows in the expected state, of tenants in which this person may act."""
    rows = queryset.filter(**expects).order_by("pk")
    return scope_of(request).narrow(rows, page.tenant_path, page.act_roles) if page.tenant_path else rows


def _with_names(page: TenantScoped, rows: models.QuerySet) -> models.QuerySet:
    joins = page.list_select_related
    return rows.select_related(*joins) if isinstance(joins, (list, tuple)) and joins else rows


def _fields(request: HttpRequest) -> list[tuple[str, str]]:
    """The fields by which Django knows the action and its rows, to be posted again with the reason."""
    fields = []
    for location in ("", f"{ActionLocation.CHANGE_FORM.value}-"):
        for name in ("action", "select_across"):
            if values := request.POST.getlist(location + name):
                index = int(request.POST.get("index") or 0) if name == "action" and not location else 0
                fields.append((location + name, values[min(index, len(values) - 1)]))
    return fields + [(helpers.ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)]


def _answer(page: TenantScoped, request: HttpRequest, action: Action) -> HttpResponse | None:
    """The confirmation page; None, for the list again, once the action is carried out."""
    form = ReasonForm(action, request.POST if "seen" in request.POST else None)
    if form.is_valid():
        confirmed = Confirmed(action, request.user.get_username(), form.cleaned_data["reason"])
        carry_out_sync(request, confirmed)
        return None
    context = {
        **page.admin_site.each_context(request),
        "title": action.label,
        "opts": page.opts,
        "media": page.media,
        "action": action,
        "form": form,
    }
    return TemplateResponse(request, "admin/guarded_action.html", context)


def _setting(
    page: TenantScoped, expects: Expected, sets: dict[str, Any], check: Callable[[Any], None] | None
) -> Perform:
    """Set fields of rows that are still as expected; one entry of the audit trail per tenant, all in one transaction."""

    async def perform(confirmed: Confirmed) -> Done:
        rows = confirmed.action.rows
        if check:
            for row in rows:
                check(row)

        async def move(_: AsyncConnection) -> list[Moved]:
            groups = [await _set(page, mine, tenant_id, expects, sets) for tenant_id, mine in _by_tenant(page, rows)]
            return [moved for moved in groups if moved.rows]

        moved = await decide(action=confirmed.action.name, actor=confirmed.actor, reason=confirmed.reason, move=move)
        done = sum(one.rows for one in moved)
        return Done(rows=done, lost=len(rows) - done)

    return perform


async def _set(
    page: TenantScoped, rows: list[models.Model], tenant_id: int | None, expects: Expected, sets: dict[str, Any]
) -> Moved:
    ids = [row.pk for row in rows]
    return Moved(
        target=f"{page.opts.verbose_name} {', '.join(map(str, rows[:5]))}",
        tenant_id=tenant_id,
        rows=await AsyncQuerySet(page.model).filter(pk__in=ids, **expects).aupdate(**sets),
        detail={"ids": ids},
    )


def _by_tenant(page: TenantScoped, rows: Any) -> list[tuple[int | None, list[Any]]]:
    groups: dict[int | None, list[Any]] = {}
    for row in rows:
        groups.setdefault(page.tenant_of(row), []).append(row)  # a tenant's own row belongs to that tenant too
    return list(groups.items())
