"""One kind's way through the spill: appended and durable, stored in order when PostgreSQL is back, or set aside singly.

The order that is promised, per process and kind: what was appended first is stored first, and a direct write that asked for
its turn comes after everything of its tenant that was appended before. Between processes, and between kinds, there is no order.
"""

import asyncio
import contextvars
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from queueing.spill.record import STORED, Engine, Full, Item, Record, Verdict
from registry import telemetry
from registry.data import database, faults
from registry.data.batching import Batcher
from registry.errors import Problem, Unavailable

log = logging.getLogger(__name__)

type Store = Callable[[list[Record]], Awaitable[list[Verdict]]]
type Seen = Callable[[list[Record]], None]

BATCH = 500  # records handed to the owner at once
TELL_EVERY = 1.0  # seconds between two updates of the metrics while much is drained
RETRY = 0.2  # seconds before PostgreSQL is tried again
HANDOVER = BATCH  # records: once so few are left, new writes wait for them and then go directly
HANDOVER_LIMIT = 0.2  # seconds that they wait at most; with what a slow statement is waited for, less than a second
CLOSE_LIMIT = 1.0  # seconds to drain at the end of a process; the rest is found by the next
UNREADABLE = 0  # in place of the tenant of a record that cannot be read
STEP_LIMIT = 0.5  # seconds that a batch under way gets at the end of a process


def is_bad(error: Exception) -> bool:
    """Whether the record itself is at fault: PostgreSQL says so of its row, it cannot be read, or its owner refuses it. Only
    then is it set aside; anything else may go away, and the record waits for that."""
    if isinstance(error, Problem):
        return not isinstance(error, Unavailable)
    return faults.about_the_row(error) or isinstance(error, (ValueError, msgspec.MsgspecError))


class State(msgspec.Struct, frozen=True):
    """How the spill of one kind is, in this process."""

    kind: str
    engine: str
    records: int
    bytes: int
    oldest: datetime | None
    set_aside: int  # by all processes
    draining: bool  # the last try went through
    refused: str  # why the last append was refused; empty when it was not

    @property
    def oldest_seconds(self) -> float:
        return max(0.0, (datetime.now(UTC) - self.oldest).total_seconds()) if self.oldest else 0.0


def _tenants_of(items: Sequence[Item]) -> list[int]:
    return [item.record.tenant_id if item.record else UNREADABLE for item in items]


