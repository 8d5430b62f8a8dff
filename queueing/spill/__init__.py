"""The spill: what catches writes while PostgreSQL is away, and brings them there in order when it is back.

An app registers its kind of write with the coroutine that stores it, and appends when PostgreSQL does not take one:

    spill.register("payment", store)                     # async (list[Record]) -> list[Verdict]; safe to repeat
    if not await spill.turn("payment", tenant_id): …     # False: go behind what waits, by `append`
    await spill.append("payment", tenant_id, data)       # durable when it returns; raises Full (503)

`store` gets records in order and answers in order: STORED, or Verdict("why it is set aside"). What it raises about the
data of a record (`is_bad`) makes that record be found and set aside alone; after anything else it is asked again, for as
long as it takes. It must be idempotent: after a crash it sees again what it has stored. The spill never looks into `data`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from queueing.spill.file import FileEngine
from queueing.spill.kinds import Lane, Seen, State, Store, is_bad
from queueing.spill.record import STORED, Aside, Engine, Full, Record, Verdict
from queueing.spill.stream import StreamEngine
from registry.data.loop import PerLoop

__all__ = [
    "STORED", "Aside", "Full", "Lane", "Record", "State", "Verdict",
    "append", "asides", "behind", "carrying", "drop", "holds", "is_bad", "register", "relay", "replay", "start", "state", "turn",
]  # fmt: skip

SHARED = "intake"  # the name of the stream that is the permanent way in


class _Kind(NamedTuple):
    store: Store
    seen: Seen | None


KINDS: dict[str, _Kind] = {}


class _Lanes:
    """What one event loop has open."""

    def __init__(self) -> None:
        self.started = False
        self.own: dict[str, Lane] = {}
        self.relays: dict[str, Lane] = {}

    async def close(self) -> None:
        """Drain what can be drained, keep the rest for the next process."""
        await asyncio.gather(*(lane.close() for lane in (*self.own.values(), *self.relays.values())))


loops: PerLoop[_Lanes] = PerLoop(_Lanes, close=_Lanes.close)
_lanes = loops.get


def register(kind: str, store: Store, *, seen: Seen | None = None) -> None:
    """Who stores records of `kind`. `seen` hears of records that a dead process left before they are stored.

    May come at any time: where the spill was started, what is left of a kind is drained from then on.
    """
    if not re.fullmatch("[a-z]+", kind):
        raise ValueError(f"a kind is lower-case letters, got {kind!r}")
    KINDS[kind] = _Kind(store, seen)
    with suppress(RuntimeError):  # no loop runs here
        if (lanes := loops.peek()) and lanes.started:
            _lane(kind).start()


def append(kind: str, tenant_id: int, data: bytes, *, at: datetime | None = None) -> asyncio.Future[None]:
    """Await it: durable then. Raises Full (503) when it cannot be kept. What hangs up meanwhile does not take it back."""
    return _lane(kind).append(tenant_id, data, at or datetime.now(UTC))


async def turn(kind: str, tenant_id: int | None = None) -> bool:
    """Whether a write of this tenant (None: of any) may go to PostgreSQL directly: nothing of this kind that came before it
    waits in this process.

    When little is left and it flows, waits for that, a moment at most.
    """
    lane = _lanes().own.get(kind)
    return lane is None or await lane.turn(tenant_id)


async def behind(kind: str, tenants: Collection[int]) -> set[int]:
    """The tenants whose turn it is not, as `turn` says it of one."""
    lane = _lanes().own.get(kind)
    return await lane.behind(tenants) if lane else set()


def relay(kind: str, tenant_id: int, data: bytes, *, at: datetime | None = None) -> asyncio.Future[None]:
    """`append` to the stream of all processes, which workers carry to PostgreSQL (INTAKE=stream)."""
    relays = _lanes().relays
    if kind not in relays:
        relays[kind] = _shared_lane(kind, drains=False)
    return relays[kind].append(tenant_id, data, at or datetime.now(UTC))


async def start() -> None:
    """Begin to drain what an earlier process left. Without it the first append does so."""
    _lanes().started = True
    for kind in list(KINDS):
        lane = _lane(kind)
        with suppress(OSError):  # it is tried again, and said, while it drains
            await lane.adopt()
        lane.start()


@asynccontextmanager
async def carrying() -> AsyncIterator[None]:
    """Beside a worker's drain: carry the shared streams to PostgreSQL. One worker at a time does, so order holds."""
    lanes = [_shared_lane(kind, drains=True) for kind in KINDS]
    for lane in lanes:
        lane.start()
    try:
        yield
    finally:
        await asyncio.gather(*(lane.close(within=0) for lane in lanes))


async def state() -> list[State]:
    """How the spill is, per kind; and the shared stream, where that is the way in."""
    lanes = [_lane(kind) for kind in list(KINDS)]
    if settings.INTAKE == "stream":
        lanes += list(_lanes().relays.values())
    return [await lane.state() for lane in lanes]


async def holds(kind: str, tenant_id: int) -> bool:
    """Whether a write of this tenant is not in PostgreSQL yet: in the spill as `asides` sees it, aside, or in the stream of
    all processes. Raises Unavailable."""
    shared = _shared_lane(kind, drains=False)
    try:
        return await _lane(kind).engine.holds(tenant_id) or await shared.engine.holds(tenant_id)
    finally:
        await shared.close()


# -- What was set aside ------------------------------------------------------------------------------------


async def asides(kind: str) -> list[Aside]:
    """Everything that was set aside on this machine (engine file) or in this Redis (engine stream), oldest first."""
    return await _lane(kind).engine.asides()


async def replay(kind: str, ids: Sequence[str]) -> list[str]:
    """Append records once more, with the time they had; which of them. What cannot be read stays aside.

    By a lane that does not drain, so that a record that is refused again is not dropped behind its own back. Whoever
    drains takes over what it leaves, within seconds.
    """
    lane = Lane(kind, _engine(kind), *KINDS[kind], drains=False)
    try:
        wanted = [aside for aside in await lane.engine.asides() if aside.id in ids and aside.record]
        for aside in wanted:
            assert aside.record
            await lane.append(aside.record.tenant_id, aside.record.data, aside.record.at)
            await lane.engine.drop_aside(aside.id)
    finally:
        await lane.close()
    return [aside.id for aside in wanted]


async def drop(kind: str, id: str) -> bool:
    """Forget a record that was set aside; whether it was there."""
    return await _lane(kind).engine.drop_aside(id)


# -- Lanes ---------------------------------------------------------------------------------------------------


def _lane(kind: str) -> Lane:
    own = _lanes().own
    if kind not in own:
        own[kind] = Lane(kind, _engine(kind), *KINDS[kind])
    return own[kind]


def _engine(kind: str) -> Engine:
    if settings.SPILL == "stream":
        return StreamEngine(settings.SPILL_REDIS_URL, kind, limit=settings.SPILL_MAX_BYTES)
    return FileEngine(Path(settings.SPILL_FOLDER), kind, limit=settings.SPILL_MAX_BYTES)


def _shared_lane(kind: str, *, drains: bool) -> Lane:
    engine = StreamEngine(
        settings.SPILL_REDIS_URL,
        kind,
        limit=settings.SPILL_MAX_BYTES,
        shared=SHARED,
        drains=drains,
        eager=settings.INTAKE == "stream",
    )
    return Lane(kind, engine, *KINDS[kind], drains=drains)
