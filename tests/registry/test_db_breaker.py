"""The database breaker: an unavailable server is detected within a second on existing connections, a lock is not one, and it recovers."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings

from registry.data import database, db_breaker, faults
from registry.errors import Unavailable
from registry.servers import embedded, postgres
from tests.conftest import eventually
from tests.servers import frozen, own_server, read_only


@pytest.fixture(scope="module", autouse=True)
async def own() -> AsyncIterator[embedded.Postgres]:
    """The pool's server in this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            postgres.POSTGRES_SETTINGS, "max_connections", 45
        )  # few enough to take them all, more than a pool has
        async with own_server() as server:
            yield server


@pytest.fixture
async def server(own: embedded.Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[embedded.Postgres]:
    """It has a table to write to, and can be stopped and started."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    await database.fetch("CREATE TABLE kept (id bigint PRIMARY KEY)")
    yield own
    await db_breaker.breakers.close()
    await database.fetch("DROP TABLE kept")


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is asked four times as often as in the product."""
    monkeypatch.setattr(db_breaker, "PROBE_EVERY", 0.05)


def keep(number: int) -> Any:
    return lambda: database.fetch("INSERT INTO kept VALUES (%s)", (number,))


async def never() -> None:
    await asyncio.Event().wait()


async def test_only_callers_without_an_alternative_wait_for_a_slow_statement():
    slow = lambda: database.fetch("SELECT 1 FROM pg_sleep(0.9)")  # noqa: E731
    started = time.monotonic()

    with pytest.raises(Unavailable, match="did not answer in time"):
        await db_breaker.attempt(slow)
    hurried = time.monotonic() - started

    assert await db_breaker.attempt(slow, patient=True) == [(1,)]
    assert db_breaker.PATIENCE <= hurried < 1
    assert not db_breaker.current().away


async def test_nobody_is_told_of_the_error_that_abandoned_work_ends_with(caplog: pytest.LogCaptureFixture):
    async def fails_when_cancelled() -> None:
        try:
            await never()
        except asyncio.CancelledError as error:  # a transaction is rolled back on a connection that is lost
            raise Unavailable from error

    with pytest.raises(Unavailable, match="did not answer in time"):
        await db_breaker.attempt(fails_when_cancelled)
    await asyncio.sleep(0)
    gc.collect()

    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_nobody_is_told_of_work_that_fails_while_its_caller_is_cancelled(caplog: pytest.LogCaptureFixture):
    async def fails() -> None:
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_soon(waiting[0].cancel)  # a limit of the caller that ends at the same moment
        raise Unavailable

    waiting = [asyncio.create_task(db_breaker.attempt(fails))]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    waiting.clear()
    await asyncio.sleep(0)
    gc.collect()

    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_a_busy_loop_does_not_report_the_server_as_unavailable():
    """For longer than the server may take for its answer."""
    await database.fetch("SELECT 1")
    asyncio.get_running_loop().call_later(0.01, time.sleep, 0.6)

    assert await db_breaker.current().is_available()
    assert not db_breaker.current().away


async def test_an_unavailable_server_is_known_to_all_callers_at_once_and_detected_when_it_returns(
    server: embedded.Postgres,
):
    server.ask_to_stop()
    await asyncio.to_thread(server.see_gone)
    started = time.monotonic()

    waits = await asyncio.gather(*(db_breaker.attempt(never) for _ in range(20)), return_exceptions=True)
    took = time.monotonic() - started
    with pytest.raises(Unavailable, match="cannot be reached"):
        await db_breaker.attempt(keep(1))
    await asyncio.to_thread(server.start)
    await eventually(lambda: not db_breaker.current().away)

    assert all(isinstance(outcome, Unavailable) for outcome in waits)
    assert took < 1
    assert await db_breaker.attempt(keep(2)) == []


async def test_a_frozen_server_is_unavailable_within_a_second_and_available_when_it_continues(
    server: embedded.Postgres,
):
    """Its connections are there, the kernel takes more of them, and nobody answers."""
    with frozen(server):
        started = time.monotonic()
        with pytest.raises(Unavailable, match="does not respond"):
            await db_breaker.attempt(keep(1))
        took = time.monotonic() - started
        await asyncio.sleep(3 * db_breaker.PROBE_EVERY)
        still = db_breaker.current().away
        started = time.monotonic()
        with pytest.raises(Unavailable, match="does not respond"):
            await database.fetch("SELECT 1")  # of somebody who has nowhere else to turn
        read = time.monotonic() - started
    await eventually(lambda: not db_breaker.current().away)

    assert (took < 1, still, read < 0.5) == (True, True, True)
    assert await db_breaker.attempt(keep(2)) == []


async def test_a_running_statement_at_a_frozen_server_ends_once_that_is_known(server: embedded.Postgres):
    """Nothing else would end it: the server's own time-out is frozen too, and it answers no cancellation."""
    under_way = asyncio.create_task(database.fetch("SELECT pg_sleep(60)", repeatable=False))
    await eventually(lambda: sleeping(1))
    with frozen(server):
        started = time.monotonic()
        with pytest.raises(Unavailable, match="does not respond"):
            await db_breaker.attempt(keep(1))
        with pytest.raises(Unavailable, match="cannot be reached"):
            await under_way
        took = time.monotonic() - started
    await eventually(lambda: not db_breaker.current().away)

    assert took < 2.5
    assert await db_breaker.attempt(keep(2)) == []


async def sleeping(many: int) -> bool:
    """Whether so many sessions run a statement that sleeps."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"
    return await database.fetch(asked) == [(many,)]


async def test_a_probe_whose_session_was_terminated_does_not_report_the_server_as_unavailable(
    monkeypatch: pytest.MonkeyPatch,
):
    """An administrator ends all sessions; those that begin afterwards work."""
    real, asked = db_breaker._is_read_only, 0

    async def ended_at_first(conn: psycopg.AsyncConnection) -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return await real(conn)

    await database.pools.close()  # no connection is there that could be asked
    monkeypatch.setattr(db_breaker, "_is_read_only", ended_at_first)

    assert await db_breaker.current().is_available()
    assert (asked, db_breaker.current().away) == (2, False)


async def test_while_other_clients_hold_all_connections_a_lock_delays_only_its_own_statement(server: embedded.Postgres):
    """A refused connection says nothing of those that the pool has."""
    await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.05)") for _ in range(4)))
    parameters = database.connection_parameters()
    async with AsyncExitStack() as neighbours:
        with pytest.raises(psycopg.OperationalError) as refusal:
            while True:
                await neighbours.enter_async_context(await psycopg.AsyncConnection.connect(**parameters))
        async with database.transaction() as conn:
            await conn.execute("LOCK TABLE kept IN ACCESS EXCLUSIVE MODE")
            locked = await asyncio.gather(*(db_breaker.attempt(keep(n)) for n in range(2)), return_exceptions=True)
            others = [await db_breaker.attempt(lambda: database.fetch("SELECT 1")) for _ in range(3)]
            found = db_breaker.current()
            away = found.away
        after = await db_breaker.attempt(keep(3))

    assert refusal.value.sqlstate is None
    assert [str(error) for error in locked] == ["the database did not answer in time"] * 2
    assert (others, away, after) == ([[(1,)]] * 3, False, [])


async def test_a_caller_waits_for_a_busy_pool_though_the_server_gives_no_more_connections(
    server: embedded.Postgres, settings: Any
):
    """It is the pool's own that come back."""
    settings.DB_POOL_MIN, settings.DB_POOL_MAX, settings.DB_POOL_OVERFLOW = 1, 3, 0
    await database.pools.close()
    await database.fetch("SELECT 1")
    parameters = database.connection_parameters()
    async with AsyncExitStack() as neighbours:
        with suppress(psycopg.OperationalError):
            while True:
                await neighbours.enter_async_context(await psycopg.AsyncConnection.connect(**parameters))
        rows = await asyncio.gather(*(database.fetch("SELECT 1 FROM pg_sleep(0.3)") for _ in range(6)))

    assert rows == [[(1,)]] * 6


@pytest.mark.skipif(not django_settings.DB_PREPARE, reason="nothing is prepared behind a pooler")
async def test_a_plan_from_before_a_migration_costs_one_connection_and_no_statement(
    server: embedded.Postgres, settings: Any
):
    """PostgreSQL says so of a prepared statement whose columns have changed, as long as the session lives."""
    settings.DB_POOL_MIN, settings.DB_POOL_MAX, settings.DB_POOL_OVERFLOW = 1, 1, 0
    await database.pools.close()
    for _ in range(3):
        await database.fetch("SELECT * FROM kept")
    async with await psycopg.AsyncConnection.connect(**database.connection_parameters()) as other:
        await other.execute("ALTER TABLE kept ALTER id TYPE numeric")

    with pytest.raises(Unavailable):
        await database.fetch("SELECT * FROM kept")

    assert await database.fetch("SELECT * FROM kept") == []


# -- Read-only ---------------------------------------------------------------------------------------------


async def write() -> None:
    await database.fetch("CREATE TABLE never ()")
    await database.fetch("DROP TABLE never")


async def test_at_a_read_only_server_writes_are_refused_at_once_and_reads_succeed():
    async with read_only() as switch:
        with pytest.raises(Unavailable, match="read-only"):
            await db_breaker.attempt(write)
        found = db_breaker.current()
        known = (found.away, found.read_only)
        with pytest.raises(Unavailable, match="read-only"):
            await db_breaker.attempt(never)  # not even begun
        rows = await db_breaker.attempt(lambda: database.fetch("SELECT 1"), writes=False)
        await asyncio.sleep(3 * db_breaker.PROBE_EVERY)
        still = found.read_only
        await switch.off()
        await eventually(lambda: not found.read_only)
        await db_breaker.attempt(write)

    assert known == (False, True)
    assert (rows, still) == ([(1,)], True)


async def test_no_connection_opened_while_the_server_was_read_only_stays_in_the_pool():
    async with read_only() as switch:
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.05)") for _ in range(5)))
        with pytest.raises(Unavailable):
            await db_breaker.attempt(write)
        await switch.off()
        await eventually(lambda: not db_breaker.current().read_only)
        states = await asyncio.gather(
            *(database.fetch("SELECT current_setting('transaction_read_only') FROM pg_sleep(0.05)") for _ in range(8))
        )

    assert states == [[("off",)]] * 8


