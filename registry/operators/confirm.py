"""Guarded actions: a confirmation page that counts the rows, a reason, a recount. Shared by the admin and the console."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet
from psycopg import AsyncConnection

from registry.data.loop import sync_twin
from registry.edge.viewer import Visitor
from registry.errors import Problem
from registry.operators.decide import Done, Moved, decide
from registry.operators.scope import require_act

LONGEST_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An action that a person has confirmed, and why."""

    action: "Action"
    actor: str
    reason: str


type Perform = Callable[[Confirmed], Awaitable[Done]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action that changes state: what its confirmation page shows, and what it does."""

    name: str  # `noun.verb`, for the audit trail
    label: str  # of the page and its button
    warning: str
    perform: Perform
    count: int  # rows that will be changed
    noun: str
    plural: str = ""  # empty: the noun with an s
    target: str = ""  # what the rows belong to
    back: str  # address to go to afterwards
    fields: Sequence[tuple[str, str]] = ()  # hidden fields that name the action and its rows
    rows: Sequence[Any] = ()
    shown: Sequence[str] = ()  # rows named on the page
    more: int = 0  # rows that are not named
    left_out: int = 0  # selected rows that are in another state or not the person's to change
    extra: str = ""  # a template with more fields
    entered: Mapping[str, str] = field(default_factory=dict)  # values of these fields
    wrong: Mapping[str, str] = field(default_factory=dict)  # and their errors
    consequence: str = ""  # what it means for these rows, such as their money
    severe: bool = False  # cannot be undone

    @property
    def counted(self) -> str:
        """The noun for `count` rows."""
        return self.noun if self.count == 1 else self.plural or f"{self.noun}s"


class ReasonForm(forms.Form):
    """The reason, and the number of rows that the person saw."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        error_messages={"required": f"This field is required. Say why, in at most {LONGEST_REASON} characters."},
    )
    seen = forms.IntegerField(error_messages=dict.fromkeys(("required", "invalid"), "Please look at the rows again."))

    def __init__(self, action: Action, data: Any) -> None:
        super().__init__(data)
        self.action = action

    def clean_seen(self) -> int:
        """The recount: another number of rows than the person saw has to be confirmed again."""
        seen = self.cleaned_data["seen"]
        if seen != self.action.count:
            raise forms.ValidationError(f"You saw {seen} rows, now there are {self.action.count}. Please look again.")
        return seen

    def clean(self) -> None:
        if self.action.wrong:
            raise forms.ValidationError(list(self.action.wrong.values()))


def recorded(
    change: Callable[[], Awaitable[Done]], *, tenant_id: int | None, detail: dict[str, Any] | None = None
) -> Perform:
    """Run `change` and record what it changed as one entry, in one transaction."""

    async def perform(confirmed: Confirmed) -> Done:
        action, done = confirmed.action, Done(rows=0)

        async def move(_: AsyncConnection) -> list[Moved]:
            nonlocal done
            done = await change()
            return [Moved(target=action.target, tenant_id=tenant_id, rows=done.rows, detail=detail or {})]

        await decide(action=action.name, actor=confirmed.actor, reason=confirmed.reason, move=move, repeatable=False)
        return done

    return perform


async def carry_out(request: HttpRequest, confirmed: Confirmed) -> None:
    """Perform the action, and say on the next page how it went."""
    label = confirmed.action.label
    try:
        done = await confirmed.action.perform(confirmed)
    except Problem as problem:
        messages.error(request, f"{label}: {problem.detail}")
        return
    _report(request, label, done)


def _report(request: HttpRequest, label: str, done: Done) -> None:
    for text in done.warnings:
        messages.warning(request, text)
    for text in done.errors:
        messages.error(request, text)
    if done.lost:
        lost = f"{label}: {done.lost:,} not done: another operator or a worker changed them first."
        messages.warning(request, lost)
    if done.rows or not (done.lost or done.warnings or done.errors):
        messages.success(request, f"{label}: {_rows_done(done.rows)}.")


def _rows_done(rows: int) -> str:
    if rows == 0:
        return "there was nothing to do"
    return "done" if rows == 1 else f"done for {rows:,}"


carry_out_sync = sync_twin(carry_out)


# -- On the console's pages ------------------------------------------------------------------------------------


def asked(request: HttpRequest) -> Any:
    """The parameters that name the action: the query of the page that asks, the form of the one that confirms."""
    return request.POST if request.method == "POST" else request.GET


@dataclass(frozen=True, slots=True)
class RowAction:
    """An action that a list of the console offers for a row."""

    name: str  # `noun.verb`, for the audit trail
    label: str
    warning: str
    perform: Perform


async def confirm_row(
    request: HttpRequest,
    visitor: Visitor,
    actions: Mapping[str, RowAction],
    mine: AsyncQuerySet[Any],
    *,
    expects: Mapping[str, Any],
    noun: str,
    plural: str = "",
    target: str,
    back: str,
    name_of: Callable[[Any], str],
) -> HttpResponse:
    """The confirmation page of the action that the request names by `do`, for the one row of `mine`; once it is posted with a reason,
    the action. The row has to be as `expects` says. Raises Http404 for another verb, and where there is no row."""
    require_act(visitor)
    verb = asked(request).get("do", "")
    if verb not in actions or not await mine.aexists():
        raise Http404
    wanted = actions[verb]
    rows = [row async for row in mine.filter(**expects)]
    action = Action(
        name=wanted.name,
        label=wanted.label,
        warning=wanted.warning,
        perform=wanted.perform,
        count=len(rows),
        noun=noun,
        plural=plural,
        target=target,
        back=back,
        fields=[("do", verb)],
        rows=rows,
        shown=[name_of(row) for row in rows],
    )
    return await confirm(request, visitor, action)


async def confirm(
    request: HttpRequest,
    visitor: Visitor,
    action: Action,
    *,
    then: Callable[[], Awaitable[HttpResponse | None]] | None = None,
) -> HttpResponse:
    """The confirmation page of a console; once it is posted with a reason, carry the action out and go back.

    `then` answers in place of going back, with what no other page may show; None: go back.
    """
    require_act(visitor)
    if action.count == 0:
        messages.warning(request, f"{action.label}: nothing to do. Nothing was changed.")
        return redirect(action.back)
    form = ReasonForm(action, request.POST if request.method == "POST" else None)
    if form.is_valid():
        await carry_out(request, Confirmed(action, visitor.actor, form.cleaned_data["reason"]))
        return (await then() if then else None) or redirect(action.back)
    context = {
        "visitor": visitor,
        "action": action,
        "form": form,
        "posts_to": f"{request.path}?tenant={visitor.tenant.slug}",
    }
    return render(request, "queueing/confirm.html", context, status=422 if form.is_bound else 200)
