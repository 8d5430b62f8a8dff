"""What follows from a refund's outcome: returned, failed, tried again and when, in doubt, or stopped. No I/O."""

from datetime import UTC, datetime

import msgspec

from payments.processors.base import Account, Debt, Outcome, Result
from payments.settle.decisions import GIVE_UP_AFTER, MAX_ATTEMPTS, MAX_QUESTIONS, backoff
from payments.states import RefundStatus

LOOK_WHILE_ON_ITS_WAY = 300.0  # seconds between looks at a refund that the processor has begun


class Claim(msgspec.Struct, kw_only=True):
    """A refund in this worker's hands, with the attempt that is being made."""

    tenant_id: int
    payment_id: int
    refund_id: int
    debt: Debt
    status: RefundStatus  # as written down for this attempt
    number: int
    tries: int  # with this one, since it was asked for or retried
    account: Account
    in_doubt_since: datetime | None
    in_doubt_for: float  # seconds at the claim, by the database's clock
    taken_at: float  # of our monotonic clock
    created_at: datetime

    @property
    def key(self) -> tuple[int, int]:
        return self.tenant_id, self.refund_id


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an attempt and what it means for the refund."""

    claim: Claim
    status: RefundStatus
    code: str
    detail: str = ""  # for the payment's timeline: its readers may be payers
    reference: str = ""
    wait: float | None = None  # seconds until it is due again
    in_doubt_since: datetime | None = None  # when uncertain: None is from now on
    stopped: bool = False  # an operator has to look at it

    @property
    def key(self) -> tuple[int, int]:
        return self.claim.key


def after_send(claim: Claim, outcome: Outcome) -> Verdict:
    """The first send, one after a certain "no", or a look-up that has an answer."""
    if outcome.result is Result.BOOKED:
        return Verdict(
            claim=claim,
            status=RefundStatus.RETURNED,
            code=outcome.code,
            detail=f"Given back at {claim.account.name}",
            reference=outcome.reference,
        )
    if outcome.result in (Result.DECLINED, Result.CANCELED):
        return Verdict(
            claim=claim,
            status=RefundStatus.FAILED,
            code=outcome.code,
            detail=f"{claim.account.name} does not give it back ({outcome.code})",
            reference=outcome.reference,
        )
    if outcome.result is Result.NOT_BOOKED:
        return _again(claim, outcome)
    return unknown(claim, outcome)


def after_repeat(claim: Claim, outcome: Outcome) -> Verdict:
    """A send under the same key while an earlier one is in doubt: only the refund itself ends the doubt.

    A refusal says nothing of the earlier send, which may still be on its way; and it may be refused because of it.
    """
    if outcome.result is Result.BOOKED:
        return after_send(claim, outcome)
    if outcome.result is Result.UNKNOWN:
        return unknown(claim, outcome)
    return still_in_doubt(claim, outcome)


def still_in_doubt(claim: Claim, outcome: Outcome) -> Verdict:
    return msgspec.structs.replace(unknown(claim, outcome), in_doubt_since=claim.in_doubt_since)


def never_returned(claim: Claim) -> Verdict:
    """The processor's longest delay has passed and it knows nothing of the refund: it is sent as if for the first time."""
    return Verdict(claim=claim, status=RefundStatus.OWED, code="never_returned", wait=0.0)


def unknown(claim: Claim, outcome: Outcome, *, wait: float | None = None) -> Verdict:
    # It exists there and is on its way, which may take days: its end comes by webhook. Whether we are answered this time or
    # not, it is nobody's to give up: a debt that was closed would be free to be paid once more.
    if reference := outcome.reference or claim.debt.reference:
        return Verdict(
            claim=claim,
            status=RefundStatus.UNCERTAIN,
            code=outcome.code,
            reference=reference,
            wait=LOOK_WHILE_ON_ITS_WAY if wait is None else wait,
        )
    return Verdict(
        claim=claim,
        status=RefundStatus.UNCERTAIN,
        code=outcome.code,
        wait=backoff(claim.tries) if wait is None else wait,
        stopped=claim.tries >= MAX_QUESTIONS,
    )


def cannot(claim: Claim) -> Verdict:
    """The account's kind gives nothing back any more."""
    doubtful = claim.status is not RefundStatus.PROCESSING
    return Verdict(
        claim=claim,
        status=RefundStatus.UNCERTAIN if doubtful else RefundStatus.OWED,
        code="cannot_give_back",
        in_doubt_since=claim.in_doubt_since,
        stopped=True,
    )


def _again(claim: Claim, outcome: Outcome) -> Verdict:
    # An outage is waited out, as payments wait it out; the money stays owed for however long an operator takes.
    waits = outcome.outage and datetime.now(UTC) - claim.created_at < GIVE_UP_AFTER
    return Verdict(
        claim=claim,
        status=RefundStatus.OWED,
        code=outcome.code,
        wait=max(outcome.retry_after, backoff(claim.tries)),
        stopped=claim.tries >= MAX_ATTEMPTS and not waits,
    )
