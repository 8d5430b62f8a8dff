"""PgBouncer in transaction mode between the service and PostgreSQL. All tests of the API behind it: tests/README.md."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import psycopg
import pytest
from django.core.management import CommandError
from django.db import connection
from psycopg import AsyncConnection

from queueing.work import waking
from registry.data import database, db_breaker, pooling
from registry.data.addresses import postgres
from registry.errors import Unavailable
from registry.management import migrating
from tests.bed.pgbouncer import PgBouncer, is_installed, pgbouncer
from tests.conftest import Api
from tests.servers import other_pool, own_server
from tests.waiting import SCALE, eventually

pytestmark = pytest.mark.skipif(not is_installed(), reason="Debian's package pgbouncer is not installed")

SERVERS, CLIENTS, AT_ONCE = 40, 2000, 100
AT_MOST = 1.0 * SCALE  # seconds until a server that does not answer is known to be away


def url_of_test_database() -> str:
    where = connection.settings_dict
    return f"postgres://{where['USER']}:{where['PASSWORD']}@{where['HOST']}:{where['PORT']}/{where['NAME']}"


@pytest.fixture(scope="module")
def pooler() -> Iterator[PgBouncer]:
    # Without a password: 2,000 of them would be checked for most of a minute.
    with pgbouncer(url_of_test_database(), servers=SERVERS, clients=CLIENTS + 200, authentication="trust") as running:
        yield running


def pooled(url: str) -> dict[str, object]:
    found = postgres("DATABASE_URL", url)
    return {name: found[name] for name in ("host", "port")}


@pytest.fixture
async def through(pooler: PgBouncer, settings, monkeypatch) -> AsyncIterator[PgBouncer]:
    """The loop's pool leads through PgBouncer, as the settings say."""
    settings.DB_TRANSACTION_POOLING, settings.DB_PREPARE = True, False
    settings.DATABASE_DIRECT = postgres("DATABASE_DIRECT_URL", pooler.direct_url)
    monkeypatch.delitem(connection.settings_dict["OPTIONS"], "options", raising=False)
    async with other_pool(**pooled(pooler.url)):
        yield pooler


async def test_payments_are_accepted_and_found_and_no_session_keeps_anything(through: PgBouncer, api: Api):
    for _ in range(5):
        paid = await api.pay()
        assert (await api.detail(paid["correlationId"]))["status"] == "queued"
        async with api.get("/payments") as response:
            assert response.status == 200
    kept = await database.fetch(
        "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),"
        " (SELECT count(*) FROM pg_cursors WHERE is_holdable), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),"
        " current_setting('statement_timeout'), current_setting('random_page_cost'), current_setting('TimeZone')"
    )

    assert kept == [(0, 0, 0, 0, "30s", "1.1", "UTC")]


async def test_two_thousand_clients_share_forty_connections_of_the_server(through: PgBouncer, api: Api):
    await api.pay()
    parameters = database.connection_parameters()
    gate, most = asyncio.Semaphore(AT_ONCE), 0
    async with AsyncExitStack() as clients:

        async def connected() -> AsyncConnection:
            async with gate:
                return await clients.enter_async_context(await AsyncConnection.connect(**parameters))

        began = time.monotonic()
        opened = await asyncio.gather(*(connected() for _ in range(CLIENTS)))
        took = time.monotonic() - began
        began = time.monotonic()

        async def ask(client: AsyncConnection) -> None:
            async with gate:
                await client.execute("SELECT pg_sleep(0.005)")

        asking = asyncio.gather(*(ask(one) for one in opened))
        paid = [await api.pay()]
        while not asking.done():
            most = max(most, await asyncio.to_thread(connections_of_the_server, through))
            paid.append(await api.pay())
        await asking
        asked = time.monotonic() - began
        found = [await api.detail(one["correlationId"]) for one in paid]
    print(
        f"\n{CLIENTS} clients connected in {took:.1f} s, each was answered once in {asked:.1f} s, over {most} connections,"
        f" beside {len(paid)} payments"
    )

    assert [one["correlationId"] for one in found] == [one["correlationId"] for one in paid]
    assert int(parameters["port"]) == through.port
    assert 1 < most <= SERVERS


def connections_of_the_server(pooler: PgBouncer) -> int:
    """Sessions of the server that came through the pooler: the test's own, of its threads and fixtures, go past it."""
    with pooler.console() as console, console.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        ports = [row["local_port"] for row in cursor.execute("SHOW SERVERS").fetchall()]
    with psycopg.connect(url_of_test_database()) as own:
        row = own.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND client_port = ANY(%s)",
            [ports],
        ).fetchone()
    return row[0]