async def test_one_old_read_only_connection_does_not_make_the_server_read_only():
    """Nobody noticed while it was."""
    async with read_only() as switch:
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.05)") for _ in range(5)))
        await switch.off()
        with pytest.raises(Unavailable):
            await db_breaker.attempt(write)
        await eventually(lambda: not db_breaker.current().read_only)
        await db_breaker.attempt(write)


async def test_a_server_that_returns_read_only_after_an_outage_is_known_as_read_only(
    server: embedded.Postgres,
):
    await database.fetch("ALTER SYSTEM SET default_transaction_read_only = on")
    server.ask_to_stop()
    await asyncio.to_thread(server.see_gone)
    with pytest.raises(Unavailable):
        await db_breaker.attempt(never)
    found = db_breaker.current()

    await asyncio.to_thread(server.start)
    await eventually(lambda: not found.away)
    came_back = found.read_only
    async with database.connection() as conn:
        await conn.execute("SET default_transaction_read_only = off")
        await conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await conn.execute("SELECT pg_reload_conf()")
    await eventually(lambda: not found.read_only)

    assert came_back
    assert await db_breaker.attempt(keep(1)) == []


# -- What is logged ----------------------------------------------------------------------------------------


async def test_a_change_of_state_is_one_log_line_and_its_consequences_are_one_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(faults._LastLine, "at", -faults.LOG_INTERVAL)
    async with read_only() as switch:
        for _ in range(50):
            with suppress(Unavailable):
                await database.fetch("CREATE TABLE never ()", repeatable=False)
        await switch.off()
        await eventually(lambda: not db_breaker.current().read_only)

    said = [record.message for record in caplog.records if record.name.startswith("registry")]
    assert sorted(said) == ["the database is back", "the database is read-only", "the database is read-only"]
