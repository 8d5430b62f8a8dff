"""Each trouble of a server or host is provoked, fires its alert within its time, and resolves it when it ends: one message each.

The pool of this file is upon a PostgreSQL of its own, which can be stopped, and has few connections.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psycopg
import pytest
from prometheus_client import REGISTRY

from payments.intake import intake, spilling
from payments.intake.payment import NewPayment
from queueing import spill
from registry.data import database, db_breaker, redis_health
from registry.data.loop import end_loop
from registry.operators.database_attention import used_connections
from registry.servers import embedded, postgres
from registry.telemetry import metrics
from tests.alerts.conftest import SECRET, Alarm
from tests.alerts.watching import GRACE
from tests.bed.receiver import Receiver
from tests.bed.running import PYTHONPATH
from tests.bed.valkey import Troubled, own_valkey
from tests.conftest import eventually
from tests.payments.test_spilled import record
from tests.servers import own_server

CONNECTIONS = 45  # few enough to use them up, more than a pool has
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
CHILD_LIMIT = 120.0  # seconds for a Python with Django on a busy machine
OTHER_LOOP = 30.0  # seconds that a thread of a test may take
MIB = 1 << 20


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[embedded.Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(postgres.POSTGRES_SETTINGS, "max_connections", CONNECTIONS)
        async with own_server() as server:
            yield server


@pytest.fixture
async def server_of_its_own(
    own: embedded.Postgres, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[embedded.Postgres]:
    """It can be stopped and started; afterwards it serves."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr(db_breaker, "PROBE_EVERY", 0.05)
    yield own
    if not own.pid():
        await asyncio.to_thread(own.start)
    await db_breaker.breakers.close()
    await database.fetch("DELETE FROM registry_alert")
    await database.fetch("DELETE FROM registry_alertmessage")


@pytest.fixture
async def shop(server_of_its_own: embedded.Postgres) -> int:
    """The id of a tenant of that server."""
    [(found,)] = await database.fetch(
        "INSERT INTO registry_tenant (slug, name, currency, status, mode, open, settings)"
        " VALUES (%s, '', 'BRL', 'active', 'sandbox', false, '{}') RETURNING id",
        [f"shop-{uuid4().hex[:8]}"],
    )
    return found


@pytest.fixture
async def fresh_spill(settings: Any, tmp_path: Path) -> AsyncIterator[None]:
    """A spill of the test's own."""
    await spill.loops.close()
    for gauge in (metrics.SPILL_RECORDS, metrics.SPILL_OLDEST, metrics.SPILL_REFUSES):
        gauge.clear()  # of tests before
    settings.SPILL_FOLDER = tmp_path
    yield
    await spill.loops.close()
    spilling.waiting.clear()


async def stop(server: embedded.Postgres) -> None:
    server.ask_to_stop()
    await asyncio.to_thread(server.see_gone)


async def is_away() -> bool:
    return not await db_breaker.current().is_available()


def order(tenant: int, **fields: Any) -> NewPayment:
    return NewPayment(**{"tenant_id": tenant, "correlation_id": uuid4(), "amount": 1990, "currency": "BRL", **fields})


# -- PostgreSQL is away ------------------------------------------------------------------------------------------


async def test_postgresql_is_away(alarm: Alarm, server_of_its_own: embedded.Postgres):
    alert = alarm("database.away", "PostgreSQL is stopped")
    await alert.is_quiet()

    await stop(server_of_its_own)
    await eventually(is_away)
    await alert.fires()

    await asyncio.to_thread(server_of_its_own.start)
    await eventually(lambda: not db_breaker.current().away)
    await alert.resolves()


async def test_the_spill_waits(alarm: Alarm, server_of_its_own: embedded.Postgres, shop: int, fresh_spill: None):
    alert = alarm("spill.waiting", "PostgreSQL is stopped: a payment is in the spill")
    await alert.is_quiet()

    await stop(server_of_its_own)
    await intake.submit(order(shop))
    await eventually(is_away)
    await eventually(metrics.SPILL_RECORDS.labels("payment")._value.get)
    await alert.fires()

    await asyncio.to_thread(server_of_its_own.start)
    await eventually(nothing_waits)
    await alert.resolves()


