"""The way to PostgreSQL: one pool per event loop with every limit of requirement D2, transactions, retries, SQL files.

The ORM (`async_objects`, `async_atomic`) and the hot paths' own SQL take their connections from the same pool. Nothing
opens at import; who runs a loop calls `close()` before it ends.
"""

import asyncio
import logging
import os
import random
import re
import select
import socket
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from registry import telemetry
from registry.data import arrays, faults, refusals
from registry.data.faults import Fault
from registry.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_FIRST = 0.2  # seconds before the second try; long enough for a connection to be replaced
AWAY_WAIT = 1.0  # seconds that a caller waits while the server takes no connections: DB_POOL_TIMEOUT is for a busy pool
QUERY_GRACE = 2.0  # seconds that the server gets to enforce its own statement time-out before we give up on it

type Row = tuple[Any, ...]
type Params = Sequence[Any] | Mapping[str, Any]


# -- The pool --------------------------------------------------------------------------------------


class Pool(AsyncConnectionPool):
    """psycopg's pool with SQLAlchemy's overflow: up to `overflow` more in a rush, closed when given back."""

    def __init__(self) -> None:
        self.keep = settings.DB_POOL_MAX
        self.refused = False  # the server gave no new connection when last asked
        self.given_back_at = 0.0  # time.monotonic() of the last one that was alive
        self.shut = ""  # why nobody gets a connection now (reach.py); empty while they do
        self._lent: set[AsyncConnection] = set()
        self._giving: set[asyncio.Task[None]] = set()  # connections on their way back
        super().__init__(
            kwargs=connection_parameters(),
            min_size=settings.DB_POOL_MIN,
            max_size=settings.DB_POOL_MAX + settings.DB_POOL_OVERFLOW,
            timeout=settings.DB_POOL_TIMEOUT,
            max_lifetime=settings.DB_POOL_RECYCLE,
            max_idle=600,
            reconnect_timeout=5,
            configure=_configure,
            open=False,
            name="registry",
        )

    async def getconn(self, timeout: float | None = None) -> AsyncConnection:
        if self.shut:
            raise PoolTimeout(self.shut)
        if self._closed:
            await self.open()
        # Not the pool's own `check`: it waits longer and longer after each dead connection, and after a restart of
        # the server all that were idle are dead. Here the next is taken at once; each can be found dead only once.
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            conn = await self._next(deadline)
            try:
                await _still_open(conn)
                self._lent.add(conn)
                return conn
            except psycopg.OperationalError:
                await super().putconn(conn)

    async def _next(self, deadline: float) -> AsyncConnection:
        # In slices, to notice between them that there is no server to wait for. One that refuses us more connections may
        # be full of neighbours' while ours work: then one of them is waited for.
        while True:
            left = deadline - time.monotonic()
            try:
                return await super().getconn(min(left, AWAY_WAIT))
            except PoolTimeout:
                if left <= AWAY_WAIT or (self.refused and time.monotonic() - self.given_back_at > AWAY_WAIT):
                    raise

    async def _connect(self, timeout: float | None = None) -> AsyncConnection:
        self.refused = True
        conn = await super()._connect(timeout)
        self.refused = False
        return conn

    async def idle(self) -> AsyncConnection | None:
        if self._closed:  # not open yet, which makes its lock
            return None
        async with self._lock:
            if not self._pool:
                return None
            conn = self._pool.popleft()
        conn._pool = self
        return conn

    def cut(self) -> None:
        """End the connections in use, and with them the statements that wait for a server which answers nothing: to cancel
        one takes psycopg 10 s there."""
        for conn in self._lent:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    async def reconnect_failed(self) -> None:
        """Go on trying while somebody waits: by itself the pool tries again only for a new caller, and there may be none."""
        async with self._lock:
            if self._waiting:
                self._maybe_grow_pool()

    async def putconn(self, conn: AsyncConnection) -> None:
        """To the end, whoever is cancelled meanwhile: half given back, a connection is nobody's and counted all the same."""
        self._lent.discard(conn)
        giving = asyncio.Task(self._take_back(conn), loop=asyncio.get_running_loop(), eager_start=True)
        if not giving.done():  # it mostly is: nothing had to be waited for
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)
        await asyncio.shield(giving)

    async def _take_back(self, conn: AsyncConnection) -> None:
        if conn.info.transaction_status != TransactionStatus.UNKNOWN:
            self.given_back_at = time.monotonic()
        if not self._closed and self._nconns > self.keep and not self._waiting:
            async with self._lock:
                self._nconns -= 1
            await self._close_connection(conn)
            return
        await super().putconn(conn)


