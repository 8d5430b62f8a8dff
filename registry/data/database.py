"""Statements and transactions on PostgreSQL: one pool per event loop, retries, errors as Unavailable (503), SQL files.

The ORM (`async_objects`, `async_atomic`) and named statements share the pool (pool.py). Nothing opens at import.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import PoolTimeout

from registry.data import faults, refusals
from registry.data.addresses import OWN
from registry.data.faults import Fault
from registry.data.loop import PerLoop
from registry.data.orm import new_connection as new_connection
from registry.data.orm import own_connection as own_connection
from registry.data.orm import release as release
from registry.data.pool import AWAY_WAIT, Pool
from registry.data.statements import statements as statements
from registry.errors import Unavailable
from registry.telemetry import metrics, slow

log = logging.getLogger(__name__)

RETRY_FIRST = 0.2  # seconds before the second attempt, enough to replace a connection
QUERY_GRACE = 2.0  # seconds for the server to enforce its own statement time-out
CLOSE_WAIT = 2.0  # seconds for the pool's own tasks to end

type Row = tuple[Any, ...]
type Params = Sequence[Any] | Mapping[str, Any]


# -- The pool --------------------------------------------------------------------------------------


def connection_parameters() -> dict[str, Any]:
    wrapper = async_connections.create_connection(DEFAULT_DB_ALIAS)
    parameters = wrapper.get_connection_params()
    # None switches prepared statements off: a pooler in transaction mode may not know of them.
    return {**parameters, "autocommit": True, "prepare_threshold": 2 if settings.DB_PREPARE else None}


def session_parameters() -> dict[str, Any] | None:
    """Parameters of a connection that keeps its session, as LISTEN needs it: past a pooler in transaction mode. None where no
    address but the pooler's is known."""
    return past_pooler(connection_parameters())


