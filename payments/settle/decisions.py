"""Decide what follows from an outcome: settled, retried, in doubt, or a dead letter. No I/O: work.py writes it."""

import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from payments.processors.base import AMOUNT_DIFFERS, Account, Order, Outcome, Result
from payments.states import CANCELED, FAILED, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN, Status
from registry.data import clock

MAX_ATTEMPTS = 25  # sends of one payment before it is a dead letter
MAX_QUESTIONS = 200  # attempts in all for a payment in doubt: with LONGEST_BACKOFF over an hour
FIRST_BACKOFF = 0.1  # seconds
LONGEST_BACKOFF = 30.0  # seconds
GIVE_UP_AFTER = timedelta(hours=24)  # of an outage: until then its payments wait and do not fail
# Results that hold for every send of the payment so far.
CERTAIN = frozenset({Result.BOOKED, Result.REQUIRES_ACTION, Result.CANCELED})


class PaymentClaim(msgspec.Struct, kw_only=True):
    """A payment leased by this worker, and its current attempt."""

    tenant_id: int
    payment_id: int
    correlation_id: UUID
    amount: int
    currency: str
    status: Status  # as stored for this attempt
    was: Status  # before the claim
    number: int
    tries: int  # including this one, since it was accepted or replayed
    account: Account
    reason: str
    requested_at: datetime
    in_doubt_since: datetime | None
    in_doubt_for: float  # seconds at the claim, by the database's clock: our clock may be stepped
    taken_at: float  # time.monotonic()
    created_at: datetime
    waited: float = 0.0  # seconds at the claim since it was accepted, or since the date it was scheduled for
    description: str = ""
    method: dict[str, Any] | None = None
    reference: str = ""  # the processor's id, from an earlier attempt of this decision
    canceling: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return self.tenant_id, self.payment_id

    @property
    def sent_before(self) -> bool:
        """Whether this attempt resolves earlier sends in doubt."""
        return self.in_doubt_since is not None

    @property
    def order(self) -> Order:
        return Order(
            correlation_id=self.correlation_id,
            amount=self.amount,
            currency=self.currency,
            requested_at=self.requested_at,
            tenant_id=self.tenant_id,
            description=self.description,
            method=self.method,
            reference=self.reference,
            canceling=self.canceling,
            attempt=self.number,
        )


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt, and what is written for it."""

    claim: PaymentClaim
    status: Status
    outcome: Result
    code: str
    detail: str
    latency_ms: int
    wait: float | None = None  # seconds until it is due again
    in_doubt_since: datetime | None = None  # if uncertain; None: from now on
    dead: bool = False
    reference: str = ""  # the processor's id, if known
    fee: int | None = None  # minor units that the processor kept, if known
    action: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.claim.key


def after_send(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    """After the first send of a decision, or a look-up with a certain result."""
    if outcome.result in CERTAIN:
        return _certain(claim, outcome, latency_ms)
    if outcome.result is Result.DECLINED:
        return _settlement(claim, outcome, FAILED, f"Declined by {claim.account.name} ({outcome.code})", latency_ms)
    if outcome.result is Result.NOT_BOOKED:
        return _again(claim, outcome, latency_ms)
    return _unclear(claim, outcome, latency_ms)


def after_repeat(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    """After a repeated send of a payment in doubt: only a result that is certain for all sends ends the doubt.

    A refusal does not: the earlier send may still arrive.
    """
    if outcome.result in CERTAIN:
        return _certain(claim, outcome, latency_ms)
    if outcome.result is Result.UNKNOWN:
        return _unclear(claim, outcome, latency_ms)
    return still_in_doubt(claim, outcome, latency_ms)


def still_in_doubt(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    return msgspec.structs.replace(
        unknown(claim, outcome.code, f"{claim.account.name}: {outcome.code}", latency_ms),
        in_doubt_since=claim.in_doubt_since,
        reference=outcome.reference,
        action=outcome.action,
    )


def never_booked(claim: PaymentClaim, latency_ms: int) -> Settlement:
    """After the processor's longest delay, if it does not know the payment: it is routed again."""
    return Settlement(
        claim=claim,
        status=QUEUED,
        outcome=Result.NOT_BOOKED,
        code="never_booked",
        detail=f"{claim.account.name} never booked it",
        latency_ms=latency_ms,
        wait=0.0,
    )


_CERTAIN_STATUS = {
    Result.BOOKED: (SUCCEEDED, "Booked at {}"),
    Result.REQUIRES_ACTION: (REQUIRES_ACTION, "{} waits for the payer"),
    Result.CANCELED: (CANCELED, "Canceled at {}"),
}


def _settlement(
    claim: PaymentClaim, outcome: Outcome, status: Status, detail: str, latency_ms: int, **fields: Any
) -> Settlement:
    return Settlement(
        claim=claim,
        status=status,
        outcome=outcome.result,
        code=outcome.code,
        detail=detail,
        latency_ms=latency_ms,
        reference=outcome.reference,
        **fields,
    )


def _certain(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    status, detail = _CERTAIN_STATUS[outcome.result]
    if outcome.action and outcome.action.get("type") == "capture":
        detail = "Authorized at {}, to be captured"
    detail = detail.format(claim.account.name)
    return _settlement(claim, outcome, status, detail, latency_ms, fee=outcome.fee, action=outcome.action)


def _again(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    # An outage uses up no tries: its payments are the breaker's probes.
    waits = outcome.outage and clock.now() - claim.created_at < GIVE_UP_AFTER
    if claim.tries >= MAX_ATTEMPTS and not waits:
        detail = f"Gave up after {claim.number} attempts ({outcome.code})"
        return _settlement(claim, outcome, FAILED, detail, latency_ms, dead=True)
    detail = f"Not booked at {claim.account.name} ({outcome.code})"
    wait = max(outcome.retry_after, backoff(claim.tries))
    return _settlement(claim, outcome, QUEUED, detail, latency_ms, wait=wait)


def _unclear(claim: PaymentClaim, outcome: Outcome, latency_ms: int) -> Settlement:
    settlement = unknown(claim, outcome.code, f"{claim.account.name} gave no clear answer ({outcome.code})", latency_ms)
    return msgspec.structs.replace(settlement, reference=outcome.reference, action=outcome.action)


def unknown(claim: PaymentClaim, code: str, detail: str, latency_ms: int, *, wait: float | None = None) -> Settlement:
    return Settlement(
        claim=claim,
        status=UNCERTAIN,
        outcome=Result.UNKNOWN,
        code=code,
        detail=detail,
        latency_ms=latency_ms,
        wait=backoff(claim.tries) if wait is None else wait,
        dead=claim.tries >= MAX_QUESTIONS or code == AMOUNT_DIFFERS,
    )


def backoff(number: int) -> float:
    """Seconds before the next attempt: doubling from FIRST_BACKOFF to LONGEST_BACKOFF, the upper half at random."""
    full = min(FIRST_BACKOFF * 2 ** min(number - 1, 16), LONGEST_BACKOFF)
    return full * random.uniform(0.5, 1.0)
