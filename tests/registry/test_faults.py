"""Classification of PostgreSQL errors, most of them caused on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from django.db.utils import DatabaseErrorWrapper
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from queueing.spill import is_bad
from registry.data import database, faults
from registry.data.batching import Batcher
from registry.data.faults import Fault
from registry.errors import Unavailable

type Provoke = Callable[[], Awaitable[object]]


@asynccontextmanager
async def session(**parameters: object) -> AsyncIterator[AsyncConnection]:
    """A connection of the test's own, which an error may end."""
    asked = {**database.connection_parameters(), "cursor_factory": psycopg.AsyncCursor, **parameters}
    conn = await AsyncConnection.connect(**asked)
    try:
        yield conn
    finally:
        await conn.close()


def sql(*statements: str) -> Provoke:
    """Statements of one session, of which the last meets the error."""

    async def provoke() -> None:
        async with session() as conn:
            for statement in statements:
                await conn.execute(statement)

    return provoke


def said(state: str) -> Provoke:
    """The server says so because it is told to: what it would take (a full disk, a broken one) no test has."""
    return sql(f"DO $$ BEGIN RAISE EXCEPTION 'told to' USING ERRCODE = '{state}'; END $$")


async def serialization() -> None:
    name = f"t{uuid4().hex}"
    async with session() as conn, session() as other:
        await other.execute(f"CREATE TABLE {name} AS SELECT 1 AS x")
        try:
            await conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await conn.execute(f"SELECT x FROM {name}")
            await other.execute(f"UPDATE {name} SET x = 2")
            await conn.execute(f"UPDATE {name} SET x = 3")
        finally:
            await conn.execute("ROLLBACK")
            await other.execute(f"DROP TABLE {name}")


async def deadlock() -> None:
    async with session() as conn, session() as other:
        for one, lock in ((conn, 1), (other, 2)):
            await one.execute("SET deadlock_timeout = '20s'")
            await one.execute("BEGIN")
            await one.execute("SELECT pg_advisory_xact_lock(7001, %s)", (lock,))
        await conn.execute("SET LOCAL deadlock_timeout = '10ms'")  # this one looks, and is ended
        waiting = asyncio.create_task(other.execute("SELECT pg_advisory_xact_lock(7001, 1)"))
        try:
            await conn.execute("SELECT pg_advisory_xact_lock(7001, 2)")
        finally:
            await conn.execute("ROLLBACK")
            await waiting


async def locked() -> None:
    async with session() as holder, session() as conn:
        await holder.execute("BEGIN")
        await holder.execute("LOCK TABLE registry_tenant IN ACCESS EXCLUSIVE MODE")
        await conn.execute("BEGIN")
        await conn.execute("LOCK TABLE registry_tenant IN ACCESS EXCLUSIVE MODE NOWAIT")


async def in_use() -> None:
    async with session() as conn:
        await conn.execute(f'DROP DATABASE "{conn.info.dbname}"')


async def idle_in_transaction() -> None:
    async with session() as conn:
        await conn.execute("SET idle_in_transaction_session_timeout = '10ms'")
        await conn.execute("BEGIN")
        await asyncio.sleep(0.1)
        await conn.execute("SELECT 1")


async def in_a_failed_transaction() -> None:
    async with session() as conn:
        await conn.execute("BEGIN")
        with suppress(psycopg.Error):
            await conn.execute("SELECT 1 / 0")
        await conn.execute("SELECT 1")


async def killed_by_another() -> None:
    async with session() as conn, session() as other:
        await other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
        await conn.execute("SELECT 1")


async def on_a_closed_connection() -> None:
    async with session() as conn:
        await conn.close()
        await conn.execute("SELECT 1")


async def connect(**parameters: object) -> None:
    async with session(**parameters):
        pass


async def as_one_too_many() -> None:
    """A superuser has no limit; another role has."""
    role = f"r{uuid4().hex}"
    async with session() as conn:
        await conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
        try:
            await connect(user=role, password="x")
        finally:
            await conn.execute(f"DROP ROLE {role}")


async def from_a_full_pool() -> None:
    pool = AsyncConnectionPool(kwargs=database.connection_parameters(), min_size=1, open=False)
    async with pool, pool.connection():
        await pool.getconn(timeout=0.1)


