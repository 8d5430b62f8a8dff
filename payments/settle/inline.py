"""Payments that the web process sends itself: where a switch says so, and all of them while no worker is alive.

It is a drain like a worker's, of this process and loop, with a Worker row of its own that beats: what it holds when the
process is killed lapses, and a worker settles it. It claims the payments it is asked for by name and, while it stands in
for the workers, whatever is due. What it does not get to, for whatever reason, simply stays queued.
"""

import asyncio
import contextvars
import enum
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import UUID

from prometheus_client import Counter
from psycopg import AsyncConnection

from payments.intake.intake import Order
from payments.settle import lifecycle, work
from payments.settle.concurrency import Places
from payments.settle.decisions import Claim
from payments.settle.work import Dispatch
from queueing.work.drain import CLAIM_FREE, GRACE, HEARTBEAT, Drain, forever
from registry import telemetry
from registry.data import database, reach
from registry.data.arrays import Bigints, Uuids
from registry.data.loop import PerLoop
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "inline.sql")
NAMED = SQL["named"].format(columns=work.PAYMENTS.columns, joins=work.PAYMENTS.joins)

OPERATION = "payment"  # what its switch is called: `inline.payment`
NAME = "inline"  # of its Worker row
ROOM = 100  # payments asked for and not settled yet, per process; what comes on top stays queued
PLACES = (
    2 * ROOM + CLAIM_FREE
)  # payments under way: one processor, which may hold half of them, can have all that were asked for
WAIT = 5.0  # seconds that a request waits for its payment; longer than most answers, shorter than a caller's patience
WATCH_EVERY = 0.8  # seconds between looks at the workers' heartbeats
SHIFT = 900.0  # seconds; then a fresh one begins with the next payment
STRANDED_AFTER = 8.0  # seconds without a worker before this process stands in: longer than a drain's change of shift

type Key = tuple[int, UUID]


class Came(enum.Enum):
    """What became of a payment that was asked for."""

    SETTLED = "settled"
    UNFINISHED = "unfinished"  # it was sent, and is tried again or asked about
    ELSEWHERE = "elsewhere"  # a worker was faster, or it is not due
    QUEUED = "queued"  # not taken: no room, no processor to send it to, or the database too slow


class InlineDispatch(Dispatch):
    """The worker's job, for payments by name."""

    def __init__(self) -> None:
        super().__init__(Places(PLACES, PLACES))
        self.stands_in = False
        self.wanted: dict[Key, asyncio.Future[Came]] = {}
        self.taken: dict[Key, asyncio.Future[Came]] = {}
        self._named: list[Key] = []  # of the claim under way

    @property
    def waiting(self) -> int:
        return len(self.wanted) + len(self.taken)

    def answer(self, key: Key, came: Came) -> None:
        for futures in (self.wanted, self.taken):
            future = futures.pop(key, None)
            if future is not None:
                _came(came).inc()
                if not future.done():  # its caller may have hung up
                    future.set_result(came)

    def leave_all(self) -> None:
        for key in (*self.wanted, *self.taken):
            self.answer(key, Came.QUEUED)

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Claim]:
        if not self.wanted and not self.stands_in:
            return []
        self._named = list(self.wanted)[:limit]
        self.taken.update({key: self.wanted.pop(key) for key in self._named})
        try:
            return await super().claim(worker_id, limit, room)
        except BaseException:
            for key in self._named:
                self.answer(key, Came.QUEUED)
            raise

    async def _claim_doubts(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], narrow: dict[int, int]
    ) -> list[Claim]:
        return await super()._claim_doubts(conn, limit, room, narrow) if self.stands_in else []

    async def _claim_due(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], claimed: set[int]
    ) -> list[Claim]:
        claims = await self._claim_named(conn) if self._named else []
        if self.stands_in and len(claims) < limit:
            claimed = claimed | {claim.payment_id for claim in claims}
            claims += await super()._claim_due(conn, limit - len(claims), room, claimed)
        return claims

    async def _claim_named(self, conn: AsyncConnection) -> list[Claim]:
        asked = self._named
        parameters = {"tenant": Bigints([t for t, _ in asked]), "correlation": Uuids([c.bytes for _, c in asked])}
        found = await database.rows(conn, NAMED, parameters)
        await self.atlas.learn({row[0] for row in found}, lambda sql, params: database.rows(conn, sql, params))
        claims = self._route(found).claims
        ours = {(claim.tenant_id, claim.correlation_id) for claim in claims}
        seen = {(row[0], row[2]) for row in found}
        for key in asked:
            if key not in ours:
                self.answer(key, Came.QUEUED if key in seen else Came.ELSEWHERE)
        return claims

    async def handle(self, claim: Claim) -> bool:
        key = (claim.tenant_id, claim.correlation_id)
        try:
            done = await super().handle(claim)
            self.answer(key, Came.SETTLED if done else Came.UNFINISHED)
        finally:
            self.answer(key, Came.UNFINISHED)
        return done

    async def hand_back(self, items: Sequence[Claim]) -> None:
        self.leave_all()
        await super().hand_back(items)