class Lane:
    """The spill of one kind on one event loop."""

    def __init__(
        self, kind: str, engine: Engine, store: Store, seen: Seen | None = None, *, drains: bool = True
    ) -> None:
        self.kind, self.engine, self.drains = kind, engine, drains
        self.waiting = 0  # appended or taken over here, and not yet stored or set aside
        self._tenants: Counter[int] = Counter()  # whose records wait
        self.flowing = True  # the last batch went through
        self.refused = ""
        self._store, self._seen = store, seen
        self._batcher: Batcher[Record, None] = Batcher(self._keep, in_flight=1)
        self._appending = self._appended = 0  # records
        self._in_hand: list[Item] = []
        self._more = asyncio.Event()
        self._settled: asyncio.Future[None] | None = None  # the next time that nothing is left, or nothing goes through
        self._adopted_at = self._told_at = 0.0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    # -- Appending -----------------------------------------------------------------------------------------

    def append(self, tenant_id: int, data: bytes, at: datetime) -> asyncio.Future[None]:
        """Done once `data` is durable. Fails with Full (503) when it is not kept. Counts as waiting from now on."""
        self.start()
        self._wait_for([tenant_id])
        self._appending += 1
        return self._batcher.submit(Record(self.kind, tenant_id, at, data))

    async def _keep(self, records: Sequence[Record]) -> list[None]:
        try:
            await self.engine.append(records)
        except Exception as error:
            refusal = error if isinstance(error, Unavailable) else Full(f"the spill cannot be written: {error!r}")
            self._refuse(records, refusal.detail)
            raise refusal from error
        finally:
            self._appending -= len(records)
        self._appended += len(records)
        self.refused = ""
        telemetry.SPILL_APPENDED.labels(self.kind).inc(len(records))
        self._more.set()
        return [None] * len(records)

    def _refuse(self, records: Sequence[Record], reason: str) -> None:
        self._gone([record.tenant_id for record in records])
        if not self.refused:
            log.error("the spill refuses writes", extra={"kind": self.kind, "reason": reason})
        self.refused = reason

    async def turn(self, tenant_id: int | None = None) -> bool:
        """Whether a write of this tenant (None: of any) may go to the database directly: see `behind`."""
        return not await self.behind([tenant_id])

    async def behind[T: int | None](self, tenants: Collection[T]) -> set[T]:
        """Tenants whose writes must be appended, because earlier records wait. When few are left, waits until they are stored.

        While only one tenant's records wait (its rows may be locked), other tenants may write directly.
        """
        held_up = self.waiting and any(map(self._holds_up, tenants))
        if held_up and self.flowing and self.waiting <= HANDOVER:
            await self._nothing_left(HANDOVER_LIMIT)
        return {tenant for tenant in tenants if self.waiting and self._holds_up(tenant)}

    def _holds_up(self, tenant_id: int | None) -> bool:
        return tenant_id is None or tenant_id in self._tenants or len(self._tenants) > 1

    async def _nothing_left(self, within: float) -> None:
        """Until then, or until nothing goes through."""
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._settled}, timeout=within)

    def _wait_for(self, tenants: Sequence[int]) -> None:
        """Records of these tenants wait from now on."""
        self.waiting += len(tenants)
        self._tenants.update(tenants)

    def _gone(self, tenants: Sequence[int]) -> None:
        """Records of these tenants wait no longer."""
        self.waiting -= len(tenants)
        self._tenants.subtract(tenants)
        for tenant in set(tenants):
            if self._tenants[tenant] <= 0:
                del self._tenants[tenant]
        if self.waiting <= 0:
            self._tenants.clear()
            self.refused = ""  # what was full has room again
            self._call()

    def _call(self) -> None:
        if self._settled and not self._settled.done():
            self._settled.set_result(None)
        self._settled = None

    # -- Draining ------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self._task is None and self.drains:
            # A context of its own: the request that happens to spill first has nothing to do with the others.
            self._task = asyncio.get_running_loop().create_task(self._drain(), context=contextvars.Context())

    async def _drain(self) -> None:
        async with database.own_connection():
            while not self._stopping:
                try:
                    if not await self._step():
                        await self._idle()
                except Exception as error:
                    self._stopped(error)
                    await self._tell()
                    await asyncio.sleep(RETRY)

    async def _idle(self) -> None:
        await self._tell()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.engine.idle):
                await self._more.wait()
        self._more.clear()

    def _stopped(self, error: Exception) -> None:
        if self.flowing or not faults.waits(error):
            faults.say(log, "the spill waits", error=error, kind=self.kind, records=self.waiting)
        self.flowing = False
        self._call()

    async def _step(self) -> bool:
        """Bring one batch to where it belongs; False when nothing waits."""
        await self.engine.beat()
        if time.monotonic() - self._adopted_at >= self.engine.look_every:
            await self.adopt()
        if not self._in_hand:
            await self._take()
        if not self._in_hand:
            self.flowing = True
            return False
        verdicts = await self._verdicts(self._in_hand)
        await self.engine.settle(self._in_hand, verdicts)
        self._report(self._in_hand, verdicts)
        settled, self._in_hand = _tenants_of(self._in_hand), []
        self.flowing = True
        if not self.engine.shared:
            self._gone(settled)
        if time.monotonic() - self._told_at > TELL_EVERY:
            await self._tell()
        return True

    async def _take(self) -> None:
        known = self._appended
        self._in_hand = await self.engine.batch(BATCH)
        if not self._in_hand and not self._appending and known == self._appended and self.waiting:
            # Two records with damage between them read as one: the count must not keep writes from their way for ever.
            self._gone([UNREADABLE] * self.waiting)

    async def adopt(self) -> None:
        """Take over what dead processes left."""
        self._adopted_at = time.monotonic()
        async for items in self.engine.adopt():
            self._wait_for(_tenants_of(items))
            if self._seen:
                self._seen([item.record for item in items if item.record])

    async def _verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        """The owner's, for what can be read."""
        records = [item.record for item in items if item.record]
        said = iter(await self._stored(records)) if records else iter(())
        return [next(said) if item.record else Verdict(item.fault) for item in items]

    async def _stored(self, records: list[Record]) -> list[Verdict]:
        try:
            return await self._store(records)
        except Exception as error:
            if not is_bad(error):
                raise
            if len(records) == 1:
                log.exception("a record of the spill cannot be stored", extra={"kind": self.kind})
                return [Verdict(f"{type(error).__name__}: {error}"[:500])]
        return [verdict for record in records for verdict in await self._stored([record])]

    def _report(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
        stored = sum(verdict == STORED for verdict in verdicts)
        telemetry.SPILL_DRAINED.labels(self.kind, "stored").inc(stored)
        telemetry.SPILL_DRAINED.labels(self.kind, "set_aside").inc(len(items) - stored)
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict.reason:
                tenant = item.record.tenant_id if item.record else 0
                log.error("set aside", extra={"kind": self.kind, "tenant": tenant, "reason": verdict.reason})

    # -- How it is, and the end --------------------------------------------------------------------------------

    async def state(self) -> State:
        records = await self.engine.waits() if self.engine.shared else self.waiting
        first = self._in_hand[0].record if self._in_hand else None
        return State(
            kind=self.kind,
            engine=self.engine.name,
            records=records,
            bytes=self.engine.bytes,
            oldest=(first.at if first else await self.engine.oldest()) if records else None,
            set_aside=await self.engine.count_asides(),
            draining=self.flowing,
            refused=self.refused,
        )

    async def _tell(self) -> None:
        self._told_at = time.monotonic()
        with suppress(Exception):
            now = await self.state()
            telemetry.SPILL_RECORDS.labels(self.kind).set(now.records)
            telemetry.SPILL_BYTES.labels(self.kind).set(now.bytes)
            telemetry.SPILL_OLDEST.labels(self.kind).set(now.oldest_seconds)

    async def drained(self, within: float) -> bool:
        """Whether everything found its place in that time; not waited for while PostgreSQL is away."""
        if self.waiting and self.flowing:
            await self._nothing_left(within)
        return not self.waiting

    async def close(self, within: float = CLOSE_LIMIT) -> None:
        """Drain what can be drained in that time; the rest stays where the next process finds it."""
        await self._batcher.finish()
        if self._task:
            await self.drained(within)
            self._stopping = True
            self._more.set()
            # A step under way is let finish: what it does in a thread cannot be called back.
            _, late = await asyncio.wait({self._task}, timeout=STEP_LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self.waiting and self.drains:
            log.warning("left in the spill", extra={"kind": self.kind, "records": self.waiting})
        await self.engine.close()
