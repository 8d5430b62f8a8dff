"""The spill: a durable queue for writes while PostgreSQL is unavailable; it stores them in order once PostgreSQL is back.

An app registers a kind of write with the coroutine that stores it, and appends when PostgreSQL does not accept a write:

    spill.register("payment", store)                         # async (list[Record]) -> list[StoreResult]; idempotent
    if not await spill.is_clear("payment", tenant_id): …     # earlier records wait: `append` behind them
    await spill.append("payment", tenant_id, data)           # durable when it returns; raises Full (503)

`store` gets records in order and returns one result per record: STORED, or StoreResult("reason") to quarantine it. Where
`store` raises an error about a record's data (`is_bad`), that record alone is found and quarantined; after any other error
the batch is repeated until it succeeds. `store` must be idempotent: after a crash it gets records again that it has stored.
The spill never interprets `data`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from queueing.spill.file import FileEngine
from queueing.spill.queue import OnTakeover, SpillQueue
from queueing.spill.record import STORED, Engine, Full, QuarantinedRecord, Record, StoreResult
from queueing.spill.shared import SharedStreamEngine
from queueing.spill.state import SpillState
from queueing.spill.storing import Store, is_bad
from queueing.spill.stream import StreamEngine
from registry.data import clock
from registry.data.loop import PerLoop

__all__ = [
    "STORED", "Full", "QuarantinedRecord", "Record", "SpillState", "StoreResult",
    "append", "blocked", "drain_shared", "drop", "holds", "is_bad", "is_clear", "quarantined", "register", "relay", "replay",
    "start", "state",
]  # fmt: skip


class _Kind(NamedTuple):
    store: Store
    on_takeover: OnTakeover | None


KINDS: dict[str, _Kind] = {}


class _Queues:
    """The open queues of one event loop, by kind."""

    def __init__(self) -> None:
        self.started = False
        self.own: dict[str, SpillQueue] = {}
        self.relays: dict[str, SpillQueue] = {}

    async def close(self) -> None:
        """Drain for a limited time, and leave the rest to the next process."""
        await asyncio.gather(*(queue.close() for queue in (*self.own.values(), *self.relays.values())))


loops: PerLoop[_Queues] = PerLoop(_Queues, close=_Queues.close)
_queues = loops.get


def register(kind: str, store: Store, *, on_takeover: OnTakeover | None = None) -> None:
    """Declare the function that stores records of `kind`. `on_takeover` gets records of dead processes before they are stored.

    A kind may be registered at any time: where the spill was started, its records are drained from then on.
    """
    if not re.fullmatch("[a-z]+", kind):
        raise ValueError(f"a kind is lower-case letters, got {kind!r}")
    KINDS[kind] = _Kind(store, on_takeover)
    with suppress(RuntimeError):  # no loop runs here
        if (queues := loops.peek()) and queues.started:
            _queue(kind).start()


def append(kind: str, tenant_id: int, data: bytes, *, at: datetime | None = None) -> asyncio.Future[None]:
    """The future is done once the record is durable; it fails with Full (503). Cancelling the future does not remove the record."""
    return _queue(kind).append(tenant_id, data, at or clock.now())


async def is_clear(kind: str, tenant_id: int | None = None) -> bool:
    """Whether a write of this tenant (None: of any) may go to PostgreSQL directly: no earlier one waits in this process.

    Where few records are left and the spill drains, waits for them, HANDOVER_LIMIT seconds at most.
    """
    queue = _queues().own.get(kind)
    return queue is None or await queue.is_clear(tenant_id)


async def blocked(kind: str, tenants: Collection[int]) -> set[int]:
    """Those of these tenants for whom `is_clear` is false."""
    queue = _queues().own.get(kind)
    return await queue.blocked(tenants) if queue else set()


def relay(kind: str, tenant_id: int, data: bytes, *, at: datetime | None = None) -> asyncio.Future[None]:
    """Append to the stream shared by all processes, which workers drain to PostgreSQL (INTAKE=stream)."""
    relays = _queues().relays
    if kind not in relays:
        relays[kind] = _shared_queue(kind, drains=False)
    return relays[kind].append(tenant_id, data, at or clock.now())


async def start() -> None:
    """Begin to drain the records of earlier processes. Without it the first append does so."""
    _queues().started = True
    for kind in list(KINDS):
        queue = _queue(kind)
        with suppress(OSError):  # the drain tries again, and logs the error
            await queue.take_over()
        queue.start()


@asynccontextmanager
async def drain_shared() -> AsyncIterator[None]:
    """While the block runs, drain the shared streams to PostgreSQL. One worker at a time owns a stream, which keeps the order."""
    queues = [_shared_queue(kind, drains=True) for kind in KINDS]
    for queue in queues:
        queue.start()
    try:
        yield
    finally:
        await asyncio.gather(*(queue.close(within=0) for queue in queues))


async def state() -> list[SpillState]:
    """The state of each kind in this process, and of each shared stream to which it relays."""
    queues = [_queue(kind) for kind in list(KINDS)]
    return [await queue.state() for queue in (*queues, *_queues().relays.values())]


async def holds(kind: str, tenant_id: int) -> bool:
    """Whether a write of this tenant waits, is quarantined or is in the shared stream. Raises Unavailable."""
    shared = _shared_queue(kind, drains=False)
    try:
        return await _queue(kind).engine.holds(tenant_id) or await shared.engine.holds(tenant_id)
    finally:
        await shared.close()


# -- Quarantined records -----------------------------------------------------------------------------------


async def quarantined(kind: str) -> list[QuarantinedRecord]:
    """All quarantined records on this machine (engine file) or in this Redis (engine stream), oldest first."""
    return await _queue(kind).engine.quarantined()


async def replay(kind: str, ids: Sequence[str]) -> list[str]:
    """Append quarantined records again, with their first time; returns the ids. Unreadable ones stay quarantined.

    The queue used here does not drain: else a record that fails again at once would be quarantined under the same id and
    then dropped. The process that drains takes the records over within seconds.
    """
    queue = SpillQueue(kind, _engine(kind), *KINDS[kind], drains=False)
    try:
        wanted = [one for one in await queue.engine.quarantined() if one.id in ids and one.record]
        for one in wanted:
            assert one.record
            await queue.append(one.record.tenant_id, one.record.data, one.record.at)
            await queue.engine.drop_quarantined(one.id)
    finally:
        await queue.close()
    return [one.id for one in wanted]


async def drop(kind: str, id: str) -> bool:
    """Delete a quarantined record. Returns whether it existed."""
    return await _queue(kind).engine.drop_quarantined(id)


# -- Queues and engines --------------------------------------------------------------------------------------


def _queue(kind: str) -> SpillQueue:
    own = _queues().own
    if kind not in own:
        own[kind] = SpillQueue(kind, _engine(kind), *KINDS[kind])
    return own[kind]


def _engine(kind: str) -> Engine:
    if settings.SPILL == "stream":
        return StreamEngine(settings.SPILL_REDIS_URL, kind, limit=settings.SPILL_MAX_BYTES)
    return FileEngine(Path(settings.SPILL_FOLDER), kind, limit=settings.SPILL_MAX_BYTES)


def _shared_queue(kind: str, *, drains: bool) -> SpillQueue:
    in_use = settings.INTAKE == "stream"
    engine = SharedStreamEngine(settings.SPILL_REDIS_URL, kind, limit=settings.SPILL_MAX_BYTES, in_use=in_use)
    return SpillQueue(kind, engine, *KINDS[kind], drains=drains)