class InlineDrain(Drain):
    """A drain that is told what to claim, and need not listen for it."""

    job: InlineDispatch

    def __init__(self) -> None:
        super().__init__(InlineDispatch(), name=NAME)

    def ask(self, key: Key) -> asyncio.Future[Came]:
        future = self.job.wanted[key] = asyncio.get_running_loop().create_future()
        self._wake.set()
        return future

    async def _listen(self) -> None:
        await asyncio.sleep(HEARTBEAT)

    async def live(self) -> None:
        """Until `stop`, or until the row is gone: then whoever asks next begins anew."""
        try:
            await self.run(seconds=SHIFT)
        finally:
            self.job.leave_all()
            await self.job.close()


class _Process:
    """What one event loop has of it."""

    def __init__(self) -> None:
        self.drain: InlineDrain | None = None
        self.running: asyncio.Task[None] | None = None
        self.watch: asyncio.Task[None] | None = None
        self.heard_at = time.monotonic()  # of a worker, as far as this process knows

    def at_work(self) -> InlineDrain:
        if self.drain is None or self.running is None or self.running.done() or self.drain.stopping:
            self.drain = InlineDrain()
            # In a context of its own: not the connection, nor the log's request id, of whoever asked first.
            self.running = asyncio.get_running_loop().create_task(self.drain.live(), context=contextvars.Context())
        return self.drain

    async def close(self) -> None:
        """Finish what is in flight, or hand it back."""
        if self.watch:
            self.watch.cancel()
            await asyncio.gather(self.watch, return_exceptions=True)
        if self.drain and self.running:
            self.drain.stop()
            await asyncio.gather(self.running, return_exceptions=True)


processes: PerLoop[_Process] = PerLoop(_Process, close=_Process.close, within=GRACE + 2.0)
_process = processes.get


# -- Asking -----------------------------------------------------------------------------------------------------


def takes(order: Order) -> bool:
    """Whether there is room for `order` now. One that is meant for later is the workers'."""
    drain = _process().drain
    if drain is not None and drain.job.waiting >= ROOM:
        return False
    return order.scheduled_for is None or order.scheduled_for <= datetime.now(UTC)


def pay(tenant_id: int, correlation_id: UUID) -> asyncio.Future[Came]:
    """Claim a durable payment and send it, at once; the future of what became of it. Never raises."""
    drain, key = _process().at_work(), (tenant_id, correlation_id)
    if (same := drain.job.wanted.get(key) or drain.job.taken.get(key)) is not None:
        return asyncio.shield(same)
    if drain.job.waiting >= ROOM:
        _came(Came.QUEUED).inc()
        full: asyncio.Future[Came] = asyncio.get_running_loop().create_future()
        full.set_result(Came.QUEUED)
        return full
    return asyncio.shield(drain.ask(key))


async def outcome(asked: asyncio.Future[Came], order: Order, *, within: float, patient: bool) -> None:
    """Wait until the payment is settled, by whomever, at most `within` seconds. What is left in the queue is waited for
    by the `patient` only."""
    until = time.monotonic() + within
    try:
        async with asyncio.timeout(within):
            came = await asked
    except TimeoutError:
        return
    if came in (Came.UNFINISHED, Came.ELSEWHERE) or (came is Came.QUEUED and patient):
        await lifecycle.settled(order.tenant_id, order.correlation_id, within=until - time.monotonic())


# -- Standing in for the workers ----------------------------------------------------------------------------------


async def start() -> None:
    """Watch the workers from now on, and stand in for them while none is alive. A server's process does this."""
    process = _process()
    if process.watch is None:
        process.watch = asyncio.create_task(forever(_look), context=contextvars.Context())


def standing_in() -> bool:
    """Whether this process sends what workers should."""
    process = processes.peek()
    return bool(process and process.drain and process.drain.job.stands_in)


async def _look() -> None:
    process = _process()
    try:
        [(silent_for,)] = await database.fetch(SQL["heard"], repeatable=False)
    except Unavailable:
        process.heard_at = time.monotonic()  # nobody can be heard of now
        raise
    if reach.reach().read_only:  # no worker's heartbeat goes through
        process.heard_at = time.monotonic()
    if silent_for is not None:
        process.heard_at = max(process.heard_at, time.monotonic() - silent_for)
    _stand_in(process, time.monotonic() - process.heard_at > STRANDED_AFTER)
    await asyncio.sleep(WATCH_EVERY)


def _stand_in(process: _Process, needed: bool) -> None:
    stood_in = process.drain is not None and process.drain.job.stands_in
    if needed != stood_in:
        log.warning("no worker is alive, standing in for them" if needed else "workers are alive again, standing back")
    if needed:
        process.at_work().job.stands_in = True
    elif process.drain is not None:
        process.drain.job.stands_in = False


@cache
def _came(came: Came) -> Counter:
    return telemetry.INLINE.labels(came.value)
