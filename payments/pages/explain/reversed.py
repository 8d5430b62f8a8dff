"""Payments that succeeded, and whose money was or may be taken back: refunds and disputes. No I/O."""

from functools import partial

from payments.pages.codes import words
from payments.pages.explain.banner import DISPUTE_PAGE, REFUND_PAGE, Banner, Offer, amount_of, named, of, where
from payments.pages.facts import PaymentFacts
from payments.refunds.balance import refundable_amount
from payments.refunds.refunds import CLOSED_HERE, can_refund
from payments.states import SUCCEEDED, RefundStatus


def refundable(facts: PaymentFacts) -> int:
    """Minor units that can still be refunded here; none while a dispute withholds money: the payer could get it twice."""
    if facts.dispute and facts.dispute.withdrawn:
        return 0
    return refundable_amount(facts.status, facts.amount, facts.owed_back) if can_refund(facts.kind) else 0


def disputed(facts: PaymentFacts) -> Banner | None:
    found = facts.dispute
    if found is None or (found.closed and not found.withdrawn):
        return None
    about = f"{of(found.amount, found.currency)}" + (f" ({found.reason.replace('_', ' ')})" if found.reason else "")
    if found.closed:
        return Banner(
            state="dispute_lost",
            colour="red",
            shape="▼",
            what=f"The dispute of {about} was lost.",
            money=f"The payer's bank took {of(found.withdrawn, found.currency)} back for good; do not refund that as well.",
        )
    answered = found.status.endswith("under_review")
    answer = Offer(DISPUTE_PAGE, f"Open the dispute at {where(facts)}")
    banner = partial(
        Banner,
        state="disputed",
        colour="amber",
        shape="▲",
        what=f"The payer's bank disputes {about}"
        + ("; the evidence is under review." if answered else " and waits for evidence."),
        at=None if answered else found.due_by,
        at_label="Evidence due",
    )
    if not found.withdrawn:  # an inquiry, or a dispute whose money has not moved yet
        refund = (Offer(REFUND_PAGE, "Refund"),) if refundable(facts) else ()
        return banner(money="Nothing is withheld yet. A refund usually ends the inquiry.", offers=(answer, *refund))
    return banner(
        money=f"{of(found.withdrawn, found.currency)} is withheld until the bank decides. Do not refund it while it is disputed: "
        "the payer could get the money twice.",
        offers=(answer,),
    )


def refund_failed(facts: PaymentFacts) -> Banner | None:
    found = facts.refund
    if found is None:
        return None
    amount, banner = of(found.amount, facts.currency), partial(Banner, state="refund_failed", colour="red", shape="✕")
    if found.stopped and found.status == RefundStatus.UNCERTAIN:
        return banner(
            what=f"The refund of {amount} was given up after {found.attempt} attempts: {where(facts)} gave no clear answer.",
            money=f"The payer may have got {amount} back, once at most.",
            check=f"Look for the refund at {where(facts)}; a retry asks there first.",
            offers=(Offer("retry_refund", "Retry refund"), Offer("close_refund", "Close refund as failed")),
        )
    if found.stopped:
        return banner(
            what=f"The refund of {amount} was given up after {found.attempt} attempts: {words(found.code)}.",
            money=f"The payer has not got the {amount} back; {where(facts)} certainly did not refund it.",
            offers=(Offer("retry_refund", "Retry refund"), Offer("close_refund", "Close refund as failed")),
        )
    if found.status != RefundStatus.FAILED or found.code == CLOSED_HERE:
        return None
    again = (Offer(REFUND_PAGE, "Refund again"),) if refundable(facts) else ()
    return banner(
        what=f"{named(where(facts))} did not refund {amount}: {words(found.code or 'no reason was given')}.",
        money=f"The payer has not got the {amount} back; it is in your balance again.",
        offers=again,
    )


def refunded(facts: PaymentFacts) -> Banner | None:
    if facts.status is not SUCCEEDED or not facts.refunded:
        return None
    back, fee = of(facts.refunded, facts.currency), of(facts.fee, facts.currency)
    if facts.refunded >= facts.amount:
        kept = f" The fee of {fee} is not given back." if facts.fee else ""
        return Banner(
            state="refunded",
            colour="grey",
            shape="↺",
            what=f"All of {amount_of(facts)} was refunded.",
            money=f"The payer has got the whole amount back.{kept}",
        )
    return Banner(
        state="partly_refunded",
        colour="green",
        shape="◕",
        what=f"{back} of {amount_of(facts)} was refunded.",
        money=f"{of(facts.amount - facts.refunded, facts.currency)} stays yours, less the fee of {fee}.",
        offers=(Offer(REFUND_PAGE, "Refund the rest"),) if refundable(facts) else (),
    )


def refunding(facts: PaymentFacts) -> Banner | None:
    pending = facts.owed_back - facts.refunded
    if facts.status is not SUCCEEDED or pending <= 0 or (facts.refund and facts.refund.stopped):
        return None
    return Banner(
        state="refunding",
        colour="blue",
        shape="◔",
        what=f"A refund of {of(pending, facts.currency)} is in progress at {where(facts)}.",
        money="The payer has not got it yet; it leaves your balance once the processor confirms it.",
    )
