"""What a payer is told of a payment: what happened, and what it means for their money. No processor, no reason, no dispute. No I/O."""

from dataclasses import dataclass
from datetime import datetime

from payments.pages.explain.banner import amount_of, of
from payments.pages.explain.before import is_scheduled
from payments.pages.facts import PaymentFacts
from payments.states import CANCELED, FAILED, PROCESSING, QUEUED, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PayersNote:
    """Two sentences for the payer, and a date that belongs to them."""

    what: str
    money: str
    at: datetime | None = None
    at_label: str = ""


NOTES = {
    QUEUED: PayersNote(what="The payment is accepted.", money="You have not been charged yet."),
    PROCESSING: PayersNote(what="The payment is being processed.", money="You are charged once at most."),
    FAILED: PayersNote(what="The payment failed.", money="You have not been charged. You can try again in the shop."),
    CANCELED: PayersNote(what="The payment was canceled.", money="You have not been charged."),
}


def explain_to_payer(facts: PaymentFacts, seller: str) -> PayersNote:
    """The note for whoever holds the payment's link. `seller`: the tenant's name."""
    if facts.charge_unknown:
        return PayersNote(
            what="The payment could not be confirmed.",
            money=f"You may have been charged, once at most. Ask {seller} before you pay again.",
        )
    if is_scheduled(facts):
        return PayersNote(
            what="The payment is scheduled for later.",
            money="You are not charged before that time.",
            at=facts.scheduled_for,
            at_label="Scheduled for",
        )
    match facts.status:
        case Status.UNCERTAIN:
            return PayersNote(
                what="The payment is being confirmed.", money="You are charged once at most; please do not pay again."
            )
        case Status.REQUIRES_ACTION:
            return _action(facts)
        case Status.SUCCEEDED:
            return _paid(facts, seller)
    return NOTES[facts.status]


def _action(facts: PaymentFacts) -> PayersNote:
    match (facts.action or {}).get("type"):
        case "capture":
            return PayersNote(
                what="The payment is authorized.", money=f"{amount_of(facts)} is held until the seller collects it."
            )
        case "wait":
            return PayersNote(
                what="The payment is being processed; that can take days.", money="You are charged once at most."
            )
    return PayersNote(what="The payment waits for you.", money="You have not been charged yet.")


def _paid(facts: PaymentFacts, seller: str) -> PayersNote:
    paid = f"You paid {amount_of(facts)} to {seller}."
    if not facts.refunded:
        return PayersNote(what="The payment succeeded.", money=paid)
    whole = facts.refunded >= facts.amount
    back = "It was refunded in full." if whole else f"{of(facts.refunded, facts.currency)} of it was refunded."
    return PayersNote(
        what=back if whole else f"The payment succeeded. {back}",
        money=f"{paid} Banks show a refund after 5 to 10 days.",
    )
