"""What a worker does with events of processors: claim, hand to whoever handles the type, write down what came of it.

The work and the row's `done` are one transaction, fenced by attempt and lease: an event whose work failed is still due, and
one whose work is written is never worked on again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from psycopg import AsyncConnection

from payments.inbound.handlers import Effect, Event, Handler, Later, Missing, handler_of, object_of
from payments.inbound.payments import is_known
from payments.inbound.receive import QUEUE, SQL
from payments.processors import KINDS
from payments.processors.base import Account, Processor
from payments.routing.routing import Atlas
from payments.settle.decisions import GIVE_UP_AFTER, backoff
from queueing.work import entry
from queueing.work.drain import TENANT_ROOM
from queueing.work.table import WorkTable, register
from registry import telemetry
from registry.data import database, faults
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.data.batching import Batcher, Family
from registry.errors import Unavailable

log = logging.getLogger(__name__)

LEASE = 30.0  # seconds; longer than HANDLE_WITHIN and a write together
HANDLE_WITHIN = 20.0  # seconds for what an event needs from its processor
LONGEST_PATIENCE = 300.0  # seconds between tries of what waits for others
MAX_TRIES = 20  # before an event is a dead letter: with the longest backoff well over five minutes
# Events with work per commit: from the first of them on the tenant's stream is held, which accepting and settling wait for,
# and each is half a dozen round trips.
WORK_ROWS = 4
WRITES_AT_ONCE = 4  # transactions with an event's work: a worker needs its connections for other things as well
WRITE_AGAIN = 0.25  # seconds before what the database did not take is written again

_COLUMNS = """p.tenant_id, p.id, p.processor_id, p.event_id, p.type, p.object_id, p.account, p.livemode, p.created, p.received_at,
    extract(epoch FROM now() - p.received_at)::float8, p.body, p.attempt + 1, p.attempt + 1 - p.tries_from"""

INBOUND = register(WorkTable(QUEUE, "payments_inboundevent", "closed IS NULL", _COLUMNS))


class Found(NamedTuple):
    """A row of a claim, in the order of _COLUMNS."""

    tenant_id: int
    id: int
    processor_id: int
    event_id: str
    type: str
    object_id: str
    object_account: str
    livemode: bool
    created: datetime
    received_at: datetime
    received_for: float
    body: bytes
    attempt: int
    tries: int


class Taken(msgspec.Struct):
    """An event in this worker's hands. Without an account, its processor is no more."""

    tenant_id: int
    row: Found
    account: Account | None

    @property
    def event(self) -> Event:
        assert self.account is not None
        names = (name for name in Found._fields if name != "processor_id")
        return Event(account=self.account, **{name: getattr(self.row, name) for name in names})


class Ending(NamedTuple):
    """What came of a try."""

    row: Found
    status: str  # received: it is due again after `wait`
    outcome: str = ""
    error: str = ""
    payment_id: int | None = None
    wait: float = 0.0


class Work(NamedTuple):
    """A try that went well, with what is to be written because of it."""

    ending: Ending
    effect: Effect


