"""Payments that failed or were given up: declined, a dead letter, closed, captured in part. No I/O."""

from functools import partial

from payments.pages.codes import words
from payments.pages.explain.banner import Banner, Offer, amount_of, asked, find, named, of, where
from payments.pages.facts import PaymentFacts
from payments.processors.base import AMOUNT_DIFFERS
from payments.states import FAILED, UNCERTAIN

DIFFERS = "Your books say that no money moved, those of the processor that it did: see the discrepancy."


def partly_captured(facts: PaymentFacts) -> Banner | None:
    """Another amount was captured at the processor: no look-up makes it a booking of the amount requested."""
    if facts.status is not UNCERTAIN or facts.code != AMOUNT_DIFFERS or facts.closed_letter:
        return None
    received = ((facts.last and facts.last.action) or {}).get("received")
    captured = of(received, facts.currency) if isinstance(received, int) else "another amount"
    return Banner(
        state="partly_captured",
        colour="red",
        shape="◕",
        what=f"{named(where(facts))} captured {captured} of {amount_of(facts)}.",
        money=f"The payer was charged {captured}. It is not in your balance here, because the amount is not the one requested.",
        check=find(facts, "refund it there, or keep it and note that here"),
        offers=(Offer("close", "Close"), Offer("replay", "Ask again")) if facts.open_letter else (),
    )


def dead_letter(facts: PaymentFacts) -> Banner | None:
    letter = facts.open_letter
    if letter is None or facts.code == AMOUNT_DIFFERS:
        return None
    banner = partial(Banner, state="dead_letter", colour="red", shape="✕", at=letter.at, at_label="Since")
    if facts.status is FAILED and facts.charge_unknown:
        return banner(
            what=f"It was given up after {facts.tries} attempts; the last answer: {words(facts.code)}.",
            money=f"{DIFFERS} A replay could charge the payer twice.",
            offers=(Offer("close", "Close"),),
        )
    if facts.status is FAILED:
        return banner(
            what=f"It was given up after {facts.tries} attempts; the last answer: {words(facts.code)}.",
            money="No money has moved: every attempt was certainly not booked.",
            check="Before you replay it, see that the processor works, and that the payer still wants to pay.",
            offers=(Offer("replay", "Replay"), Offer("close", "Close")),
        )
    return banner(
        what=f"It was given up after {facts.tries} attempts: {where(facts)} never said whether it booked the payment.",
        money=f"Money may have moved: the payer may have been charged {amount_of(facts)}, once at most.",
        check=find(facts, "then ask again, or close it"),
        offers=(Offer("replay", "Ask again"), Offer("close", "Close")),
        **asked(facts),
    )


def closed(facts: PaymentFacts) -> Banner | None:
    """An operator closed the dead letter of a payment in doubt: its outcome stays unknown."""
    letter = facts.closed_letter
    if facts.status is not UNCERTAIN or letter is None:
        return None
    captured = facts.code == AMOUNT_DIFFERS
    return Banner(
        state="closed",
        colour="grey",
        shape="◑",
        what=f"Closed by {letter.resolved_by or 'an operator'}: {where(facts)} is asked only now and then, for 60 days.",
        money=(
            f"The payer was charged another amount than {amount_of(facts)}; it is not in your balance here."
            if captured
            else f"The outcome stays unknown: the payer may have been charged {amount_of(facts)}. It is booked here if "
            f"{where(facts)} reports it."
        ),
        at=letter.resolved_at,
        at_label="Closed",
        offers=() if captured else (Offer("look_again", "Ask now"),),
    )


def failed(facts: PaymentFacts) -> Banner | None:
    if facts.status is not FAILED or facts.open_letter:
        return None
    banner = partial(Banner, state="failed", colour="red", shape="✕")
    if facts.closed_letter:
        return banner(
            what=f"It was given up after {facts.tries} attempts ({words(facts.code)}) and closed.",
            money=DIFFERS
            if facts.charge_unknown
            else "No money has moved. To pay after all, the payer needs a new payment.",
        )
    return banner(
        what=f"Declined at {where(facts)}: {words(facts.code or 'declined without a reason')}.",
        money=DIFFERS
        if facts.charge_unknown
        else "No money has moved. The payer can pay with another payment method, as a new payment.",
    )
