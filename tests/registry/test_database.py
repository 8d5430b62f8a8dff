"""Requirements D1–D3: async ORM and transactions, every limit enforced, retries only where safe, lost connections, no leaks."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, OperationalError, ProgrammingError, connections
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic
from psycopg import errors

from payments.books import queries
from registry.data import database, faults, orm
from registry.data.faults import Fault
from registry.data.loop import background
from registry.errors import Unavailable
from registry.models import Tenant
from tests.conftest import Api, all_connections_are_back, eventually
from tests.depth import deep
from tests.factories import in_thread, make_payment
from tests.servers import cut_all, other_pool, own_server

SLOW = "SELECT pg_sleep(20)"


@pytest.fixture
async def fresh_pool(settings) -> AsyncIterator[Any]:
    """The settings, with a pool that is opened after the test has changed them, and closed with it."""
    await database.pools.close()
    yield settings
    await database.pools.close()


async def pids(many: int) -> list[int]:
    """The servers' processes behind `many` connections held at the same time."""
    all_there = asyncio.Barrier(many)

    async def hold() -> int:
        async with database.connection() as conn:
            await all_there.wait()
            return conn.info.backend_pid

    return await asyncio.gather(*(hold() for _ in range(many)))


# -- D1: the ORM, async ----------------------------------------------------------------------------------------


@database.own_connection()
async def test_rows_are_created_read_updated_and_deleted_through_the_orm():
    slug = f"t-{uuid4().hex[:8]}"

    made = await Tenant.async_objects.acreate(slug=slug, name="before")
    await Tenant.async_objects.filter(pk=made.pk).aupdate(name="after")
    found = await Tenant.async_objects.aget(slug=slug)
    await found.async_delete()

    assert found.name == "after"
    assert not await Tenant.async_objects.filter(slug=slug).aexists()


@database.own_connection()
async def test_a_transaction_that_raises_leaves_nothing_and_one_that_ends_leaves_all():
    good, bad = f"t-{uuid4().hex[:8]}", f"t-{uuid4().hex[:8]}"

    async with async_atomic():
        await Tenant.async_objects.acreate(slug=good, name="good")
    with pytest.raises(IntegrityError):
        async with async_atomic():
            await Tenant.async_objects.acreate(slug=bad, name="bad")
            await Tenant.async_objects.acreate(slug=good, name="twice")

    assert [t.slug async for t in Tenant.async_objects.filter(slug__in=[good, bad])] == [good]


@database.own_connection()
async def test_a_savepoint_rolls_back_alone():
    outer, inner = f"t-{uuid4().hex[:8]}", f"t-{uuid4().hex[:8]}"

    async with async_atomic():
        await Tenant.async_objects.acreate(slug=outer, name="outer")
        with suppress(ValueError):
            async with async_atomic():
                await Tenant.async_objects.acreate(slug=inner, name="inner")
                raise ValueError

    assert [t.slug async for t in Tenant.async_objects.filter(slug__in=[outer, inner])] == [outer]


@database.own_connection()
async def test_a_cancelled_transaction_is_rolled_back():
    slug, written = f"t-{uuid4().hex[:8]}", asyncio.Event()

    async def half_way() -> None:
        async with database.transaction() as conn:
            await database.rows(
                conn,
                "INSERT INTO registry_tenant (slug, name, currency, status, mode, open, settings)"
                " VALUES (%s, 'x', 'BRL', 'active', 'sandbox', false, '{}')",
                (slug,),
            )
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(half_way())
    await written.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert not await Tenant.async_objects.filter(slug=slug).aexists()
    await database.release()
    await eventually(all_connections_are_back)


# -- D2: every limit -------------------------------------------------------------------------------------------