COLUMNS = ", ".join(f"c{n} int" for n in range(1601))
PROVOKED: list[tuple[str | None, Provoke, Fault]] = [
    ("08006", said("08006"), Fault.LOST),
    ("08P01", said("08P01"), Fault.LOST),
    ("22012", sql("SELECT 1 / 0"), Fault.ROW),
    ("22P02", sql("SELECT 'x'::int"), Fault.ROW),
    ("23502", sql("CREATE TEMP TABLE t (x int NOT NULL)", "INSERT INTO t VALUES (NULL)"), Fault.ROW),
    ("23505", sql("CREATE TEMP TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1), (1)"), Fault.ROW),
    ("25006", sql("SET default_transaction_read_only = on", "CREATE TABLE never ()"), Fault.READ_ONLY),
    ("25P02", in_a_failed_transaction, Fault.BROKEN),
    ("25P03", idle_in_transaction, Fault.LOST),
    ("0A000", sql("SELECT * FROM nowhere.public.t"), Fault.BROKEN),
    ("28000", said("28000"), Fault.MISSING),
    ("3D000", sql("ALTER DATABASE nowhere SET work_mem = '1MB'"), Fault.MISSING),
    ("3F000", sql("CREATE TABLE nowhere.t ()"), Fault.MISSING),
    ("40001", serialization, Fault.ROLLED_BACK),
    ("40P01", deadlock, Fault.ROLLED_BACK),
    ("40003", said("40003"), Fault.LOST),
    ("42P01", sql("SELECT * FROM nowhere"), Fault.MISSING),
    ("42703", sql("SELECT nothing FROM registry_tenant"), Fault.MISSING),
    ("42883", sql("SELECT nothing()"), Fault.MISSING),
    ("42501", sql("SET ROLE pg_monitor", "SELECT * FROM pg_authid"), Fault.MISSING),
    ("42601", sql("SELEKT"), Fault.BROKEN),
    ("53100", said("53100"), Fault.FULL),
    ("53200", said("53200"), Fault.BUSY),
    ("53300", said("53300"), Fault.BUSY),
    ("54000", sql("CREATE TEMP TABLE t (x text PRIMARY KEY)",
                  "INSERT INTO t SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n"), Fault.ROW),
    ("54001", sql("SELECT repeat('[', 1000000)::json"), Fault.ROW),
    ("54011", sql(f"CREATE TEMP TABLE t ({COLUMNS})"), Fault.BROKEN),
    ("54023", sql(f"SELECT nothing({', '.join(['1'] * 101)})"), Fault.BROKEN),
    ("55P03", locked, Fault.SLOW),
    ("55006", in_use, Fault.SLOW),
    ("55000", sql("CREATE TEMP SEQUENCE s", "SELECT currval('s')"), Fault.BROKEN),
    ("57014", sql("SET statement_timeout = '10ms'", "SELECT pg_sleep(5)"), Fault.SLOW),
    ("57P01", sql("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)"), Fault.LOST),
    ("57P01", killed_by_another, Fault.LOST),
    ("57P02", said("57P02"), Fault.LOST),
    ("57P03", said("57P03"), Fault.LOST),
    ("58030", said("58030"), Fault.BROKEN),
    ("58P01", sql("CREATE TEMP TABLE t ()", "COPY t FROM '/nowhere'"), Fault.BROKEN),
    ("P0001", sql("DO $$ BEGIN RAISE EXCEPTION 'x'; END $$"), Fault.BROKEN),
    ("XX000", said("XX000"), Fault.BROKEN),
    ("XX001", said("XX001"), Fault.BROKEN),
    ("XX002", said("XX002"), Fault.BROKEN),
    (None, on_a_closed_connection, Fault.LOST),
    (None, lambda: connect(host="127.0.0.1", port="1"), Fault.LOST),
    (None, lambda: connect(dbname="nowhere"), Fault.LOST),
    (None, lambda: connect(password="wrong"), Fault.LOST),
    (None, as_one_too_many, Fault.LOST),
    (None, from_a_full_pool, Fault.BUSY),
    (None, lambda: database.fetch("SELECT %s", ("no \0 in a text",)), Fault.ROW),
]  # fmt: skip


async def error_of(provoke: Provoke) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as met:
        await provoke()
    return met.value


@pytest.mark.parametrize(
    ("state", "provoke", "fault"), PROVOKED, ids=[f"{n}-{state}" for n, (state, *_) in enumerate(PROVOKED)]
)
async def test_the_class_of_an_error_says_whether_to_repeat_to_wait_or_to_refuse_the_row(
    state: str | None, provoke: Provoke, fault: Fault
):
    error = await error_of(provoke)
    wrapped = as_the_orm_raises(error)
    row, repeated = fault is Fault.ROW, fault in (Fault.ROLLED_BACK, Fault.LOST)

    assert (faults.sqlstate(error), faults.of(error), faults.of(wrapped)) == (state, fault, fault)
    assert (faults.is_temporary(error), is_bad(error), database.may_be_repeated(error)) == (not row, row, repeated)
    assert isinstance(await guarded(error), type(error) if row else Unavailable)
    assert await writes_of_a_batch_of_three(error) == (4 if row else 1)


def as_the_orm_raises(error: psycopg.Error) -> BaseException:
    """By Django's own hand."""
    try:
        with DatabaseErrorWrapper(connection):
            raise error
    except Exception as wrapped:
        return wrapped


async def guarded(error: Exception) -> BaseException:
    async def work() -> None:
        raise error

    with pytest.raises(Exception) as refusal:
        await database.faults_as_unavailable(work)
    return refusal.value


async def writes_of_a_batch_of_three(error: Exception) -> int:
    """A batch that fails, and then its rows one by one, where that makes sense."""
    writes = 0

    async def write(_: object) -> list[None]:
        nonlocal writes
        writes += 1
        raise error

    batcher: Batcher[int, None] = Batcher(write)
    await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)
    return writes


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError(), TypeError()], ids=repr)
def test_a_programming_error_is_not_an_outage_and_quarantines_no_record(error: Exception):
    assert faults.of(error) is None
    assert not faults.is_temporary(error)
    assert not is_bad(error)


def test_a_pool_without_a_free_connection_is_busy_and_not_unavailable():
    assert faults.of(PoolTimeout()) is Fault.BUSY
