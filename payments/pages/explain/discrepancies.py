"""Payments about which the processor's books and ours differ. No I/O."""

from collections.abc import Callable
from typing import Final

from payments.models import Difference
from payments.pages.explain.banner import DISCREPANCIES_PAGE, Banner, Offer, amount_of, of, where
from payments.pages.facts import DiscrepancyFact, PaymentFacts
from payments.states import QUEUED, REQUIRES_ACTION, UNCERTAIN

Kind = Difference.Kind


def discrepancy(facts: PaymentFacts) -> Banner | None:
    found = facts.discrepancy
    if found is None:
        return None
    what, money = DISCREPANCIES[Kind(found.kind)](facts, found)
    bookable = found.kind in (Kind.MISSING_HERE, Kind.DUPLICATE) and facts.status not in (
        UNCERTAIN,
        QUEUED,
        REQUIRES_ACTION,
    )
    close = (
        Offer("book", "Book as external")
        if bookable and found.their_amount
        else Offer("close_discrepancy", "Note and close")
    )
    return Banner(
        state="discrepancy",
        colour="red",
        shape="≠",
        what=what,
        money=money,
        check=f"Compare with {found.reference or 'this payment id'} at {found.processor or where(facts)}.",
        offers=(Offer("recheck", "Re-check"), close, Offer(DISCREPANCIES_PAGE, "All discrepancies")),
    )


def _theirs(found: DiscrepancyFact) -> str:
    return of(found.their_amount or 0, found.their_currency or found.our_currency)


def _ours(found: DiscrepancyFact) -> str:
    return of(found.our_amount or 0, found.our_currency)


def _missing_here(facts: PaymentFacts, found: DiscrepancyFact) -> tuple[str, str]:
    return (
        f"{found.processor} booked {_theirs(found)} for this payment, which is {facts.status.label.lower()} here.",
        f"The payer was charged {_theirs(found)}, and it is not in your balance here.",
    )


def _missing_there(facts: PaymentFacts, found: DiscrepancyFact) -> tuple[str, str]:
    return (
        f"{found.processor} does not list this payment, which is booked here.",
        f"Your balance counts {amount_of(facts)} that {found.processor} may never pay out.",
    )


def _other_amount(facts: PaymentFacts, found: DiscrepancyFact) -> tuple[str, str]:
    return (
        f"{found.processor} booked {_theirs(found)}; here it is {_ours(found)}.",
        "The payer was charged what the processor booked. Your balance counts the amount here.",
    )


def _other_refunds(facts: PaymentFacts, found: DiscrepancyFact) -> tuple[str, str]:
    theirs, ours = of(found.their_refunded or 0, facts.currency), of(found.our_refunded or 0, facts.currency)
    return (
        f"{found.processor} refunded {theirs}; here {ours} is refunded.",
        "The payer got back what the processor refunded. Your balance counts the refunds here.",
    )


def _twice(facts: PaymentFacts, found: DiscrepancyFact) -> tuple[str, str]:
    return (
        f"{found.processor} has a second booking of this payment, of {_theirs(found)}.",
        "The payer may have been charged twice. The second booking is not in your balance here.",
    )


DISCREPANCIES: Final[dict[str, Callable[[PaymentFacts, DiscrepancyFact], tuple[str, str]]]] = {
    Kind.MISSING_HERE: _missing_here,
    Kind.MISSING_THERE: _missing_there,
    Kind.AMOUNT: _other_amount,
    Kind.CURRENCY: _other_amount,
    Kind.REFUNDED: _other_refunds,
    Kind.DUPLICATE: _twice,
}
