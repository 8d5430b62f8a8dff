"""Reading elsewhere: which reads go to a replica (DATABASE_READ_URL), and when they go to the primary nevertheless.

A replica shows the past. Every process compares every LOOK_EVERY how far it has come with how far the primary had written before:
so its staleness is known without comparing clocks. Beyond DATABASE_READ_MAX_LAG, and while it is away, all reads go to the
primary.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import django.db
import psycopg
from django.conf import settings
from psycopg_pool import PoolTimeout

from registry.data import database, orm
from registry.data.loop import PerLoop, Tasks, background
from registry.errors import Unavailable
from registry.telemetry import metrics

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "reading.sql")

LOOK_EVERY = 0.5  # seconds between two looks at the replica
LOOK_LIMIT = (
    0.5  # seconds for an answer of it: a read waits no longer for a replica that hangs than a look and its limit
)
REMEMBERED = 600  # positions of the primary, of as many looks: a replica that is further behind is stale by any bound
IDLE = 60.0  # seconds without a read, after which nobody looks any more

# Which reads go to the replica; all others go to the primary. What somebody just did is read by its id or in its transaction, and
# stays at the primary; so does the summary, which is compared with the processors' to the millisecond.
REPLICA: frozenset[str] = frozenset(
    {
        "payments.list",  # GET /payments
        "payments.export",  # the same as CSV and NDJSON, and files of the console
        "payments.search",  # the console's list, and its search
        "payments.figures",  # volumes, times and charts of the home page
        "ledger.entries",  # the balance page, and files of entries
        "reversals.list",  # refunds and disputes in the console
        "queues.figures",  # depths, traffic and partitions in the queue console
        "jobs.list",
    }
)
type Read[T] = Callable[[], Awaitable[T]]


class Replica:
    """What a loop knows of the replica."""

    def __init__(self) -> None:
        self.away = asyncio.Event()
        self.away.set()
        self.reads = Tasks()
        self._written: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)  # positions that it has not shown yet
        self._fresh_at = float("-inf")  # it shows everything that was written until then
        self._read_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def is_usable(self) -> bool:
        """Whether it is there and shows what was written until DATABASE_READ_MAX_LAG ago. The first call starts to look."""
        self._read_at = time.monotonic()
        if self._looking is None:
            self._looking = background(self._look_on())
        return not self.away.is_set() and self.age <= settings.DATABASE_READ_MAX_LAG

    @property
    def age(self) -> float:
        """Seconds since everything was written that it is known to show."""
        return time.monotonic() - self._fresh_at

    async def _look_on(self) -> None:
        try:
            while time.monotonic() - self._read_at < IDLE:
                await self._look()
                await asyncio.sleep(LOOK_EVERY)
        finally:
            self._looking = None
            self.away.set()

    async def _look(self) -> None:
        at = time.monotonic()
        with suppress(Exception):  # without the primary nothing new is known, and the replica grows stale
            self._written.append((at, await self._answer(self._position("written", elsewhere=False))))
        try:
            shown = await self._answer(self._position("replayed", elsewhere=True))
        except Exception as error:
            self.lost(error)
            return
        while self._written and self._written[0][1] <= shown:
            self._fresh_at = self._written.popleft()[0]
        metrics.REPLICA_LAG.set(self.age)
        if self.away.is_set():
            log.info("reading from the replica", extra={"lag_seconds": round(self.age, 1)})
        self.away.clear()

    async def _answer(self, asking: Coroutine[Any, Any, int]) -> int:
        """Its result within LOOK_LIMIT. A statement at a server that hangs takes seconds to be cancelled: nobody waits for that."""
        task = self.reads.start(asking)
        await asyncio.wait({task}, timeout=LOOK_LIMIT)
        if not task.done():
            task.cancel()
            task.add_done_callback(_quietly)
            raise TimeoutError("no answer")
        return task.result()

    @staticmethod
    async def _position(name: str, *, elsewhere: bool) -> int:
        database.ELSEWHERE.set(elsewhere)  # of this task
        [(position,)] = await database.fetch(SQL[name], repeatable=False)
        return int(position)

    def lost(self, error: BaseException) -> None:
        """It is away: reads of this moment go to the primary."""
        if not self.away.is_set():
            log.warning("the replica is away; reading from the primary", extra={"error": repr(error)[:300]})
        self.away.set()
        metrics.REPLICA_LAG.set(float("inf"))
        if pool := database.read_pools.peek():
            pool.cut()

    async def close(self) -> None:
        if self._looking:
            self._looking.cancel()
            await asyncio.wait({self._looking}, timeout=LOOK_LIMIT)
        if pool := database.read_pools.peek():
            pool.cut()  # else statements at a replica that hangs would not end
        await self.reads.cancel()


replicas: PerLoop[Replica] = PerLoop(Replica, close=Replica.close)


class ReadDecorator(Protocol):
    def __call__[**P, T](self, read: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...


def elsewhere(use: str, *, confirm: Callable[[Any], bool] = lambda _: False) -> ReadDecorator:
    """Let a coroutine function that only reads do so where REPLICA says. All that it calls reads at the same place. A result for
    which `confirm` holds is read again at the primary: such as one that found nothing."""
    assert use in REPLICA, use

    def decorate[**P, T](read: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]:
        @wraps(read)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not settings.DATABASE_READ or database.PLACED.get():
                return await read(*args, **kwargs)
            return await _read(lambda: read(*args, **kwargs), confirm)

        return call

    return decorate


async def _read[T](read: Read[T], confirm: Callable[[Any], bool]) -> T:
    replica = replicas.get()
    token = database.PLACED.set(True)  # what `read` calls stays where it is
    try:
        if replica.is_usable():
            with suppress(*FAILURES):
                found = await _at(replica, read)
                if not confirm(found):
                    return found
        return await read()
    finally:
        database.PLACED.reset(token)


class _Left(Exception):
    """The replica went away while it was read."""


# Of the replica, after which the primary is read: it may also have cancelled the statement, because of a conflict with replication.
FAILURES = (_Left, Unavailable, PoolTimeout, psycopg.Error, django.db.Error, TimeoutError)


async def _at[T](replica: Replica, read: Read[T]) -> T:
    """Read at the replica, on connections of its own; raises _Left as soon as it is away."""

    async def there() -> T:
        database.ELSEWHERE.set(True)  # of this task
        async with orm.own_connection():
            return await read()

    reading = asyncio.ensure_future(there())
    leaving = asyncio.ensure_future(_gone(replica))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise _Left
        return reading.result()
    finally:
        leaving.cancel()
        if not reading.done():
            reading.cancel()
            replica.reads.running.add(reading)  # a statement at a server that hangs takes its time to end
            reading.add_done_callback(replica.reads.running.discard)
            reading.add_done_callback(_quietly)


async def _gone(replica: Replica) -> None:
    await replica.away.wait()


def _quietly(task: asyncio.Task[Any]) -> None:
    """What a task that was given up ends with is of no interest."""
    if not task.cancelled():
        task.exception()
