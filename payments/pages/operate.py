"""Guarded actions on one payment, from the banners of its page: each is confirmed with a reason, and says what it means for the
money. What they do stands beside each capability: settle, refunds, reconciliation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse
from psycopg import AsyncConnection

from payments.models import DeadLetter, Difference, Refund
from payments.pages.explain.banner import amount_of, of, where
from payments.pages.explain.rules import explain
from payments.pages.facts import PaymentFacts
from payments.processors.base import AMOUNT_DIFFERS
from payments.reconciliation import operate as discrepancies
from payments.refunds import operate as refunds
from payments.settle import lifecycle
from payments.settle import operate as dead_letters
from payments.states import FAILED, QUEUED, RefundStatus
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators.confirm import Action, Confirmed, Perform, asked, confirm
from registry.operators.decide import Done, Moved, decide
from registry.operators.scope import require_act

LOOKED_UP = "An operator asks the processor again"  # in the timeline


# -- What they say -----------------------------------------------------------------------------------------------


def _on_replay(facts: PaymentFacts) -> str:
    if facts.status is FAILED:
        return "It is queued and sent again. Nothing of it was booked so far, so the payer is charged once."
    return (
        f"A worker asks {where(facts)} first: if it booked the payment, the payment succeeds here. It is sent again only if it "
        "certainly was not booked, so the payer is charged once at most."
    )


def _on_close(facts: PaymentFacts) -> str:
    if facts.status is FAILED:
        return "The payment stays failed. No money has moved, and none will."
    if facts.code == AMOUNT_DIFFERS:
        return (
            f"The payment stays uncertain. The payer stays charged what {where(facts)} captured, which is not in your balance "
            "here. Nothing is refunded by this."
        )
    return (
        f"The payment stays uncertain; for 60 days {where(facts)} is still asked now and then. If it booked the payment, the payer stays "
        f"charged {amount_of(facts)}, and that is in your balance only once {where(facts)} reports it. Nothing is refunded by this."
    )


def _on_cancel(facts: PaymentFacts) -> str:
    if facts.status is QUEUED:
        return "It is not sent any more. No money has moved, and none will."
    return f"It is canceled at {where(facts)}: what is held on the payer's card is released, and nothing is charged."


def _on_retry_refund(facts: PaymentFacts) -> str:
    if facts.refund and facts.refund.status == RefundStatus.UNCERTAIN:
        return f"A worker asks {where(facts)} first, so that the payer gets the money back once at most."
    return f"It is sent to {where(facts)} again. The payer gets the money back once."


def _on_close_refund(facts: PaymentFacts) -> str:
    amount = of(facts.refund.amount if facts.refund else 0, facts.currency)
    if facts.refund and facts.refund.status == RefundStatus.UNCERTAIN:
        return (
            f"The refund counts as failed, and {amount} can be refunded again. If {where(facts)} made it after all, a second "
            "refund would pay the payer twice: look there first."
        )
    return f"The refund counts as failed: the {amount} stays yours, and can be refunded again."


@dataclass(frozen=True, slots=True)
class Guard:
    """An action by its verb: its name in the audit trail, what it changes, and what it says before it does."""

    name: str
    label: str
    warning: Callable[[PaymentFacts], str]
    noun: str = "payment"
    perform: Perform | None = None  # for rows of other tables; None: it changes the payment itself
    severe: bool = False


GUARDS: dict[str, Guard] = {
    "replay": Guard("deadletter.replay", "Replay payment", _on_replay, "dead letter", dead_letters.replay_rows),
    "close": Guard("deadletter.close", "Close without replay", _on_close, "dead letter", dead_letters.close_rows),
    "look_again": Guard(
        "payment.look_again",
        "Ask the processor now",
        lambda facts: f"A worker asks {where(facts)} at once. No money moves by asking.",
    ),
    "cancel": Guard("payment.cancel", "Cancel payment", _on_cancel, severe=True),
    "capture": Guard(
        "payment.capture",
        "Capture payment",
        lambda facts: f"{amount_of(facts)}, which is held on the payer's card, is collected.",
    ),
    "retry_refund": Guard("refund.retry", "Retry refund", _on_retry_refund, "refund", refunds.retry_rows),
    "close_refund": Guard("refund.close", "Close refund as failed", _on_close_refund, "refund", refunds.close_rows),
    "recheck": Guard(
        "difference.look_again",
        "Re-check",
        lambda facts: (
            "The processor is asked again. If its books and yours agree now, the discrepancy is closed. No money moves."
        ),
        "discrepancy",
        discrepancies.look_again_rows,
    ),
    "book": Guard(
        "difference.book",
        "Book as external",
        lambda facts: (
            "The booking at the processor becomes a payment of its own that succeeded, and is in your balance then. This payment "
            "stays as it is. The new one can be refunded."
        ),
        "discrepancy",
        discrepancies.book_rows,
    ),
    "close_discrepancy": Guard(
        "difference.close",
        "Note and close",
        lambda facts: "Your reason is noted. No money moves; it is reported again only if its figures change.",
        "discrepancy",
        discrepancies.close_rows,
    ),
}
PLURALS = {"discrepancy": "discrepancies"}


# -- What they do ------------------------------------------------------------------------------------------------


async def of_payment(
    request: PageRequest, visitor: Visitor, correlation_id: UUID, facts: PaymentFacts, back: str
) -> HttpResponse:
    """The confirmation page of the action that the request names; once it is posted with a reason, the action.

    Only what a banner of the payment offers now is carried out. Raises Http404 for those who may not act, and for other verbs.
    """
    require_act(visitor)
    verb = asked(request).get("do", "")
    if (guard := GUARDS.get(verb)) is None:
        raise Http404
    offered = {offer.verb for banner in explain(facts, may_act=True) for offer in banner.offers}
    rows = await _rows(guard.noun, visitor.tenant.pk, facts) if verb in offered else []
    action = Action(
        name=guard.name,
        label=guard.label,
        warning=guard.warning(facts),
        perform=guard.perform or _changing(verb, visitor.tenant.pk, correlation_id),
        count=len(rows),
        noun=guard.noun,
        plural=PLURALS.get(guard.noun, ""),
        target=f"payment {correlation_id}",
        back=back,
        fields=[("do", verb)],
        rows=rows,
        severe=guard.severe,
    )
    return await confirm(request, visitor, action)


async def _rows(noun: str, tenant_id: int, facts: PaymentFacts) -> list[Any]:
    """The row that is changed, as the perform functions of the capabilities take it."""
    match noun:
        case "dead letter" if facts.letter:
            mine = DeadLetter.async_objects.filter(tenant_id=tenant_id, pk=facts.letter.id)
        case "refund" if facts.refund:
            mine = Refund.async_objects.filter(tenant_id=tenant_id, pk=facts.refund.id)
        case "discrepancy" if facts.discrepancy:
            mine = Difference.async_objects.filter(tenant_id=tenant_id, pk=facts.discrepancy.id)
        case _:
            return [facts]
    return [row async for row in mine]


def _changing(verb: str, tenant_id: int, correlation_id: UUID) -> Perform:
    """Change the payment and record it in one transaction; workers do the rest."""

    async def perform(confirmed: Confirmed) -> Done:
        looked: lifecycle.Looked = []

        async def move(conn: AsyncConnection) -> list[Moved]:
            nonlocal looked
            looked = await _change(verb, conn, tenant_id, correlation_id)
            return [Moved(target=f"payment {correlation_id}", tenant_id=tenant_id)] if looked else []

        moved = await decide(
            action=confirmed.action.name, actor=confirmed.actor, reason=confirmed.reason, move=move, repeatable=False
        )
        await lifecycle.announce(tenant_id, looked)
        return Done(rows=len(moved), lost=int(not moved))

    return perform


async def _change(verb: str, conn: AsyncConnection, tenant_id: int, correlation_id: UUID) -> lifecycle.Looked:
    match verb:
        case "cancel":
            return await lifecycle.cancel_within(conn, tenant_id=tenant_id, correlation_id=correlation_id)
        case "capture":
            return await lifecycle.capture_within(conn, tenant_id=tenant_id, correlation_id=correlation_id)
    ids = [correlation_id]
    return await lifecycle.look_again_within(conn, tenant_id=tenant_id, correlation_ids=ids, reason=LOOKED_UP)