async def test_a_worker_is_notified_past_the_pooler(through: PgBouncer):
    parameters = database.session_parameters()
    assert parameters
    async with await AsyncConnection.connect(**{**parameters, "cursor_factory": psycopg.AsyncCursor}) as listening:
        await listening.execute("LISTEN payments")
        await waking._notify(["payments"])  # through the pool, and so through PgBouncer
        heard = [note.channel async for note in listening.notifies(timeout=10, stop_after=1)]

    assert (str(parameters["port"]), parameters["dbname"]) == (
        str(through.behind.port),
        connection.settings_dict["NAME"],
    )
    assert heard == ["payments"]


async def test_without_a_direct_address_nobody_listens(through: PgBouncer, settings):
    settings.DATABASE_DIRECT = {}

    assert database.session_parameters() is None


async def test_a_server_that_ends_or_hangs_behind_the_pooler_is_away_within_a_second_and_comes_back(
    settings, monkeypatch
):
    settings.DB_TRANSACTION_POOLING, settings.DB_PREPARE = True, False
    monkeypatch.delitem(connection.settings_dict["OPTIONS"], "options", raising=False)

    async def ask() -> None:
        await db_breaker.attempt(lambda: database.fetch("SELECT 1"))

    async def is_back() -> bool:
        try:
            await ask()
        except Unavailable:
            return False
        return True

    async def away_after() -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            while True:
                await ask()
        return time.monotonic() - began

    async with own_server() as server:
        with pgbouncer(server.url, servers=10, clients=100) as pooler:
            async with other_pool(**{**postgres("DATABASE_URL", pooler.url), "dbname": "registry"}):
                await ask()
                pids = server.pids()
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                frozen = await away_after()
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
                await eventually(is_back)
                await asyncio.to_thread(server.stop)
                ended = await away_after()
                await asyncio.to_thread(server.start)
                await eventually(is_back)
                await db_breaker.breakers.close()
    print(f"\naway after {frozen:.2f} s (frozen), {ended:.2f} s (ended)")

    assert max(frozen, ended) < AT_MOST


def warnings_through(url: str, monkeypatch) -> list[str]:
    """`up`'s check, with Django's own connection at that address."""
    connection.close()
    with monkeypatch.context() as patch:
        found = postgres("DATABASE_URL", url)
        patch.setitem(connection.settings_dict, "HOST", found["host"])
        patch.setitem(connection.settings_dict, "PORT", found["port"])
        patch.delitem(connection.settings_dict["OPTIONS"], "options", raising=False)
        try:
            return pooling.warnings()
        finally:
            connection.close()


def test_up_warns_of_a_pooler_that_the_settings_do_not_name_and_of_one_without_limits(pooler, settings, monkeypatch):
    undeclared = warnings_through(pooler.url, monkeypatch)
    nobody = warnings_through(url_of_test_database(), monkeypatch)
    settings.DB_TRANSACTION_POOLING = True
    without_direct = warnings_through(pooler.url, monkeypatch)
    settings.DATABASE_DIRECT = {"host": "db"}
    with monkeypatch.context() as patch:
        patch.setattr("tests.bed.pgbouncer.CONNECT", "SET random_page_cost = 1.1")
        with pgbouncer(url_of_test_database(), servers=2, clients=20) as bare:
            unlimited = warnings_through(bare.url, monkeypatch)

    assert (undeclared, nobody, without_direct) == ([pooling.UNDECLARED], [], [pooling.NO_LISTEN])
    assert unlimited == [pooling.UNLIMITED]


@pytest.mark.parametrize("direct", [True, False], ids=["past-it", "through-it"])
def test_one_host_migrates_at_a_time_behind_a_pooler(pooler, settings, monkeypatch, direct: bool):
    settings.DB_TRANSACTION_POOLING = True
    settings.DATABASE_DIRECT = postgres("DATABASE_DIRECT_URL", pooler.direct_url) if direct else {}
    where = connection.settings_dict
    for name, value in (("HOST", "127.0.0.1"), ("PORT", pooler.port)):
        monkeypatch.setitem(where, name, value)
    monkeypatch.delitem(where["OPTIONS"], "options", raising=False)
    monkeypatch.setattr(migrating, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(migrating, "MIGRATION_LIMIT", 0.5)

    with migrating.migrating_alone(connection):
        with pytest.raises(CommandError, match=r"another host has been migrating .* registry migrates on"):
            with migrating.migrating_alone(connection):
                raise AssertionError("it has the lock")
    with migrating.migrating_alone(connection):  # it was given back
        pass