async def nothing_waits() -> bool:
    return not any(now.records for now in await spill.state())


async def test_the_spill_refuses(
    alarm: Alarm, server_of_its_own: embedded.Postgres, shop: int, fresh_spill: None, settings: Any
):
    settings.SPILL_MAX_BYTES = 1000
    alert = alarm("spill.refuses", "PostgreSQL is stopped, and the spill is full")
    await alert.is_quiet()

    await stop(server_of_its_own)
    with pytest.raises(spill.Full):
        while True:
            await intake.submit(order(shop, description="x" * 400))
    await eventually(lambda: REGISTRY.get_sample_value("registry_spill_refuses", {"kind": spilling.KIND}))
    await alert.fires()

    await asyncio.to_thread(server_of_its_own.start)
    await eventually(nothing_waits)
    await alert.resolves()


async def test_a_record_of_the_spill_is_set_aside(alarm: Alarm, shop: int, fresh_spill: None):
    alert = alarm("spill.set_aside", "the spill sets a payment aside: its id has another amount")
    known = order(shop)
    await intake.submit(known)
    await alert.is_quiet()

    other = order(shop, correlation_id=known.correlation_id, amount=1)
    await spill.append(spilling.KIND, shop, record(other))
    [kept] = await eventually(lambda: spill.quarantined(spilling.KIND))
    await alert.fires()

    assert await spill.drop(spilling.KIND, kept.id)
    await alert.resolves()


async def test_requests_fail(alarm: Alarm, server_of_its_own: embedded.Postgres, server: str, key: str):
    alert = alarm("requests.failing", "60 requests are answered 503 while PostgreSQL is stopped")
    await alert.is_quiet()

    await stop(server_of_its_own)
    await eventually(is_away)
    async with aiohttp.ClientSession(server, headers={"Authorization": f"Bearer {key}"}) as client:
        for _ in range(60):
            async with client.get("/payments") as response:
                assert response.status == 503
    await asyncio.to_thread(server_of_its_own.start)
    await eventually(lambda: not db_breaker.current().away)
    await alert.fires()

    await alert.resolves()


# -- Within PostgreSQL -------------------------------------------------------------------------------------------


async def session() -> psycopg.AsyncConnection:
    """Another program's."""
    parameters = database.connection_parameters()
    parameters.pop("cursor_factory", None)
    return await psycopg.AsyncConnection.connect(**{**parameters, "autocommit": False})


async def test_connections_are_nearly_used_up(alarm: Alarm, server_of_its_own: embedded.Postgres):
    alert = alarm("database.connections", "other programs hold nearly all connections")
    await alert.is_quiet()

    async with AsyncExitStack() as held:
        while await share_of_connections() <= 0.85:
            held.push_async_callback((await session()).close)
        await alert.fires()

    await alert.resolves()


async def share_of_connections() -> float:
    used, most = await used_connections()
    return used / most


async def test_a_snapshot_is_held(alarm: Alarm, server_of_its_own: embedded.Postgres):
    """The rule's own limit is ten minutes, by the same statement; this one is two seconds."""
    alert = alarm("database.snapshot", "a transaction holds a snapshot (more than 2 s)", "max(registry_database_snapshot_seconds) > 2")  # fmt: skip
    await alert.is_quiet()

    report = await session()
    await report.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await report.execute("SELECT 1")
    await eventually(lambda: is_held(2))
    await alert.fires()

    await report.close()
    await alert.resolves()


async def is_held(seconds: float) -> bool:
    sql = "SELECT max(now() - xact_start) > make_interval(secs => %s::float8) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL"
    return bool((await database.fetch(sql, [seconds]))[0][0])


