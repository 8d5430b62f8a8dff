"""What follows from an outcome: settled, tried again and when, in doubt, or a dead letter. No I/O: work.py acts on it."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from payments.processors.base import AMOUNT_DIFFERS, Account, Order, Outcome, Result
from payments.states import CANCELED, FAILED, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN, Status

MAX_ATTEMPTS = 25  # sends of one payment before it is a dead letter
MAX_QUESTIONS = 200  # attempts in all for a payment in doubt: with LONGEST_BACKOFF that is well over an hour
FIRST_BACKOFF = 0.1  # seconds
LONGEST_BACKOFF = 30.0  # seconds
GIVE_UP_AFTER = timedelta(hours=24)  # of an outage: until then its payments wait and never fail
# A processor that says so knows what became of every send so far, whoever asked.
CERTAIN = frozenset({Result.BOOKED, Result.REQUIRES_ACTION, Result.CANCELED})


class Claim(msgspec.Struct, kw_only=True):
    """A payment in this worker's hands, with the attempt that is being made."""

    tenant_id: int
    payment_id: int
    correlation_id: UUID
    amount: int
    currency: str
    status: Status  # as written down for this attempt
    was: Status  # as found
    number: int
    tries: int  # with this one, since it was accepted or replayed
    account: Account
    reason: str
    requested_at: datetime
    in_doubt_since: datetime | None
    in_doubt_for: float  # seconds at the claim, by the database's clock: ours may be stepped at any time
    taken_at: float  # of our monotonic clock
    created_at: datetime
    description: str = ""
    method: dict[str, Any] | None = None
    reference: str = ""  # what the processor calls it, from an earlier attempt of this decision
    canceling: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return self.tenant_id, self.payment_id

    @property
    def sent_before(self) -> bool:
        """Whether this attempt is to find out what became of earlier ones."""
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
    """What came of an attempt and what it means for the payment."""

    claim: Claim
    status: Status
    outcome: Result
    code: str
    detail: str
    latency_ms: int
    wait: float | None = None  # seconds until it is due again
    in_doubt_since: datetime | None = None  # when uncertain: None is from now on
    dead: bool = False
    reference: str = ""  # what the processor calls it, where it said so
    fee: int | None = None  # minor units that it kept, where it said so
    action: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.claim.key


def after_send(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    """The first send of a decision, or a look-up that is certain."""
    if outcome.result in CERTAIN:
        return _certain(claim, outcome, latency_ms)
    if outcome.result is Result.DECLINED:
        return _final(claim, outcome, f"Declined by {claim.account.name} ({outcome.code})", latency_ms)
    if outcome.result is Result.NOT_BOOKED:
        return _again(claim, outcome, latency_ms)
    return _unclear(claim, outcome, latency_ms)


def after_repeat(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    """A send to the same processor while an earlier one is in doubt: only what is certain for both ends the doubt.

    A refusal says nothing of the earlier send, which may still be on its way.
    """
    if outcome.result in CERTAIN:
        return _certain(claim, outcome, latency_ms)
    if outcome.result is Result.UNKNOWN:
        return _unclear(claim, outcome, latency_ms)
    return still_in_doubt(claim, outcome, latency_ms)


def still_in_doubt(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    return msgspec.structs.replace(
        unknown(claim, outcome.code, f"{claim.account.name}: {outcome.code}", latency_ms),
        in_doubt_since=claim.in_doubt_since,
        reference=outcome.reference,
    )


def never_booked(claim: Claim, latency_ms: int) -> Settlement:
    """The processor's longest delay has passed and it knows nothing of the payment: it may go anywhere now."""
    return Settlement(
        claim=claim,
        status=QUEUED,
        outcome=Result.NOT_BOOKED,
        code="never_booked",
        detail=f"{claim.account.name} never booked it",
        latency_ms=latency_ms,
        wait=0.0,
    )


_SAYS = {
    Result.BOOKED: (SUCCEEDED, "Booked at {}"),
    Result.REQUIRES_ACTION: (REQUIRES_ACTION, "{} waits for the payer"),
    Result.CANCELED: (CANCELED, "Canceled at {}"),
}


def _certain(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    status, detail = _SAYS[outcome.result]
    if outcome.action and outcome.action.get("type") == "capture":
        detail = "Authorized at {}, to be captured"
    return Settlement(
        claim=claim,
        status=status,
        outcome=outcome.result,
        code=outcome.code,
        detail=detail.format(claim.account.name),
        latency_ms=latency_ms,
        reference=outcome.reference,
        fee=outcome.fee,
        action=outcome.action,
    )


def _final(claim: Claim, outcome: Outcome, detail: str, latency_ms: int, *, dead: bool = False) -> Settlement:
    return Settlement(
        claim=claim,
        status=FAILED,
        outcome=outcome.result,
        code=outcome.code,
        detail=detail,
        latency_ms=latency_ms,
        dead=dead,
        reference=outcome.reference,
    )


def _again(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    # An outage is waited out: its payments are the breaker's probes, and being a probe must not use up their tries.
    waits = outcome.outage and datetime.now(UTC) - claim.created_at < GIVE_UP_AFTER
    if claim.tries >= MAX_ATTEMPTS and not waits:
        return _final(claim, outcome, f"Gave up after {claim.number} attempts ({outcome.code})", latency_ms, dead=True)
    return Settlement(
        claim=claim,
        status=QUEUED,
        outcome=outcome.result,
        code=outcome.code,
        detail=f"Not booked at {claim.account.name} ({outcome.code})",
        latency_ms=latency_ms,
        wait=max(outcome.retry_after, backoff(claim.tries)),
        reference=outcome.reference,
    )


def _unclear(claim: Claim, outcome: Outcome, latency_ms: int) -> Settlement:
    settlement = unknown(claim, outcome.code, f"{claim.account.name} gave no clear answer ({outcome.code})", latency_ms)
    return msgspec.structs.replace(settlement, reference=outcome.reference)


def unknown(claim: Claim, code: str, detail: str, latency_ms: int, *, wait: float | None = None) -> Settlement:
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
