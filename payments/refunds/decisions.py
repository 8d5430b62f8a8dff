"""Decide what follows from a refund's outcome: returned, failed, retried, in doubt, or stopped. No I/O."""

from datetime import datetime

import msgspec

from payments.processors.base import Account, Outcome, RefundOrder, Result
from payments.settle.decisions import GIVE_UP_AFTER, MAX_ATTEMPTS, MAX_QUESTIONS, backoff
from payments.states import RefundStatus
from registry.data import clock

PENDING_RETRY = 300.0  # seconds between look-ups of a refund that is pending at the processor


class RefundClaim(msgspec.Struct, kw_only=True):
    """A refund leased by this worker, and its current attempt."""

    tenant_id: int
    payment_id: int
    refund_id: int
    order: RefundOrder
    status: RefundStatus  # as stored for this attempt
    was: RefundStatus  # before the claim
    number: int
    tries: int  # including this one, since it was created or retried
    account: Account
    in_doubt_since: datetime | None
    in_doubt_for: float  # seconds at the claim, by the database's clock
    taken_at: float  # time.monotonic()
    created_at: datetime

    @property
    def key(self) -> tuple[int, int]:
        return self.tenant_id, self.refund_id


class RefundSettlement(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt, and what is written for it."""

    claim: RefundClaim
    status: RefundStatus
    code: str
    detail: str = ""  # in the payment's timeline, which payers may read
    reference: str = ""
    wait: float | None = None  # seconds until it is due again
    in_doubt_since: datetime | None = None  # if uncertain; None: from now on
    stopped: bool = False  # workers give it up; an operator retries or closes it

    @property
    def key(self) -> tuple[int, int]:
        return self.claim.key


def after_send(claim: RefundClaim, outcome: Outcome) -> RefundSettlement:
    """After a first send, or a look-up with a clear answer."""
    if outcome.result is Result.BOOKED:
        return _final(claim, outcome, RefundStatus.RETURNED, f"Refunded at {claim.account.name}")
    if outcome.result in (Result.DECLINED, Result.CANCELED):
        detail = f"{claim.account.name} declined the refund ({outcome.code})"
        return _final(claim, outcome, RefundStatus.FAILED, detail)
    if outcome.result is Result.NOT_BOOKED:
        return _again(claim, outcome)
    return unknown(claim, outcome)


def _final(claim: RefundClaim, outcome: Outcome, status: RefundStatus, detail: str) -> RefundSettlement:
    return RefundSettlement(claim=claim, status=status, code=outcome.code, detail=detail, reference=outcome.reference)


def after_repeat(claim: RefundClaim, outcome: Outcome) -> RefundSettlement:
    """After a repeated send of a refund in doubt: only a returned refund ends the doubt.

    A refusal does not: the earlier send may still arrive, or may be the reason of the refusal.
    """
    if outcome.result is Result.BOOKED:
        return after_send(claim, outcome)
    if outcome.result is Result.UNKNOWN:
        return unknown(claim, outcome)
    return still_in_doubt(claim, outcome)


def still_in_doubt(claim: RefundClaim, outcome: Outcome) -> RefundSettlement:
    return msgspec.structs.replace(unknown(claim, outcome), in_doubt_since=claim.in_doubt_since)


def never_returned(claim: RefundClaim) -> RefundSettlement:
    """After the processor's longest delay, if it does not know the refund: it is sent again as a new one."""
    return RefundSettlement(claim=claim, status=RefundStatus.OWED, code="never_returned", wait=0.0)


def unknown(claim: RefundClaim, outcome: Outcome, *, wait: float | None = None) -> RefundSettlement:
    # A refund with a reference is pending at the processor, which may take days; a webhook reports its end. Workers never give it
    # up: if an operator closed it, its amount could be refunded twice.
    reference = outcome.reference or claim.order.reference
    pause = PENDING_RETRY if reference else backoff(claim.tries)
    return RefundSettlement(
        claim=claim,
        status=RefundStatus.UNCERTAIN,
        code=outcome.code,
        reference=reference,
        wait=pause if wait is None else wait,
        stopped=not reference and claim.tries >= MAX_QUESTIONS,
    )


def unsupported(claim: RefundClaim) -> RefundSettlement:
    """The account's kind does not support refunds any more."""
    doubtful = claim.status is not RefundStatus.PROCESSING
    return RefundSettlement(
        claim=claim,
        status=RefundStatus.UNCERTAIN if doubtful else RefundStatus.OWED,
        code="cannot_give_back",
        in_doubt_since=claim.in_doubt_since,
        stopped=True,
    )


def _again(claim: RefundClaim, outcome: Outcome) -> RefundSettlement:
    # An outage uses up no tries, as with payments.
    waits = outcome.outage and clock.now() - claim.created_at < GIVE_UP_AFTER
    return RefundSettlement(
        claim=claim,
        status=RefundStatus.OWED,
        code=outcome.code,
        wait=max(outcome.retry_after, backoff(claim.tries)),
        stopped=claim.tries >= MAX_ATTEMPTS and not waits,
    )
