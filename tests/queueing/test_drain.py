"""Drain: wakes, stops, Worker row, dead workers, and outages of the database."""

import asyncio
import time
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from payments.settle.work import PaymentWork
from queueing.models import Worker
from queueing.work import drain as draining
from queueing.work.drain import Drain
from registry.data import database, db_breaker
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_processor
from tests.settling import accept, configure, count, payments, seed, tries, until_settled


@pytest.fixture
async def processor(tenant):
    return await in_thread(make_processor, tenant)


async def workers() -> list[Worker]:
    try:
        return [worker async for worker in Worker.async_objects.order_by("id")]
    finally:
        await database.release()


# -- Stopping --------------------------------------------------------------------------------------------------


async def test_a_drain_that_is_stopped_finishes_rows_in_flight_and_claims_no_more(tenant, processor):
    await configure(tenant, "default", delay=300)
    await seed(tenant, 30)

    async with at_work(capacity=10) as drain:
        await eventually(lambda: len(drain.in_flight) == 10)
        drain.stop()

    assert await count(tenant, "succeeded") == 10
    assert await count(tenant, "queued") == 20
    assert {row.lease_id for row in await payments(tenant)} == {None}


async def test_a_drain_that_is_stopped_gives_back_unfinished_rows_as_uncertain_and_due_at_once(
    tenant, processor, monkeypatch
):
    monkeypatch.setattr(draining, "GRACE", 0.1)
    await configure(tenant, "default", hang=True)
    await seed(tenant, 10)

    async with at_work() as drain:
        await eventually(lambda: len(drain.in_flight) == 10)
        started = time.monotonic()
    took = time.monotonic() - started

    rows = await payments(tenant)
    assert {(row.status, row.lease_id, row.code) for row in rows} == {("uncertain", None, "worker_left")}
    [[due]] = await database.fetch(
        "SELECT bool_and(run_at <= now()) FROM payments_payment WHERE tenant_id = %s", [tenant.pk]
    )
    assert due
    assert took < 3


async def test_a_drain_ends_after_its_run_time(tenant, processor):
    work = PaymentWork()

    async with asyncio.timeout(20):
        await Drain(work).run(seconds=0.1)
    await work.close()

    assert await workers() == []


# -- Being seen ------------------------------------------------------------------------------------------------


async def test_a_drain_is_registered_as_a_worker_while_it_runs(tenant, processor, monkeypatch):
    monkeypatch.setattr(draining, "HEARTBEAT", 0.05)
    await configure(tenant, "default", delay=400)
    async with at_work(capacity=50):
        [first] = await eventually(workers)
        await seed(tenant, 20)

        async def told() -> Worker | None:
            [now] = await workers()
            return now if now.in_flight == 20 and now.heartbeat_at > first.heartbeat_at else None

        busy = await eventually(told)
        await until_settled(tenant)

        async def finished() -> bool:
            return [worker.finished for worker in await workers()] == [20]

        await eventually(finished)

    assert (busy.queue, busy.capacity) == ("payments", 50)
    assert await workers() == []


async def test_rows_of_a_worker_without_heartbeats_are_taken_over_long_before_its_leases_end(tenant, processor):
    ids = await accept(tenant, 5)
    silent = await Worker.async_objects.acreate(queue="payments", hostname="unplugged", pid=1)
    await database.release()
    work = PaymentWork()
    held = await work.claim(silent.id, 5)
    await database.fetch("UPDATE queueing_worker SET heartbeat_at = now() - interval '6 seconds'")

    async with at_work():
        settled = await until_settled(tenant, within=20.0)
        known = [worker.id for worker in await workers()]
    await work.close()

    assert {claim.correlation_id for claim in held} == set(ids)
    assert {row.attempt for row in settled} == {2}
    assert silent.id not in known


async def test_a_drain_whose_worker_was_removed_as_dead_ends(tenant, processor, monkeypatch):
    monkeypatch.setattr(draining, "HEARTBEAT", 0.05)
    work = PaymentWork()
    running = asyncio.create_task(Drain(work).run(seconds=600))
    await eventually(workers)

    await database.fetch("DELETE FROM queueing_worker")

    async with asyncio.timeout(20):
        await running
    await work.close()


# -- Waking ----------------------------------------------------------------------------------------------------


async def test_a_hint_wakes_a_drain_before_its_next_poll(tenant, processor, monkeypatch):
    monkeypatch.setattr(draining, "POLL", 600.0)
    async with at_work():
        await eventually(lambda: _listeners())
        for _ in range(3):
            await accept(tenant)
            await until_settled(tenant, within=20.0)


async def test_without_a_hint_the_next_poll_finds_the_payment(tenant, processor, monkeypatch):
    monkeypatch.setattr(draining, "RECONNECT", 0.2)
    async with at_work():
        await eventually(lambda: _listeners())
        await database.fetch(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LISTENING}")
        await seed(tenant, 3)  # without NOTIFY

        await until_settled(tenant, within=20.0)

        await eventually(lambda: _listeners())


