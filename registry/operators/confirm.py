"""Actions that change state: a page that names the action and counts its rows, a reason, a recount, the audit trail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.options import ActionLocation
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from registry.data.redaction import redact
from registry.errors import Problem
from registry.operators.scope import TenantScoped, scope_of
from registry.tenants import audit

MOST = 1000  # rows of one action: what a person can answer for, and what ends within a request
SHOWN = 20  # rows named on the page


@dataclass(frozen=True, slots=True)
class Done:
    """How an action went: rows moved, and rows that somebody else had moved first."""

    rows: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """An action that a person has confirmed."""

    request: HttpRequest
    rows: models.QuerySet  # those that were in the expected state a moment ago
    reason: str

    @property
    def actor(self) -> str:
        return self.request.user.get_username()


type Perform = Callable[[TenantScoped, Order], Done]


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        label="Why",
        help_text="Kept in the audit trail.",
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60, "autofocus": True}),
    )
    seen = forms.IntegerField(widget=forms.HiddenInput)  # the number of rows that the person was shown


def guarded(name: str, *, label: str, warning: str, expects: dict[str, Any], perform: Perform) -> Callable:
    """An admin action `name` (`noun.verb`) for rows that match `expects`; others are left out and said.

    `perform` compares and sets, and records what it did in the transaction it did it in.
    """

    def action(page: TenantScoped, request: HttpRequest, queryset: models.QuerySet) -> HttpResponse | None:
        eligible = _eligible(page, request, queryset, expects)
        count, selected = eligible[: MOST + 1].count(), queryset.order_by()[: MOST + 1].count()
        if not 0 < count <= MOST:
            why = f"more than {MOST} rows" if count else "none of the selected rows is in a state for it"
            page.message_user(request, f"{label}: {why}. Nothing was changed.", messages.WARNING)
            return None
        form = ReasonForm(request.POST if "seen" in request.POST else None, initial={"seen": count})
        if form.is_valid():
            if form.cleaned_data["seen"] == count:
                _carry_out(page, Order(request, eligible, form.cleaned_data["reason"].strip()), label, perform)
                return None
            form.add_error(None, f"You saw {form.cleaned_data['seen']} rows, now there are {count}. Please look again.")
            form.data = {**request.POST.dict(), "seen": str(count)}
        context = {
            **page.admin_site.each_context(request),
            "title": label,
            "warning": warning,
            "opts": page.opts,
            "media": page.media,
            "form": form,
            "count": count,
            "left_out": selected - count,
            "shown": [page.name_of(row) for row in _with_names(page, eligible)[:SHOWN]],
            "more": max(0, count - SHOWN),
            "carried": _carried(request),
            "back": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/guarded_action.html", context)

    action.__name__ = name.replace(".", "_")
    described = admin.action(action, permissions=["act"], description=label)
    described.locations = [ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM]  # type: ignore[attr-defined]
    return described


def _eligible(
    page: TenantScoped, request: HttpRequest, queryset: models.QuerySet, expects: dict[str, Any]
) -> models.QuerySet:
    """Those in the expected state, of tenants in which this person may act (and not only look)."""
    rows = queryset.filter(**expects).order_by("pk")
    return scope_of(request).narrow(rows, page.tenant_path, page.act_roles) if page.tenant_path else rows


def _with_names(page: TenantScoped, rows: models.QuerySet) -> models.QuerySet:
    joins = page.list_select_related
    return rows.select_related(*joins) if isinstance(joins, (list, tuple)) and joins else rows


def _carried(request: HttpRequest) -> list[tuple[str, str]]:
    """What tells Django which action on which rows this is, to be posted again with the reason."""
    fields = []
    for location in ("", f"{ActionLocation.CHANGE_FORM.value}-"):
        for name in ("action", "select_across"):
            if values := request.POST.getlist(location + name):
                index = int(request.POST.get("index") or 0) if name == "action" and not location else 0
                fields.append((location + name, values[min(index, len(values) - 1)]))
    return fields + [(helpers.ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)]


def _carry_out(page: TenantScoped, order: Order, label: str, perform: Perform) -> None:
    try:
        done = perform(page, order)
    except Problem as problem:
        page.message_user(order.request, f"{label}: {problem.detail}", messages.ERROR)
        return
    if done.rows:
        page.message_user(order.request, f"{label}: {done.rows} done.", messages.SUCCESS)
    if done.lost:
        lost = f"{label}: {done.lost} not done, somebody else was faster or a worker has moved on."
        page.message_user(order.request, lost, messages.WARNING)


def moves(name: str, *, expects: dict[str, Any], sets: Callable[[], dict[str, Any]]) -> Perform:
    """Set fields where the row is still as expected, and record it tenant by tenant, all in one transaction."""

    def perform(page: TenantScoped, order: Order) -> Done:
        model, selected = page.model, list(order.rows)
        total = 0
        with transaction.atomic():
            for tenant_id, rows in _by_tenant(page, selected):
                mine = model._default_manager.filter(pk__in=[row.pk for row in rows], **expects)
                if moved := mine.update(**sets()):
                    total += moved
                    audit.record_sync(
                        actor=order.actor,
                        action=name,
                        target=f"{page.opts.verbose_name} {', '.join(map(str, rows[:5]))}",
                        tenant_id=tenant_id,
                        rows=moved,
                        reason=order.reason,
                        detail={"ids": [row.pk for row in rows]},
                    )
        return Done(rows=total, lost=len(selected) - total)

    return perform


def _by_tenant(page: TenantScoped, rows: Iterable[models.Model]) -> list[tuple[int | None, list[models.Model]]]:
    groups: dict[int | None, list[models.Model]] = {}
    for row in rows:
        # A tenant's own row is the tenant's matter too, hence its key there.
        groups.setdefault(page.tenant_of(row), []).append(row)
    return list(groups.items())


# -- Forms that ask why ----------------------------------------------------------------------------------


class ReasonedForm(forms.ModelForm):
    reason = forms.CharField(
        max_length=500, label="Why", help_text="Kept in the audit trail.", widget=forms.TextInput(attrs={"size": 60})
    )


class Reasoned(TenantScoped):
    """A change page that asks why, and records the change in the transaction that makes it."""

    form = ReasonedForm
    change_fields: tuple[str, ...] = ()
    add_fields: tuple[str, ...] = ()

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        if obj is None:
            return [*self.add_fields, "reason"]
        return [*self.change_fields, "reason"] if self.has_change_permission(request, obj) else [*self.change_fields]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """When adding, whatever is asked for can be filled in; afterwards `readonly_fields` stand."""
        if obj is None:
            return [name for name in self.readonly_fields if name not in self.add_fields]
        return list(self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        changed = [name for name in form.changed_data if name != "reason"]
        super().save_model(request, obj, form, change)
        if changed or not change:
            audit.record_sync(
                actor=request.user.get_username(),
                action=f"{self.opts.model_name}.{'change' if change else 'add'}",
                target=f"{self.opts.verbose_name} {obj}",
                tenant_id=self.tenant_of(obj),
                reason=form.cleaned_data["reason"],
                detail={name: _said(form, name) for name in changed},
            )


def _said(form: Any, name: str) -> list[Any] | str:
    """Old and new value where both are plain; structures may hold secrets and are only named."""
    pair = [form.initial.get(name), form.cleaned_data.get(name)]
    if any(isinstance(value, (dict, list)) for value in pair):
        return "changed"
    return redact([value if isinstance(value, (bool, int, type(None))) else str(value) for value in pair])
