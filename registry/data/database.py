"""Statements and transactions on PostgreSQL: one pool per event loop, retries, faults turned into errors, SQL files.

The ORM (`async_objects`, `async_atomic`) and the hot paths' own SQL take their connections from the same pool (pool.py).
Nothing opens at import.
"""

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import PoolTimeout

from registry import telemetry
from registry.data import faults, refusals
from registry.data.faults import Fault
from registry.data.loop import PerLoop
from registry.data.orm import own_connection as own_connection
from registry.data.orm import release as release
from registry.data.pool import AWAY_WAIT, Pool
from registry.errors import Unavailable

log = logging.getLogger(__name__)

RETRY_FIRST = 0.2  # seconds before the second try; long enough for a connection to be replaced
QUERY_GRACE = 2.0  # seconds that the server gets to enforce its own statement time-out before we give up on it
CLOSE_WAIT = 2.0  # seconds that the pool's own tasks get to end

type Row = tuple[Any, ...]
type Params = Sequence[Any] | Mapping[str, Any]


# -- The pool --------------------------------------------------------------------------------------


def connection_parameters() -> dict[str, Any]:
    wrapper = async_connections.create_connection(DEFAULT_DB_ALIAS)
    parameters = wrapper.get_connection_params()
    # None switches prepared statements off: PgBouncer's transaction mode cannot carry them.
    return {**parameters, "autocommit": True, "prepare_threshold": 2 if settings.DB_PREPARE else None}


async def _close(pool: Pool) -> None:
    await release()
    await pool.close(timeout=CLOSE_WAIT)


pools: PerLoop[Pool] = PerLoop(lambda: Pool(connection_parameters()), close=_close)


def statistics() -> dict[str, int]:
    """The pool's own counters (psycopg_pool's names): size, available, waiting, waited ms, errors, connections lost."""
    found = pools.peek()
    return found.get_stats() if found else {}


# -- Statements --------------------------------------------------------------------------------------


@asynccontextmanager
async def connection() -> AsyncIterator[AsyncConnection]:
    """A raw connection in autocommit. Raises Unavailable (503) when there is none to be had in time."""
    try:
        async with pools.get().connection() as conn:
            try:
                yield conn
            except psycopg.errors.FeatureNotSupported:  # such as a plan of before a migration, which it would keep
                await conn.close()
                raise
    except PoolTimeout as error:
        telemetry.DB_ERRORS.labels("pool_timeout").inc()
        if why := pools.get().shut:
            raise Unavailable(why) from error
        waited = AWAY_WAIT if pools.get().refused else settings.DB_POOL_TIMEOUT
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