def past_pooler(parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The same database past a pooler in transaction mode; as they are where there is none."""
    if not settings.DB_TRANSACTION_POOLING:
        return parameters
    if not settings.DATABASE_DIRECT:
        return None
    inherited = {name: value for name, value in parameters.items() if name not in OWN or name == "dbname"}
    return {**inherited, "options": settings.DB_SESSION, **settings.DATABASE_DIRECT}


async def _close(pool: Pool) -> None:
    await release()
    await pool.close(timeout=CLOSE_WAIT)


def read_parameters() -> dict[str, Any]:
    """Parameters of the replica of DATABASE_READ_URL; what the URL does not say is as for the primary."""
    inherited = {
        k: v for k, v in connection_parameters().items() if k not in OWN or k in ("dbname", "user", "password")
    }
    return {**inherited, "target_session_attrs": "any", **settings.DATABASE_READ}


pools: PerLoop[Pool] = PerLoop(lambda: Pool(connection_parameters()), close=_close)
read_pools: PerLoop[Pool] = PerLoop(lambda: Pool(read_parameters()), close=_close)  # used by reading.py alone

PLACED: ContextVar[bool] = ContextVar("placed", default=False)  # where the running read takes place is decided
ELSEWHERE: ContextVar[bool] = ContextVar("elsewhere", default=False)  # it takes place at the replica


def pool() -> Pool:
    """The pool of the running task."""
    return read_pools.get() if ELSEWHERE.get() else pools.get()


def statistics() -> dict[str, int]:
    """The counters of psycopg_pool, by its names."""
    current = pools.peek()
    return current.get_stats() if current else {}


# -- Statements --------------------------------------------------------------------------------------


@asynccontextmanager
async def connection() -> AsyncIterator[AsyncConnection]:
    """A raw connection in autocommit. Raises Unavailable (503) when the pool has none in time."""
    try:
        async with pool().connection() as conn:
            try:
                yield conn
            except psycopg.errors.FeatureNotSupported:  # such as a cached plan from before a migration
                await conn.close()
                raise
    except PoolTimeout as error:
        metrics.DB_ERRORS.labels("pool_timeout").inc()
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
    """Run one statement with parameters and results in binary, and return its rows (none for a statement without results).

    Rare statements pass `prepare=False`: they are planned each time, by the current sizes of the tables.
    """
    started, found = time.monotonic(), None
    try:
        async with asyncio.timeout(settings.DB_QUERY_TIMEOUT + QUERY_GRACE):
            found = await _rows(conn, sql, params, (settings.DB_PREPARE or None) if prepare else False)
            return found
    finally:
        seconds = time.monotonic() - started
        if seconds >= settings.LOG_SLOW_STATEMENT_MS / 1000 > 0:
            slow.statement(refusals.name_of(sql), seconds, rows=None if found is None else len(found))


async def _rows(conn: AsyncConnection, sql: str, params: Params, prepare: bool | None) -> list[Row]:
    cursor = AsyncCursor(conn)
    try:
        await cursor.execute(sql, params, binary=True, prepare=prepare)
    except psycopg.Error as error:
        if fault := faults.of(error):
            refusals.record(sql, fault, error)
        raise
    refusals.clear(sql)
    return await cursor.fetchall() if cursor.description else []


async def fetch(sql: str, params: Params = (), *, repeatable: bool = True, prepare: bool = True) -> list[Row]:
    """Run one statement in its own transaction, with retries. A statement that is not `repeatable` is retried only when the
    server reports a rollback, never after a lost connection."""

    async def once() -> list[Row]:
        async with connection() as conn:
            return await rows(conn, sql, params, prepare=prepare)

    return await retrying(once, repeatable=repeatable)


# -- Failure -----------------------------------------------------------------------------------------


def may_be_repeated(error: BaseException) -> bool:
    """Whether a retry of an idempotent statement may succeed."""
    return faults.of(error) in (Fault.LOST, Fault.ROLLED_BACK)


def was_rolled_back(error: BaseException) -> bool:
    """Whether the statement was rolled back for certain, so that any statement may be retried."""
    return faults.of(error) is Fault.ROLLED_BACK


async def faults_as_unavailable[T](work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` once. Faults of the database become Unavailable (503), except errors about a row's own data."""
    try:
        return await work()
    except TimeoutError as error:
        raise _unavailable(error, Fault.SLOW) from error
    except Exception as error:
        if refusal := unavailable(error):
            raise refusal from error
        raise


def unavailable(error: Exception) -> Unavailable | None:
    """Log and publish a fault of the database, and return Unavailable (503) for it; None for other errors and for errors about
    a row's own data."""
    fault = faults.of(error)
    return None if fault is None or fault is Fault.ROW else _unavailable(error, fault)


def _unavailable(error: Exception, fault: Fault) -> Unavailable:
    if not ELSEWHERE.get():  # of the replica: reading.py says it, and the primary answers
        metrics.DB_ERRORS.labels(type(error).__name__).inc()
        faults.warn(log, fault.value, error=error)
        faults.publish(fault)
    return Unavailable(fault.value)


async def retrying[T](work: Callable[[], Awaitable[T]], *, repeatable: bool = True) -> T:
    """Run `work` up to DB_RETRY_ATTEMPTS times, then raise Unavailable (503). Work that is not `repeatable` is retried only when
    the server reports a rollback."""
    return await faults_as_unavailable(lambda: _retried(work, may_be_repeated if repeatable else was_rolled_back))


async def _retried[T](work: Callable[[], Awaitable[T]], again: Callable[[BaseException], bool]) -> T:
    # No retry library: its set-up per call costs as much as a short statement.
    wait, tries = RETRY_FIRST, 1 if ELSEWHERE.get() else settings.DB_RETRY_ATTEMPTS
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
    """Run independent reads concurrently, each on its own connection, at most CONCURRENT_OPERATIONS at a time.

    Not within a transaction: the caller's connection is released first, otherwise requests that hold one each could deadlock.
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
        raise first from first.__cause__  # callers expect the error of a step, and faults.py its cause
    return [task.result() for task in tasks]


# -- SQL files ---------------------------------------------------------------------------------------


def filled(statements: dict[str, str], name: str, **parts: str) -> str:
    """A statement of a file with these parts formatted into it. Logs know it by its name, as they do the file's own."""
    sql = statements[name].format(**parts)
    refusals.set_name(sql, refusals.name_of(statements[name]))
    return sql
