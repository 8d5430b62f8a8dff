"""Actions of the console: a page that says what will happen to how many rows, a reason, a recount, the audit trail."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django_async_backend.db.transaction import async_atomic

from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.errors import Problem
from registry.tenants import audit

LONGEST_REASON = 500  # characters, as in the admin


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody is about to do. `perform` does it and tells how many rows it touched."""

    name: str  # `noun.verb`, for the audit trail
    label: str  # of the page and its button
    target: str
    count: int
    noun: str  # "dead letter"; every one we have makes its plural with an s
    warning: str
    perform: Callable[[], Awaitable[int]]
    back: str  # address to go to afterwards
    fields: list[tuple[str, str]] = field(default_factory=list)  # what tells which action on which rows this is
    shown: list[str] = field(default_factory=list)  # rows named on the page
    extra: str = ""  # a template with more to fill in
    entered: dict[str, str] = field(default_factory=dict)  # what was filled in there
    wrong: dict[str, str] = field(default_factory=dict)  # and what is wrong with it
    detail: dict[str, Any] = field(default_factory=dict)  # for the audit trail
    severe: bool = False  # nothing brings it back

    def rows(self, count: int | None = None) -> str:
        """So many of them, in words; without a number those that will be touched."""
        many = self.count if count is None else count
        return f"{many:,} {self.noun}{'' if many == 1 else 's'}"


def asked(request: HttpRequest) -> Any:
    """What names the action: the query of the page that asks, the form of the one that confirms."""
    return request.POST if request.method == "POST" else request.GET


def allowed(visitor: Visitor) -> None:
    """Raises Http404 for who may only look."""
    if not visitor.may_act:
        raise Http404


async def guarded(request: PageRequest, visitor: Visitor, order: Order) -> HttpResponse:
    """Ask for a reason; with one, and the number of rows that was shown, carry it out."""
    allowed(visitor)
    if order.count == 0:
        messages.warning(request, f"{order.label}: nothing to do. Nothing was changed.")
        return redirect(order.back)
    if request.method != "POST":
        return _page(request, visitor, order)
    reason = request.POST.get("reason", "").strip()
    errors = dict(order.wrong)
    if not reason or len(reason) > LONGEST_REASON or "\0" in reason:
        errors["reason"] = f"Say why, in at most {LONGEST_REASON} characters."
    if request.POST.get("seen") != str(order.count):
        errors["seen"] = f"This is about {order.rows()} by now. Please look again."
    if errors:
        return _page(request, visitor, order, errors=errors, reason=reason, status=422)
    try:
        done = await _carry_out(visitor, order, reason)
    except Problem as problem:
        messages.error(request, f"{order.label}: {problem.detail}")
    else:
        messages.success(request, f"{order.label}: done, {order.rows(done)}.")
    return redirect(order.back)


async def _carry_out(visitor: Visitor, order: Order, reason: str) -> int:
    # The entry's transaction is open before anything is done: where nothing can be recorded nothing is changed.
    async with async_atomic():
        done = await order.perform()
        await audit.record(
            actor=visitor.actor,
            action=order.name,
            target=order.target,
            tenant_id=visitor.tenant.pk,
            rows=done,
            reason=reason,
            detail=order.detail,
        )
    return done


def _page(
    request: PageRequest,
    visitor: Visitor,
    order: Order,
    *,
    errors: dict[str, str] | None = None,
    reason: str = "",
    status: int = 200,
) -> HttpResponse:
    shown = {} if request.method != "POST" else errors or {}
    context = {"visitor": visitor, "order": order, "errors": shown, "reason": reason}
    return render(request, "queueing/confirm.html", context, status=status)