def connection_parameters() -> dict[str, Any]:
    wrapper = async_connections.create_connection(DEFAULT_DB_ALIAS)
    parameters = wrapper.get_connection_params()
    # None switches prepared statements off: PgBouncer's transaction mode cannot carry them.
    return {**parameters, "autocommit": True, "prepare_threshold": 2 if settings.DB_PREPARE else None}


async def _configure(connection: AsyncConnection) -> None:
    # All integers travel as bigint, so that a statement has one prepared form and not one per magnitude. Lists of them, which
    # go as text, as well: psycopg would give all lists of a statement the type that the numbers of the first one need.
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    arrays.register(connection)


async def _still_open(connection: AsyncConnection) -> None:
    """Notice a connection that the server has closed, at the price of a poll and not of a round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        # An idle connection has nothing to read but its end, of which the server's farewell may come first. What is
        # harmless (a setting changed at the server) costs a new connection.
        await connection.close()  # else the pool would offer it again
        raise psycopg.OperationalError("the server closed the connection")


_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = weakref.WeakKeyDictionary()


def pool() -> Pool:
    """The running loop's pool; it opens with the first connection asked of it."""
    loop = asyncio.get_running_loop()
    found = _pools.get(loop)
    if found is None:
        found = _pools[loop] = Pool()
    return found


async def idle() -> AsyncConnection | None:
    """A connection of the running loop's pool that nobody uses, without waiting or opening one. `give_back` it."""
    found = _pools.get(asyncio.get_running_loop())
    return await found.idle() if found else None


def shut(why: str) -> None:
    """Let nobody wait for a server that is away; "" lets them in again."""
    if found := _pools.get(asyncio.get_running_loop()):
        found.shut = why


def cut() -> None:
    """End all connections in use: of a server that answers nothing."""
    if found := _pools.get(asyncio.get_running_loop()):
        found.cut()


async def give_back(conn: AsyncConnection) -> None:
    await pool().putconn(conn)


async def close() -> None:
    """Close the running loop's pool. Its connections are gone afterwards; the next use opens a new one."""
    await release()
    if found := _pools.pop(asyncio.get_running_loop(), None):
        await found.close(timeout=2)


def statistics() -> dict[str, int]:
    """The pool's own counters (psycopg_pool's names): size, available, waiting, waited ms, errors, connections lost."""
    found = _pools.get(asyncio.get_running_loop())
    return found.get_stats() if found else {}


async def release() -> None:
    """Give back what the ORM holds in this context: between the messages of a socket or a stream, at a request's end."""
    wrapper = getattr(async_connections._connections, DEFAULT_DB_ALIAS, None)  # not made here if there is none
    if wrapper is not None and wrapper.connection is not None:
        await wrapper.close()


@asynccontextmanager
async def own_connection() -> AsyncIterator[None]:
    """ORM work on a connection that no other task shares, given back at the end whoever is cancelled.

    The package's async_new_connection closes in tasks of its own: one that is cancelled before it begins closes nothing.
    """
    mine, before = async_connections.create_connection(DEFAULT_DB_ALIAS), async_connections[DEFAULT_DB_ALIAS]
    async_connections[DEFAULT_DB_ALIAS] = mine
    try:
        yield
    finally:
        async_connections[DEFAULT_DB_ALIAS] = before
        await mine.close()


# -- Statements --------------------------------------------------------------------------------------


@asynccontextmanager
async def connection() -> AsyncIterator[AsyncConnection]:
    """A raw connection in autocommit. Raises Unavailable (503) when there is none to be had in time."""
    try:
        async with pool().connection() as conn:
            try:
                yield conn
            except psycopg.errors.FeatureNotSupported:  # such as a plan of before a migration, which it would keep
                await conn.close()
                raise
    except PoolTimeout as error:
        telemetry.DB_ERRORS.labels("pool_timeout").inc()
        if why := pool().shut:
            raise Unavailable(why) from error
        waited = AWAY_WAIT if pool().refused else settings.DB_POOL_TIMEOUT
        raise Unavailable(f"no database connection within {waited:g} s") from error


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncConnection]:
    """A raw connection in a transaction: commits at the end, rolls back on any exception, cancellation included."""
    async with connection() as conn, conn.transaction():
        yield conn