@entry.register("inbound")
class Inbound:
    """The drain's job for events of processors: one per worker process and event loop."""

    table = INBOUND

    def __init__(self) -> None:
        self.atlas = Atlas()
        self.worker_id = 0
        self._processors: dict[str, Processor] = {}
        self._open = AsyncExitStack()
        self._endings: Batcher[Ending, bool] = Batcher(self._write)
        # One transaction per tenant at a time: several would wait for each other at its stream.
        self._works: Family[Work, bool | Exception] = Family(
            lambda: Batcher(self._carry_out, max_rows=WORK_ROWS, in_flight=1)
        )
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)

    async def close(self) -> None:
        await self._endings.finish()
        await self._works.finish()
        await self._open.aclose()

    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return []

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Taken]:
        self.worker_id = worker_id
        return await database.guarded(lambda: self._claim(limit, room))

    async def _claim(self, limit: int, room: dict[int, int]) -> list[Taken]:
        asked = {"limit": limit, "room": TENANT_ROOM, "tenants": list(room), "rooms": list(room.values())}
        async with database.transaction() as conn:
            found = [Found._make(row) for row in await database.rows(conn, INBOUND.claim, asked)]
            if not found:
                return []
            keys = {"tenant": Bigints([row.tenant_id for row in found]), "id": Bigints([row.id for row in found])}
            await database.rows(conn, SQL["begin"], {**keys, "worker": self.worker_id, "lease": LEASE})
            await self.atlas.learn(
                {row.tenant_id for row in found}, lambda sql, params: database.rows(conn, sql, params)
            )
        return [Taken(row.tenant_id, row, self.atlas.account(row.tenant_id, row.processor_id)) for row in found]

    async def hand_back(self, items: Sequence[Taken]) -> None:
        """Nothing of theirs is written: they are due at once, for anybody."""
        rows = [item.row for item in items]
        await database.fetch(
            SQL["hand_back"],
            {
                "worker": self.worker_id,
                "tenant": Bigints([row.tenant_id for row in rows]),
                "id": Bigints([row.id for row in rows]),
                "attempt": Bigints([row.attempt for row in rows]),
            },
        )

    # -- Handling ----------------------------------------------------------------------------------------------

    async def handle(self, taken: Taken) -> bool:
        """Whether the event is done for good."""
        telemetry.TENANT.set(taken.tenant_id)
        row = taken.row
        handler = handler_of(row.type)
        if handler is None:
            return await self._end(ignored(row))
        try:
            async with asyncio.timeout(HANDLE_WITHIN):
                if why := misplaced(taken):
                    lost = taken.account is None or await is_known(
                        row.tenant_id, row.processor_id, object_of(row.body), row.object_id
                    )
                    return await self._end(Ending(row, "dead", error=why) if lost else ignored(row, why))
                effect = await self._ask(handler, taken)
            return await self._finish(row, effect)
        except Exception as error:
            await self._end(failed(row, error))
            return False

    async def _ask(self, handler: Handler, taken: Taken) -> Effect:
        event = taken.event
        return await handler(event, await self._processor(event.account))

    async def _processor(self, account: Account) -> Processor:
        found = self._processors.get(account.endpoint)
        if found is None:
            found = self._processors[account.endpoint] = KINDS[account.kind]()
            await self._open.enter_async_context(found)
        return found

    # -- Writing down ------------------------------------------------------------------------------------------

    async def _finish(self, row: Found, effect: Effect) -> bool:
        ending = Ending(row, "done", effect.outcome, payment_id=effect.payment_id)
        if effect.write is None:
            return await self._end(ending)
        moved = await self._works.of(row.tenant_id).submit(Work(ending, effect))
        if isinstance(moved, Exception):
            raise moved
        if moved and effect.after:
            await effect.after()
        return moved

    async def _carry_out(self, batch: Sequence[Work]) -> list[bool | Exception]:
        """Events of one tenant, each with its work, in one transaction. Payments first and in one order, as everybody who
        then numbers events locks them: what a batch meets later it has in hand already."""
        tenant = batch[0].ending.row.tenant_id
        touched = sorted({one for work in batch for one in work.effect.touches})

        async def once() -> list[bool | Exception]:
            async with database.transaction() as conn:
                await database.rows(conn, SQL["hold"], {"tenant": tenant, "correlations": touched})
                return [await self._one(conn, work) for work in batch]

        async with self._writing:
            return await database.retrying(once)

    async def _one(self, conn: AsyncConnection, work: Work) -> bool | Exception:
        """The row first, so that nobody else has it in hand while we write; a savepoint, so that a bad one fails alone."""
        try:
            async with conn.transaction():
                done = await database.rows(conn, SQL["finish"], self._columns([work.ending]))
                if done and work.effect.write:
                    await work.effect.write(conn)
        except TimeoutError:
            raise
        except Exception as error:
            if faults.waits(error):
                raise  # the transaction is lost, and with it the others'
            return error
        _count(work.ending, done)
        return bool(done)

    async def _end(self, ending: Ending) -> bool:
        """False when somebody else has taken over the event."""
        while True:
            try:
                return await self._endings.submit(ending)
            except Unavailable:
                await asyncio.sleep(WRITE_AGAIN)

    async def _write(self, batch: Sequence[Ending]) -> list[bool]:
        rows = await database.fetch(SQL["finish"], self._columns(batch))
        done = {(tenant, event): rest for tenant, event, *rest in rows}
        for ending in batch:
            key = ending.row.tenant_id, ending.row.id
            _count(ending, [(*key, *done[key])] if key in done else [])
        return [(ending.row.tenant_id, ending.row.id) in done for ending in batch]

    def _columns(self, batch: Sequence[Ending]) -> dict[str, Any]:
        return {
            "worker": self.worker_id,
            "tenant": Bigints([e.row.tenant_id for e in batch]),
            "id": Bigints([e.row.id for e in batch]),
            "attempt": Bigints([e.row.attempt for e in batch]),
            "status": Texts([e.status for e in batch]),
            "outcome": Texts([e.outcome[:100] for e in batch]),
            "error": Texts([e.error[:500].replace("\0", "") for e in batch]),
            "payment_id": unless_empty([e.payment_id for e in batch]),
            "wait": [e.wait for e in batch],
        }


def misplaced(taken: Taken) -> str:
    """Why an event is none of this account's, though it was signed for it; empty if it is."""
    row, account = taken.row, taken.account
    if account is None:
        return "its processor was removed"
    if row.object_account and row.object_account != account.options.get("account"):
        return f"it is of another account ({row.object_account})"
    if row.livemode != (account.mode == "live"):
        return f"it is of {'live' if row.livemode else 'test'} mode, and the tenant is in {account.mode} mode"
    return ""


def ignored(row: Found, why: str = "") -> Ending:
    """The end of an event that changes nothing of ours: retention removes it, and nobody has to look at it."""
    return Ending(row, "done", "ignored", error=why)


def failed(row: Found, error: Exception) -> Ending:
    """When it is tried again; after MAX_TRIES a dead letter, or ignored where it is about nothing that is here.

    Others' absence is waited out for a day.
    """
    away = faults.waits(error) or isinstance(error, TimeoutError) or (isinstance(error, Later) and error.patient)
    if not away and not isinstance(error, Later):
        log.warning("an event could not be handled", extra={"event": row.event_id, "type": row.type}, exc_info=error)
    why = str(error) if isinstance(error, Later) else f"{type(error).__name__}: {error}"
    waits = away and row.received_for < GIVE_UP_AFTER.total_seconds()
    if row.tries >= MAX_TRIES and isinstance(error, Missing):
        return ignored(row, why)
    if row.tries >= MAX_TRIES and not waits:
        return Ending(row, "dead", error=f"gave up after {row.tries} tries: {why}")
    return Ending(row, "received", error=why, wait=_wait(row, away=away))


def _wait(row: Found, *, away: bool) -> float:
    """Seconds to the next try. The longer others have been away, the less often they are asked: it may be for a day."""
    wait = backoff(row.tries)
    return max(wait, min(row.received_for / 8, LONGEST_PATIENCE)) if away else wait


def _count(ending: Ending, done: Sequence[Sequence[Any]]) -> None:
    if done:
        telemetry.INBOUND_HANDLED.labels("again" if ending.status == "received" else ending.status).inc()
        if ending.status == "done":
            telemetry.INBOUND_SECONDS.observe(max(0.0, done[0][2]))