async def test_a_drain_without_open_rows_asks_for_them_and_claims_nothing(tenant, monkeypatch):
    monkeypatch.setattr(draining, "POLL", 0.02)
    looks: list[bool] = []
    claims: list[int] = []
    look, due = draining.Drain._expects_work, PaymentWork.due

    async def counted_look(drain: draining.Drain) -> bool:
        looks.append(await look(drain))
        return looks[-1]

    async def counted_due(work: PaymentWork, conn: Any) -> list[Any]:
        claims.append(len(looks))
        return await due(work, conn)

    monkeypatch.setattr(draining.Drain, "_expects_work", counted_look)
    monkeypatch.setattr(PaymentWork, "due", counted_due)
    async with at_work():
        await eventually(lambda: False in looks)
        first = len(looks)
        await eventually(lambda: len(looks) > first + 5)

        assert [at for at in claims if at > first] == []

        await accept(tenant)
        await eventually(lambda: [at for at in claims if at > first] != [])


LISTENING = "datname = current_database() AND query LIKE 'LISTEN %%' AND pid <> pg_backend_pid()"


async def _listeners() -> int:
    return (await database.fetch(f"SELECT count(*) FROM pg_stat_activity WHERE {LISTENING}"))[0][0]


async def test_a_full_drain_leaves_no_tasks_behind_while_it_waits_for_room(tenant, processor):
    await configure(tenant, "default", delay=20)
    await seed(tenant, 400)

    async with at_work(capacity=20):
        await eventually(lambda: _succeeded(tenant, 300))
        waiting = [task for task in asyncio.all_tasks() if "Event.wait" in repr(task.get_coro())]

    assert len(waiting) <= 2


async def _succeeded(tenant, number: int) -> bool:
    return await count(tenant, "succeeded") >= number


# -- The database goes away ---------------------------------------------------------------------------------------


PATIENCE_OF_THE_POOL = 0.2  # seconds that it tries to replace a lost connection; in production 5
AWAY = 0.8  # seconds: several times that


@asynccontextmanager
async def database_away():
    """The test database ends all connections and refuses new ones, like a server that restarts."""
    name = connection.settings_dict["NAME"]
    server = urlunsplit(urlsplit(f"postgres://{_address()}")._replace(path="/postgres"))
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as maintenance:
        await maintenance.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            await maintenance.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            yield
        finally:
            await maintenance.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def _address() -> str:
    database_settings = settings.DATABASES["default"]
    user, password = database_settings["USER"], database_settings.get("PASSWORD")
    who = f"{user}:{password}" if password else user
    return f"{who}@{database_settings['HOST']}:{database_settings['PORT']}"


async def test_a_drain_waits_during_an_outage_of_the_database_and_then_continues(tenant, default, monkeypatch):
    monkeypatch.setattr(database.pools.get(), "reconnect_timeout", PATIENCE_OF_THE_POOL)
    monkeypatch.setattr(draining, "RETRY", 0.1)
    default.delays(150)
    async with at_work() as drain:
        ids = await accept(tenant, 150)
        await eventually(lambda: len(default.booked) >= 20)
        async with database_away():
            await eventually(lambda: len(default.booked) >= 100)  # outcomes that cannot be written
            await asyncio.sleep(AWAY)
        # Without a connection requested by this test:
        await eventually(lambda: not drain.in_flight and not db_breaker.current().away, within=20.0)
        settled = await until_settled(tenant, within=15.0)

    assert sorted(default.booked) == sorted(map(str, ids))
    assert {row.processor for row in settled} == {"default"}
    for row in settled[:20]:
        assert {a.requested_at for a in await tries(row.correlation_id)} == {row.requested_at}
    [[lines, total]] = await database.fetch(
        "SELECT count(*), sum(amount)::bigint FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk]
    )
    assert (lines, total) == (450, 0)


async def test_an_idle_drain_outlives_an_outage_of_the_database(tenant, default, monkeypatch):
    monkeypatch.setattr(database.pools.get(), "reconnect_timeout", PATIENCE_OF_THE_POOL)
    monkeypatch.setattr(draining, "RETRY", 0.1)
    monkeypatch.setattr(draining, "POLL", 0.02)
    answers: list[bool] = []
    look = Drain._expects_work

    async def noted(drain: Drain) -> bool:
        drain._listening = True  # the end of that connection is not known yet
        answers.append(await look(drain))
        return answers[-1]

    monkeypatch.setattr(Drain, "_expects_work", noted)
    async with at_work() as drain:
        await eventually(lambda: False in answers)
        async with database_away():
            await eventually(lambda: answers[-1])  # it cannot know
        await eventually(lambda: not db_breaker.current().away, within=20.0)
        assert not drain.stopping

        await accept(tenant)
        await until_settled(tenant, within=15.0)


async def test_a_drain_whose_connections_are_cut_again_and_again_loses_nothing(tenant, processor):
    async with at_work(), at_work():
        for _ in range(4):
            await seed(tenant, 100)
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            await database.fetch(cut)
        settled = await until_settled(tenant, within=15.0)

    [[bookings]] = await database.fetch(
        "SELECT count(*) FROM payments_sandboxbooking WHERE processor_id = %s", [processor.pk]
    )
    [[lines, total]] = await database.fetch(
        "SELECT count(*), sum(amount)::bigint FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk]
    )
    assert (len(settled), bookings, lines, total) == (400, 400, 1200, 0)