async def test_a_slot_keeps_wal(alarm: Alarm, server_of_its_own: embedded.Postgres):
    """The rule's own limit is 1 GiB, by the same statement; this one is 1 MiB."""
    alert = alarm("database.slots", "a replication slot that nobody reads keeps WAL (1 MiB)", f"max(registry_database_slot_bytes) > {MIB}")  # fmt: skip
    await alert.is_quiet()

    await database.fetch("SELECT pg_create_physical_replication_slot('forgotten', true)")
    await database.fetch("SELECT pg_logical_emit_message(false, 'test', repeat('x', %s::int))", [2 * MIB])
    await alert.fires()

    await database.fetch("SELECT pg_drop_replication_slot('forgotten')")
    await alert.resolves()


async def test_requests_wait_for_a_connection(alarm: Alarm, server_of_its_own: embedded.Postgres, settings: Any):
    """In another loop, whose pool has one connection: the evaluator's own has some left, as in another process."""
    settings.DB_POOL_MIN, settings.DB_POOL_MAX, settings.DB_POOL_OVERFLOW = 1, 1, 0
    settings.DB_POOL_TIMEOUT = OTHER_LOOP
    alert = alarm("database.pool", "a pool has no connection left")
    await alert.is_quiet()
    ended = threading.Event()

    async def use_up() -> None:
        try:
            async with database.connection():
                waiting = asyncio.create_task(database.fetch("SELECT 1"))
                await asyncio.to_thread(ended.wait, OTHER_LOOP)
            await waiting
        finally:
            await end_loop()

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(use_up())))
    try:
        await eventually(lambda: metrics.DB_WAITING._value.get() > 0)
        await alert.fires()
    finally:
        ended.set()
        await other
    await alert.resolves()


# -- The host ------------------------------------------------------------------------------------------------------


async def test_redis_takes_no_writes(alarm: Alarm, server_of_its_own: embedded.Postgres, settings: Any):
    with own_valkey() as valkey, Troubled(valkey) as redis:
        settings.REDIS_URL = settings.LIVE_REDIS_URL = settings.RQ_REDIS_URL = valkey.url
        alert = alarm("redis", "Redis takes no writes: too few replicas")
        await alert.is_quiet()

        with redis.of("too_few_replicas"):
            await alert.fires()

        await alert.resolves()
    redis_health.reset()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system of its own")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=CHILD_LIMIT,
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let root mount a file system: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True, timeout=CHILD_LIMIT)


@pytest.mark.parametrize(("name", "kib"), [("disk", 3600), ("disk.full", 3960)])
async def test_the_disk_is_nearly_full(
    alarm: Alarm, server_of_its_own: embedded.Postgres, settings: Any, small_disk: Path, name: str, kib: int
):
    settings.REGISTRY_DATA = small_disk
    alert = alarm(name, f"the data folder's disk is {kib / 4096:.0%} full")
    await alert.is_quiet()

    (small_disk / "log").write_bytes(bytes(kib * 1024))
    await alert.fires()

    (small_disk / "log").unlink()
    await alert.resolves()


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian has it in `libfaketime`)")
async def test_the_clock_of_the_host_is_a_minute_ahead(
    alarm: Alarm, server_of_its_own: embedded.Postgres, operators: Receiver
):
    """A process of ours with a wrong clock evaluates the host's rules; the one that resolves the alert has the right one."""
    alert = alarm("clock", "the clock of the host is 60 s ahead (libfaketime)")
    await alert.is_quiet()
    environ = {
        **os.environ,
        "DATABASE_URL": server_of_its_own.url,
        "PYTHONPATH": PYTHONPATH,
        "ALERT_WEBHOOK_URL": operators.url,
        "ALERT_WEBHOOK_SECRET": SECRET,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": "+60s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.alerts.child", "clock", env=environ, stdout=-1, stderr=-1
    )
    async with asyncio.timeout(CHILD_LIMIT):
        said, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    alert.fired = json.loads(said)
    assert alert.fired <= alert.rule.for_ + GRACE
    await alert.resolves()