async def test_the_pool_keeps_its_minimum_open(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = 3, 3, 0

    await database.fetch("SELECT 1")

    await eventually(lambda: database.statistics()["pool_available"] == 3)


async def test_a_burst_opens_overflow_connections_that_are_closed_afterwards(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = 1, 2, 3

    in_the_rush = await pids(5)

    assert len(set(in_the_rush)) == 5
    await eventually(lambda: database.statistics()["pool_size"] == 2 and all_connections_are_back())
    assert set(await pids(2)) <= set(in_the_rush)


async def test_beyond_maximum_and_overflow_a_caller_waits_and_then_gets_503(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW, fresh_pool.DB_POOL_TIMEOUT = (
        1,
        1,
        1,
        0.3,
    )
    async with database.connection(), database.connection():
        started = time.monotonic()

        with pytest.raises(Unavailable, match="no database connection within"):
            await database.fetch("SELECT 1")

        assert 0.25 < time.monotonic() - started < 2
    assert await database.fetch("SELECT 1") == [(1,)]


async def test_a_waiting_caller_gets_a_returned_connection(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = 1, 1, 0
    async with database.connection() as conn:
        held = conn.info.backend_pid
        waiting = asyncio.create_task(database.fetch("SELECT pg_backend_pid()"))
        await eventually(lambda: database.statistics()["requests_waiting"] == 1)

    assert await waiting == [(held,)]


async def test_a_connection_past_its_age_is_replaced(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = 1, 1, 0
    fresh_pool.DB_POOL_RECYCLE = 0.1
    first = await pids(1)

    async def replaced() -> bool:
        return await pids(1) != first

    await eventually(replaced)


@database.own_connection()
async def test_a_statement_past_its_time_is_stopped_at_the_server_and_answered_with_503(fresh_pool, settings, tenant):
    options = settings.DATABASES["default"]["OPTIONS"]
    settings.DB_QUERY_TIMEOUT = 0.25
    limited = {**options, "options": options["options"].replace("statement_timeout=30000", "statement_timeout=250")}
    assert limited != options
    with with_options(limited):
        started = time.monotonic()

        with pytest.raises(Unavailable):
            await database.fetch(SLOW)
        with pytest.raises(OperationalError, match="statement timeout"):
            await Tenant.async_objects.extra(where=["pg_sleep(20) IS NOT NULL"]).acount()

        assert 0.45 < time.monotonic() - started < 5
    await database.release()
    await eventually(all_connections_are_back)


@contextmanager
def with_options(options: dict) -> Iterator[None]:
    """Connections made with other options, as a process started with other settings makes them."""
    kept = connections.settings["default"]["OPTIONS"]
    connections.settings["default"]["OPTIONS"] = options
    try:
        yield
    finally:
        connections.settings["default"]["OPTIONS"] = kept


async def test_a_host_that_falls_silent_within_a_transaction_loses_its_locks_after_seconds(settings, tenant):
    """It was cut off: nothing ends its session but PostgreSQL."""
    silent = await psycopg.AsyncConnection.connect(**database.session_parameters() or {})
    try:
        await silent.execute("BEGIN")
        await silent.execute("SELECT 1 FROM registry_tenant WHERE id = %s FOR UPDATE", [tenant.pk])
        began = time.monotonic()

        await database.fetch("SELECT 1 FROM registry_tenant WHERE id = %s FOR UPDATE", (tenant.pk,))

        assert 0.5 < (time.monotonic() - began) / settings.DB_IDLE_IN_TRANSACTION < 2
    finally:
        await silent.close()


async def test_a_server_that_stops_responding_is_given_up_soon_after_its_timeout(settings, monkeypatch):
    """The server's own limit is off, as behind a pooler that drops it: ours still holds."""
    settings.DB_QUERY_TIMEOUT = 0.2
    monkeypatch.setattr(database, "QUERY_GRACE", 0.1)
    started = time.monotonic()

    async with database.connection() as conn:
        await conn.execute("SET statement_timeout = 0")
        with pytest.raises(TimeoutError):
            await database.rows(conn, SLOW)
        with suppress(psycopg.OperationalError):  # closed, where the server was slow to say that it has stopped
            await conn.execute("RESET statement_timeout")

    assert time.monotonic() - started < 8
    assert await database.fetch("SELECT 1") == [(1,)]


async def test_repeatable_work_is_retried_up_to_the_limit_with_growing_delays(settings, monkeypatch):
    settings.DB_RETRY_ATTEMPTS, settings.DB_RETRY_BACKOFF, settings.DB_RETRY_MAX = 5, 10, 0.1
    monkeypatch.setattr(database, "RETRY_FIRST", 0.02)
    tries: list[float] = []

    async def cut() -> None:
        tries.append(time.monotonic())
        raise errors.AdminShutdown("terminating connection")

    with pytest.raises(Unavailable):
        await database.retrying(cut)

    waits = [after - before for before, after in pairwise(tries)]
    assert len(tries) == 5
    assert waits[0] >= 0.01
    assert all(0.05 <= wait < 1 for wait in waits[2:])  # half of 0.02 × 10 × 10 is beyond the longest
    assert waits[0] < min(waits[2:])


async def test_successful_work_is_not_repeated():
    tries = []

    async def cut_once() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return "done"

    assert await database.retrying(cut_once) == "done"
    assert len(tries) == 2


async def test_a_statement_that_must_not_be_repeated_runs_once(tenant):
    """Its connection is cut after it has run: whether it was committed is unknown, so nobody runs it again."""
    runs = f"runs-{uuid4().hex[:8]}"
    sql = "SELECT nextval(%s), pg_terminate_backend(pg_backend_pid()), pg_sleep(5)"
    await database.fetch(f'CREATE SEQUENCE "{runs}"')
    try:
        with pytest.raises(Unavailable):
            await database.fetch(sql, (f'"{runs}"',), repeatable=False)
        once = await database.fetch(f'SELECT last_value, is_called FROM "{runs}"')
        with pytest.raises(Unavailable):
            await database.fetch(sql, (f'"{runs}"',))
        again = await database.fetch(f'SELECT last_value FROM "{runs}"')
    finally:
        await database.fetch(f'DROP SEQUENCE "{runs}"')

    assert once == [(1, True)]
    assert again == [(1 + 3,)]  # the other kind is tried DB_RETRY_ATTEMPTS times


async def test_an_unrepeatable_statement_is_repeated_after_a_deadlock_because_that_rolled_it_back(fresh_pool):
    """It looks for a deadlock sooner than the other, so PostgreSQL ends it; on a slow machine it may look too soon."""
    runs = f"runs-{uuid4().hex[:8]}"
    rounds, tries = 0, 0
    one, two = 2**62 + 1, 2**62 + 2  # of nobody else's locks
    sql = "SELECT nextval(%s), pg_advisory_xact_lock(%s), pg_advisory_xact_lock(%s)"
    options = fresh_pool.DATABASES["default"]["OPTIONS"]
    with with_options({**options, "options": f"{options['options']} -c deadlock_timeout=200ms"}):
        await database.fetch(f'CREATE SEQUENCE "{runs}"')
        while not tries:
            rounds += 1
            with suppress(errors.DeadlockDetected):
                async with database.transaction() as conn:
                    await conn.execute("SET LOCAL deadlock_timeout = '2s'")
                    await database.rows(conn, "SELECT pg_advisory_xact_lock(%s)", (two,))
                    crossed = asyncio.create_task(database.fetch(sql, (f'"{runs}"', one, two), repeatable=False))
                    await eventually(waiting_for_a_lock)
                    await database.rows(conn, "SELECT pg_advisory_xact_lock(%s)", (one,))
                [(tries, *_)] = await crossed
            await crossed
        await database.fetch(f'DROP SEQUENCE "{runs}"')

    assert tries == rounds + 1  # numbers that were drawn: one in each round, and one by the repetition


async def waiting_for_a_lock() -> bool:
    rows = await database.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return rows[0][0] > 0


async def test_lists_of_one_statement_may_hold_numbers_of_any_size():
    """psycopg by itself takes the type that the first of them needs for all."""
    small, large = [1], [2**15, 2**31, 2**62, -(2**62)]

    rows = await database.fetch("SELECT %s::text, %s::text, pg_typeof(%s)::text", (small, large, small))

    assert rows == [("{1}", "{32768,2147483648,4611686018427387904,-4611686018427387904}", "bigint[]")]


async def test_permanent_errors_are_raised_at_once():
    with pytest.raises(errors.DivisionByZero):
        await database.fetch("SELECT 1 / 0")
    started = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await database.fetch("SELEKT")

    assert isinstance(refusal.value.__cause__, errors.SyntaxError)
    assert time.monotonic() - started < database.RETRY_FIRST / 2


async def test_concurrent_reads_are_limited_by_the_setting(settings):
    settings.CONCURRENT_OPERATIONS = 3
    running, most = 0, 0

    async def step() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await Tenant.async_objects.acount()
        running -= 1
        return running

    results = await database.concurrently(*(step for _ in range(20)))

    assert len(results) == 20
    assert most == 3
    assert all_connections_are_back()


async def test_a_step_that_fails_raises_its_own_error_and_ends_the_others():
    async def fails() -> None:
        await eventually(sleeping)
        raise Unavailable("away")

    async def sleeping() -> bool:
        return bool(
            await database.fetch("SELECT 1 FROM pg_stat_activity WHERE query = %s AND state = 'active'", (SLOW,))
        )

    async def waits() -> None:
        await database.fetch(SLOW)

    with pytest.raises(Unavailable, match="away"):
        await database.concurrently(waits, fails)
    await eventually(all_connections_are_back)


async def test_an_own_connection_is_made_by_its_first_use_and_returned_also_if_that_was_in_another_task(monkeypatch):
    outside, made = async_connections[DEFAULT_DB_ALIAS], []
    create = async_connections.create_connection
    monkeypatch.setattr(async_connections, "create_connection", lambda alias: made.append(alias) or create(alias))

    async with database.own_connection():
        assert made == []
        await asyncio.create_task(orm.statement("SELECT 1"))
        assert DEFAULT_DB_ALIAS in made

    assert async_connections[DEFAULT_DB_ALIAS] is outside
    await eventually(all_connections_are_back)


async def test_the_database_error_of_a_step_is_not_lost():
    async def broken() -> None:
        async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            await cursor.execute("SELECT 1 FROM nowhere")

    with pytest.raises(ProgrammingError) as error:
        await database.concurrently(broken)

    assert faults.of(error.value) is Fault.MISSING


async def test_requests_that_hold_a_connection_do_not_deadlock_on_concurrent_reads(fresh_pool):
    fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = 2, 2, 0
    fresh_pool.DB_POOL_TIMEOUT = 1
    all_hold = asyncio.Barrier(2)

    async def request() -> list[int]:
        async with database.own_connection():
            await Tenant.async_objects.acount()
            await all_hold.wait()
            return await database.concurrently(*[Tenant.async_objects.acount] * 2)

    answers = await asyncio.gather(request(), request())

    assert all(len(answer) == 2 for answer in answers)


async def test_an_export_reads_in_chunks_of_the_batch_size(api: Api, tenant, settings, monkeypatch):
    settings.BATCH_SIZE = 1
    await in_thread(lambda: [make_payment(tenant) for _ in range(23)])

    chunks = [len(items) async for items in queries.all_of(tenant.pk, queries.PaymentFilters())]

    assert chunks == [10, 10, 3]


@pytest.mark.parametrize(("prepare", "kept"), [(True, True), (False, False)])
@database.own_connection()
async def test_behind_pgbouncer_nothing_is_prepared(fresh_pool, prepare: bool, kept: bool):
    fresh_pool.DB_PREPARE, fresh_pool.DB_POOL_MIN, fresh_pool.DB_POOL_MAX, fresh_pool.DB_POOL_OVERFLOW = (
        prepare,
        1,
        1,
        0,
    )

    for n in range(10):
        await database.fetch("SELECT %s::bigint + 1", (n,))
        await Tenant.async_objects.acount()
        await database.release()
    prepared = await database.fetch("SELECT count(*) FROM pg_prepared_statements")

    assert (prepared[0][0] > 0) is kept


# -- D3: cut lines, cancelled tasks ----------------------------------------------------------------------------


async def reads() -> None:
    await database.fetch("SELECT pg_sleep(%s)", (random.random() / 50,))


async def changes() -> None:
    async with database.transaction() as conn:
        await database.rows(conn, "SELECT pg_sleep(0.01)")


async def uses_the_orm() -> None:
    async with database.own_connection(), async_atomic():
        await Tenant.async_objects.acount()
        await asyncio.sleep(random.random() / 50)
        await Tenant.async_objects.acount()


async def reads_side_by_side() -> None:
    await database.concurrently(Tenant.async_objects.acount, Tenant.async_objects.acount)


@pytest.mark.parametrize("work", [reads, changes, uses_the_orm, reads_side_by_side])
async def test_three_hundred_tasks_cancelled_at_any_moment_leak_no_connection(work):
    chance = random.Random(7)
    tasks: list[asyncio.Task[None]] = []
    for _ in range(100):
        tasks += [asyncio.create_task(work()) for _ in range(3)]
        for _ in range(2):
            chance.choice([task for task in tasks if not task.done() and not task.cancelling()]).cancel()
        await asyncio.sleep(chance.random() / 300)
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(result, asyncio.CancelledError) for result in results) >= 150
    assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
    await eventually(all_connections_are_back)
    assert await database.fetch("SELECT 1") == [(1,)]


async def test_a_connection_is_returned_although_its_task_is_cancelled_while_returning_it():
    pool = database.pools.get()
    taken = await pool.getconn()
    async with pool._lock:
        giving = asyncio.create_task(pool.putconn(taken))
        await asyncio.sleep(0)
        giving.cancel()
        await asyncio.wait([giving])

    assert giving.cancelled()
    await eventually(all_connections_are_back)


async def test_the_next_statement_succeeds_after_every_connection_was_cut():
    await pids(5)

    assert await in_thread(cut_all) >= 5

    assert await asyncio.gather(*(database.fetch("SELECT 1", repeatable=False) for _ in range(20))) == [[(1,)]] * 20


async def test_when_every_connection_is_cut_under_load_reads_succeed_and_nothing_is_lost(api: Api):
    accepted: list[str] = []
    outcomes: Counter[int] = Counter()
    stop = asyncio.Event()

    async def accept_on() -> None:
        while not stop.is_set():
            correlation_id = str(uuid4())
            async with api.post("/payments", json={"correlationId": correlation_id, "amount": "1.00"}) as response:
                outcomes[response.status] += 1
                if response.status == 202:
                    accepted.append(correlation_id)

    async def read_on() -> None:
        while not stop.is_set():
            async with api.get("/payments/00000000-0000-0000-0000-000000000000/status") as response:
                outcomes[response.status] += 1

    async with asyncio.TaskGroup() as group:
        for work in [accept_on] * 6 + [read_on] * 4:
            group.create_task(work())
        for _ in range(deep(2, 5)):
            enough = len(accepted) + 20
            await eventually(lambda enough=enough: len(accepted) > enough)
            await in_thread(cut_all)
        enough = len(accepted) + 50
        await eventually(lambda: len(accepted) > enough)
        stop.set()

    found = await database.fetch(
        "SELECT count(*) FROM payments_payment WHERE correlation_id = ANY(%s::uuid[])", (accepted,)
    )
    assert found == [(len(accepted),)]
    assert set(outcomes) <= {202, 404, 503}
    await eventually(all_connections_are_back)


async def test_the_service_survives_a_restart_of_the_database_under_load_and_loses_nothing(settings, monkeypatch):
    settings.DB_POOL_TIMEOUT = 3
    written: set[int] = set()
    stop = asyncio.Event()

    async def write_on(base: int) -> None:
        number = base
        while not stop.is_set():
            number += 1
            try:
                await database.fetch("INSERT INTO kept VALUES (%s)", (number,), repeatable=False)
                written.add(number)
            except Unavailable:
                await asyncio.sleep(0.02)

    async with own_server() as server:
        await database.fetch("CREATE TABLE kept (id bigint PRIMARY KEY)")
        async with asyncio.TaskGroup() as group:
            for base in range(8):
                group.create_task(write_on(base * 10**9))
            await eventually(lambda: len(written) > 200)
            with monkeypatch.context() as patch:
                patch.delenv("DATABASE_URL")
                old_process = server.pid()
                server.ask_to_stop()
                await asyncio.to_thread(server.see_gone)
                before = len(written)
                await asyncio.to_thread(server.start)
                process = server.pid()
            await eventually(lambda: len(written) > before + 200, within=15)
            stop.set()
        kept = {number for (number,) in await database.fetch("SELECT id FROM kept")}
        await eventually(all_connections_are_back)

    assert written <= kept  # what was said to be written is there; what was cut in between may be
    assert process != old_process


async def test_without_a_server_callers_wait_shorter_than_for_a_busy_pool(settings, monkeypatch):
    settings.DB_POOL_TIMEOUT = 30
    async with own_server() as server:
        await database.fetch("SELECT 1")
        with monkeypatch.context() as patch:
            patch.delenv("DATABASE_URL")
            server.ask_to_stop()
            await asyncio.to_thread(server.see_gone)

        started = time.monotonic()
        with pytest.raises(Unavailable):
            await database.fetch("SELECT 1")
        waited = time.monotonic() - started

    assert waited < 5


# -- Nothing blocks the loop --------------------------------------------------------------------------------------


async def longest_standstill(work: Callable[[], Awaitable[None]]) -> float:
    """Seconds that the loop did not come round while `work` ran."""
    loop, worst = asyncio.get_running_loop(), 0.0
    running = asyncio.ensure_future(work())
    while not running.done():
        before = loop.time()
        await asyncio.sleep(0.002)
        worst = max(worst, loop.time() - before - 0.002)
    await running
    return worst


async def test_no_query_of_api_pages_or_streams_blocks_the_loop(api: Api, tenant, settings):
    """The tables are locked until each request waits for one: a query on the loop's own thread would stop the loop for good."""
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    await in_thread(Tenant.objects.filter(pk=tenant.pk).update, open=True)
    payment = await api.pay()
    paths = [
        "/", "/overview", "/health", "/metrics", "/payments", f"/payments/{payment['correlationId']}",
        f"/payments/{payment['correlationId']}/status", f"/payments/{payment['correlationId']}/live",
        "/payments-summary", "/login", "/admin/",
    ]  # fmt: skip
    statuses: dict[str, int] = {}

    async def get(path: str) -> None:
        async with api.get(path, headers={"Accept": "text/html"}) as response:
            await response.read()
            statuses[path] = response.status

    for path in paths:
        await get(path)  # templates are compiled once, and are no query

    async def get_while_locked(path: str) -> None:
        async with database.transaction() as conn:
            names = "registry_tenant, registry_apikey, payments_payment, payments_processor, django_session"
            await conn.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            request = asyncio.create_task(get(path))
            await eventually(lambda: waits_or_has_ended(request))
        await request

    async def waits_or_has_ended(request: asyncio.Task[None]) -> bool:
        return request.done() or await waiting_for_a_lock()

    async def all_while_locked() -> None:
        for path in paths:
            await get_while_locked(path)

    standstill = await longest_standstill(all_while_locked)

    assert standstill < 0.9
    assert {path: status for path, status in statuses.items() if status >= 500 and path != "/health"} == {}


async def test_the_pools_use_is_in_the_metrics(api: Api):
    async with database.connection(), database.connection():
        async with api.get("/metrics") as response:
            text = await response.text()

    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("registry_database_pool_"))
    size, available = (float(values[f"registry_database_pool_{name}"]) for name in ("pool_size", "pool_available"))
    assert size - available >= 2
    assert {
        f"registry_database_pool_{name}" for name in ("requests_waiting", "requests_num", "pool_max", "pool_min")
    } <= set(values)


async def test_what_opens_a_pool_in_the_background_of_a_test_without_database_leaves_none_to_the_next():
    """A pool with nobody's address counts connections until it gives up: the next test would seem to keep some."""

    async def ask() -> None:
        while True:
            with suppress(Unavailable):
                await database.fetch("SELECT 1")
            await asyncio.sleep(0)

    asking = background(ask())
    try:
        async with other_pool(port=1):
            await eventually(lambda: database.pools.get().refused)
        await database.fetch("SELECT 1")
        parameters = database.pools.get().kwargs
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    assert parameters["port"] == database.connection_parameters()["port"] != 1
