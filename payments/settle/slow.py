"""Payments that were slow, and payments that failed: a line in the log that says where the time of a slow one went, and spans for
those that are not sampled, made afterwards from the stored events and attempts.

Settling only appends to a queue, which is bounded. A background task explains a few payments a second, and says how many it skipped.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from django.conf import settings

from payments.books.history import HistoryAttempt, HistoryEvent, history_of
from payments.settle.decisions import PaymentClaim, Settlement
from payments.states import FAILED, REQUIRES_ACTION, SUCCEEDED, Status
from registry.data import clock, database
from registry.data.loop import PerLoop, background
from registry.telemetry import traces
from registry.telemetry.traces import Span
from registry.tenants import sampling
from registry.tenants.sampling import TracedObject

log = logging.getLogger(__name__)

LIMIT = settings.SLOW_PAYMENT  # seconds from acceptance to the outcome
EXPLAINED = 5  # payments that a process explains in a second; a bad hour has thousands
WAITING = 50  # payments that wait to be explained; further ones are only counted


class Ended(NamedTuple):
    """A payment that was settled for good, or that workers gave up."""

    claim: PaymentClaim
    status: Status
    failed: bool
    seconds: float  # since it was accepted, or since the date that it was scheduled for
    at: datetime

    @property
    def since(self) -> datetime:
        return self.at - timedelta(seconds=self.seconds)

    @property
    def traced_as(self) -> TracedObject:
        return TracedObject("payment", self.claim.tenant_id, self.claim.correlation_id)


@traces.harmless
def after_settle(settlement: Settlement, at: datetime | None) -> None:
    """Have the payment explained if it ended, and was slow or failed. `at`: of its last event. Waits for nothing."""
    failed = settlement.status is FAILED or settlement.dead
    if not failed and settlement.status is not SUCCEEDED:
        return
    claim = settlement.claim
    seconds = claim.waited + time.monotonic() - claim.taken_at
    if seconds <= LIMIT and not (failed and traces.on):
        return
    ended = Ended(claim, settlement.status, failed, seconds, at or clock.now())
    if seconds > LIMIT or sampling.sampled(ended.traced_as) is None:
        _loops.get().add(ended)


class Explanations:
    """The payments of one event loop that wait to be explained."""

    def __init__(self) -> None:
        self.waiting: deque[Ended] = deque()
        self.skipped = 0
        self.task: asyncio.Task[None] | None = None

    def add(self, ended: Ended) -> None:
        if len(self.waiting) >= WAITING:
            self.skipped += 1
            return
        self.waiting.append(ended)
        if self.task is None:
            self.task = background(self._explain_all())

    async def _explain_all(self) -> None:
        try:
            while self.waiting:
                try:
                    await explain(self.waiting.popleft())
                except Exception as error:
                    log.warning("a slow or failed payment was not explained", extra={"error": repr(error)})
                if self.skipped:
                    log.warning(
                        "more payments were slow or failed than are explained", extra={"payments": self.skipped}
                    )
                    self.skipped = 0
                await asyncio.sleep(1 / EXPLAINED)
        finally:
            self.task = None

    async def close(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


_loops: PerLoop[Explanations] = PerLoop(Explanations, close=Explanations.close)


async def explain(ended: Ended) -> None:
    """Read the payment's history, record its spans if it is not sampled, and log a line if it was slow."""
    async with database.own_connection():
        events, attempts = await history_of(ended.claim.tenant_id, ended.claim.payment_id)
    ended = _by_the_databases_clock(ended, attempts)
    spent = seconds_by_status(events, ended.since, ended.at)
    # The time that a payer takes to confirm is not ours.
    slow = ended.seconds - spent[REQUIRES_ACTION] > LIMIT
    span = _traced(ended, events, attempts) if slow or ended.failed else None
    if slow:
        trace = {"trace_id": span.shown_id} if span else {}
        log.warning("slow payment", extra={**_line(ended, attempts, spent), **trace})


def _by_the_databases_clock(ended: Ended, attempts: Sequence[HistoryAttempt]) -> Ended:
    """With the seconds between times that the database wrote: when the last attempt began, and when it was settled."""
    began = next((one.started_at for one in attempts if one.number == ended.claim.number), None)
    return ended._replace(seconds=ended.claim.waited + (ended.at - began).total_seconds()) if began else ended


def seconds_by_status(events: Sequence[HistoryEvent], since: datetime, until: datetime) -> Counter[Status]:
    """The seconds that a payment spent in each status between these times."""
    moments = [(min(max(one.at, since), until), one.status) for one in events if not one.kind]
    spent: Counter[Status] = Counter()
    for (start, status), (end, _) in pairwise([*moments, (until, None)]):
        spent[status] += (end - start).total_seconds()  # type: ignore[index,assignment]
    return spent


def _line(ended: Ended, attempts: Sequence[HistoryAttempt], spent: Counter[Status]) -> dict[str, object]:
    return {
        "tenant": ended.claim.tenant_id,
        "payment": str(ended.claim.correlation_id),
        "status": ended.status.value,
        "attempts": len(attempts),
        "processor": attempts[-1].processor if attempts else None,
        "seconds": round(ended.seconds, 3),
        "seconds_at_processors": sum(one.latency_ms or 0 for one in attempts) / 1000,
        **{f"seconds_{status.value}": round(seconds, 3) for status, seconds in spent.items() if seconds},
    }


def _traced(ended: Ended, events: Sequence[HistoryEvent], attempts: Sequence[HistoryAttempt]) -> Span | None:
    """The first span of its trace, recorded now unless it is sampled; None for a tenant that is never traced."""
    if not traces.on or not sampling.rate_of(ended.claim.tenant_id):
        return None
    first = ended.traced_as.first
    if sampling.sampled(ended.traced_as) is None:
        record(first, ended, events, attempts)
    return first


@traces.harmless
def record(first: Span, ended: Ended, events: Sequence[HistoryEvent], attempts: Sequence[HistoryAttempt]) -> None:
    """Record spans from what is stored: the payment with its events, and each attempt."""
    traces.record_at(
        "payment",
        first,
        start=_nanoseconds(ended.since),
        end=_nanoseconds(ended.at),
        attributes={
            "registry.afterwards": True,
            "registry.status": ended.status.value,
            "error.type": ended.status.value if ended.failed else "",
        },
        events=[(one.kind or one.status.value, _nanoseconds(one.at), {}) for one in events],
    )
    for one in attempts:
        start = _nanoseconds(one.started_at)
        traces.record_at(
            "send payments",
            first.child(),
            start=start,
            end=start + (one.latency_ms or 0) * 1_000_000,
            kind="client",
            attributes={
                "registry.afterwards": True,
                "registry.processor": one.processor or "",
                "registry.attempt": one.number,
                "registry.attempt.outcome": one.outcome,
                "error.type": one.code if one.outcome != "booked" else "",
            },
        )


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
