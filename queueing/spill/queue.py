"""SpillQueue: the first-in-first-out queue of one kind of write on one event loop, and its background drain to PostgreSQL.

Order guaranteed per process and kind: records are stored in the order in which they were appended, and a direct write that
waited for `is_clear` comes after all earlier records of its tenant. There is no order between processes or between kinds.
"""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime

from queueing.spill.pending import Pending
from queueing.spill.record import Engine, Entry, Full, Record
from queueing.spill.state import SpillState
from queueing.spill.storing import UNREADABLE, Store, report, store_entries, tenants_of
from registry.data import database, faults
from registry.data.batching import Batcher
from registry.errors import Unavailable
from registry.telemetry import metrics

log = logging.getLogger(__name__)

type OnTakeover = Callable[[list[Record]], None]

BATCH = 500  # records given to `store` at once
PUBLISH_EVERY = 1.0  # seconds between two updates of the metrics while much is drained
RETRY = 0.2  # seconds before PostgreSQL is tried again
HANDOVER = BATCH  # records: with so few or fewer pending, new writes wait for them and then go to PostgreSQL directly
HANDOVER_LIMIT = 0.2  # seconds that they wait at most; together with the wait for a slow statement, less than a second
CLOSE_LIMIT = 1.0  # seconds to drain at the end of a process; the next process takes over the rest
STEP_LIMIT = 0.5  # seconds that a batch in progress gets at the end of a process


class SpillQueue:
    """Appends records to an engine and, where it `drains`, stores them in order with `store`."""

    def __init__(
        self, kind: str, engine: Engine, store: Store, on_takeover: OnTakeover | None = None, *, drains: bool = True
    ) -> None:
        self.kind, self.engine, self.drains = kind, engine, drains
        self.flowing = True  # the last batch was stored
        self.refused = ""
        self._pending = Pending()
        self._store, self._on_takeover = store, on_takeover
        self._batcher: Batcher[Record, None] = Batcher(self._write, in_flight=1)
        self._appending = self._appended = 0  # records
        self._batch: list[Entry] = []  # read from the engine, not settled
        self._more = asyncio.Event()
        self._took_over_at = self._published_at = 0.0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Records that were appended or taken over here, and are not yet stored or quarantined."""
        return self._pending.total

    # -- Appending -----------------------------------------------------------------------------------------

    def append(self, tenant_id: int, data: bytes, at: datetime) -> asyncio.Future[None]:
        """The future is done once `data` is durable, or fails with Full (503). The record counts as pending at once."""
        self.start()
        self._pending.add([tenant_id])
        self._appending += 1
        return self._batcher.submit(Record(self.kind, tenant_id, at, data))

    async def _write(self, records: Sequence[Record]) -> list[None]:
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
        metrics.SPILL_APPENDED.labels(self.kind).inc(len(records))
        self._more.set()
        return [None] * len(records)

    def _refuse(self, records: Sequence[Record], reason: str) -> None:
        self._remove([record.tenant_id for record in records])
        if not self.refused:
            log.error("the spill refuses writes", extra={"kind": self.kind, "reason": reason})
        self.refused = reason

    def _remove(self, tenants: Sequence[int]) -> None:
        self._pending.remove(tenants)
        if self.waiting <= 0:
            self.refused = ""  # an empty spill has room again

    async def is_clear(self, tenant_id: int | None = None) -> bool:
        """Whether a write of this tenant (None: of any) may go to PostgreSQL directly: see `blocked`."""
        return not await self.blocked([tenant_id])

    async def blocked[T: int | None](self, tenants: Collection[T]) -> set[T]:
        """Tenants whose writes must be appended, because earlier records wait. Where few are left, waits until they are stored."""
        if self.flowing and self.waiting <= HANDOVER and any(map(self._pending.blocks, tenants)):
            await self._pending.wait_until_empty(HANDOVER_LIMIT)
        return {tenant for tenant in tenants if self._pending.blocks(tenant)}

    # -- Draining ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the background drain, if this queue drains and none runs."""
        if self._task is None and self.drains:
            # An empty context: the request that appends first must not lend its connection or request id to all others.
            self._task = asyncio.get_running_loop().create_task(self._drain(), context=contextvars.Context())

    async def _drain(self) -> None:
        async with database.own_connection():
            while not self._stopping:
                try:
                    if not await self._step():
                        await self._idle()
                except Exception as error:
                    self._failed(error)
                    await self._publish()
                    await asyncio.sleep(RETRY)

    async def _idle(self) -> None:
        await self._publish()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.engine.idle):
                await self._more.wait()
        self._more.clear()

    def _failed(self, error: Exception) -> None:
        if self.flowing or not faults.is_temporary(error):
            faults.warn(log, "the spill waits", error=error, kind=self.kind, records=self.waiting)
        self.flowing = False
        self._pending.notify()

    async def _step(self) -> bool:
        """Store and settle one batch. Returns False where nothing waits."""
        await self.engine.heartbeat()
        if time.monotonic() - self._took_over_at >= self.engine.takeover_every:
            await self.take_over()
        if not self._batch:
            await self._read()
        if not self._batch:
            self.flowing = True
            return False
        results = await store_entries(self.kind, self._store, self._batch)
        await self.engine.settle(self._batch, results)
        report(self.kind, self._batch, results)
        settled, self._batch = tenants_of(self._batch), []
        self.flowing = True
        if not self.engine.shared:
            self._remove(settled)
        if time.monotonic() - self._published_at > PUBLISH_EVERY:
            await self._publish()
        return True

    async def _read(self) -> None:
        appended = self._appended
        self._batch = await self.engine.batch(BATCH)
        if not self._batch and not self._appending and appended == self._appended and self.waiting:
            # Damage between two records makes them one entry, so that the count stays too high. It must not block for ever.
            self._remove([UNREADABLE] * self.waiting)

    async def take_over(self) -> None:
        """Take over the records of dead processes."""
        self._took_over_at = time.monotonic()
        async for entries in self.engine.take_over():
            self._pending.add(tenants_of(entries))
            if self._on_takeover:
                self._on_takeover([entry.record for entry in entries if entry.record])

    # -- State and end -----------------------------------------------------------------------------------------

    async def state(self) -> SpillState:
        records = await self.engine.shared_length() if self.engine.shared else self.waiting
        first = self._batch[0].record if self._batch else None
        return SpillState(
            kind=self.kind,
            engine=self.engine.name,
            records=records,
            bytes=self.engine.bytes,
            oldest=(first.at if first else await self.engine.oldest()) if records else None,
            quarantined=await self.engine.count_quarantined(),
            draining=self.flowing,
            refused=self.refused,
        )

    async def _publish(self) -> None:
        self._published_at = time.monotonic()
        with suppress(Exception):
            (await self.state()).publish()

    async def drained(self, within: float) -> bool:
        """Wait until nothing is pending, `within` seconds at most and not at all while PostgreSQL is away; returns whether so."""
        if self.waiting and self.flowing:
            await self._pending.wait_until_empty(within)
        return not self.waiting

    async def close(self, within: float = CLOSE_LIMIT) -> None:
        """Drain for `within` seconds at most and close the engine. The next process takes over what is left."""
        await self._batcher.finish()
        if self._task:
            await self.drained(within)
            self._stopping = True
            self._more.set()
            # A step in progress gets time to finish: its work in a thread cannot be cancelled.
            _, late = await asyncio.wait({self._task}, timeout=STEP_LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self.waiting and self.drains:
            log.warning("records stay in the spill", extra={"kind": self.kind, "records": self.waiting})
        await self.engine.close()