async def rows(conn: AsyncConnection, sql: str, params: Params = (), *, prepare: bool = True) -> list[Row]:
    """Run one statement, parameters and results in binary; all its rows, or none for a statement that returns none.

    What runs seldom is not worth to `prepare`: it is planned each time, for the tables as they are then.
    """
    async with asyncio.timeout(settings.DB_QUERY_TIMEOUT + QUERY_GRACE):
        cursor = AsyncCursor(conn)
        try:
            await cursor.execute(sql, params, binary=True, prepare=(settings.DB_PREPARE or None) if prepare else False)
        except psycopg.Error as error:
            if fault := faults.of(error):
                refusals.refused(sql, fault, error)
            raise
        refusals.taken(sql)
        return await cursor.fetchall() if cursor.description else []


async def fetch(sql: str, params: Params = (), *, repeatable: bool = True, prepare: bool = True) -> list[Row]:
    """One statement in its own transaction. Tried again after a lost connection unless not `repeatable`: then only where
    the server itself says that it was rolled back."""

    async def once() -> list[Row]:
        async with connection() as conn:
            return await rows(conn, sql, params, prepare=prepare)

    return await retrying(once, repeatable=repeatable)


# -- Failure -----------------------------------------------------------------------------------------


def may_be_repeated(error: BaseException) -> bool:
    """Whether the same statement may go through a moment later, where it is safe to repeat."""
    return faults.of(error) in (Fault.LOST, Fault.ROLLED_BACK)


def was_rolled_back(error: BaseException) -> bool:
    """Whether the statement certainly did nothing, and may go through a moment later."""
    return faults.of(error) is Fault.ROLLED_BACK


async def guarded[T](work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` once. Any fault of the database but one about a row's own data becomes Unavailable (503)."""
    try:
        return await work()
    except TimeoutError as error:
        raise _unavailable(error, Fault.SLOW) from error
    except Exception as error:
        if refusal := unavailable(error):
            raise refusal from error
        raise


def unavailable(error: Exception) -> Unavailable | None:
    """Unavailable (503) in place of a fault of the database, which is made known; None for what is no such fault, or about
    a row's own data."""
    fault = faults.of(error)
    return None if fault is None or fault is Fault.ROW else _unavailable(error, fault)


def _unavailable(error: Exception, fault: Fault) -> Unavailable:
    telemetry.DB_ERRORS.labels(type(error).__name__).inc()
    faults.say(log, fault.value, error=error)
    faults.tell(fault)
    return Unavailable(fault.value)


async def retrying[T](work: Callable[[], Awaitable[T]], *, repeatable: bool = True) -> T:
    """Run `work` up to DB_RETRY_ATTEMPTS times. Raises Unavailable (503) after that. What is not `repeatable` is run again
    only where the server itself says that it was rolled back."""
    return await guarded(lambda: _retried(work, may_be_repeated if repeatable else was_rolled_back))


async def _retried[T](work: Callable[[], Awaitable[T]], again: Callable[[BaseException], bool]) -> T:
    # Ten lines instead of a library: a retry library's set-up per call costs as much as a short statement.
    wait, tries = RETRY_FIRST, settings.DB_RETRY_ATTEMPTS
    while True:
        try:
            return await work()
        except Exception as error:
            tries -= 1
            if not tries or not again(error):
                raise
        await asyncio.sleep(min(wait, settings.DB_RETRY_MAX) * random.uniform(0.5, 1.0))
        wait *= settings.DB_RETRY_BACKOFF


async def concurrently[T](*work: Callable[[], Awaitable[T]]) -> list[T]:
    """Run independent reads side by side, each on its own connection, at most CONCURRENT_OPERATIONS at a time.

    Not within a transaction: the caller's own connection is given back first, or requests that hold one each could wait
    for each other.
    """
    await release()
    gate = asyncio.Semaphore(settings.CONCURRENT_OPERATIONS)

    async def one(step: Callable[[], Awaitable[T]]) -> T:
        async with gate, own_connection():
            return await step()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(step)) for step in work]
    except ExceptionGroup as several:
        first = several.exceptions[0]
        raise first from first.__cause__  # callers know the error of a step, not that there were steps; faults.py its cause
    return [task.result() for task in tasks]


# -- SQL files ---------------------------------------------------------------------------------------

_NAMED = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements(path: Path) -> dict[str, str]:
    """The statements of a .sql file by their `-- name:` lines."""
    parts = _NAMED.split(path.read_text())
    found = {name: sql.strip().rstrip(";") for name, sql in zip(parts[1::2], parts[2::2], strict=True)}
    for name, sql in found.items():
        refusals.name(sql, f"{path.stem}.{name}")
    return found
