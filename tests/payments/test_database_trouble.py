"""PostgreSQL is read-only, lacks a table, has a full disk or a lock: payments and pushes are spilled in order, other requests are 503, and
nothing is quarantined or dropped."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from payments.intake import intake, spilling
from payments.models import Payment
from queueing import spill
from queueing.broker import buffer, long_polls, traffic
from queueing.spill.queue import HANDOVER_LIMIT
from queueing.work.work import WRITE_AGAIN
from registry.data import database, db_breaker, refusals
from registry.edge import live_socket
from registry.models import ApiKey, Membership, Tenant
from tests.bed import HttpProcessor
from tests.conftest import Api, at_work, eventually, make_key
from tests.factories import in_thread, make_person, make_processor, make_tenant
from tests.payments.test_sockets import session_cookie
from tests.queueing.mq import Mq, fresh_name
from tests.servers import cut_all, read_only


@pytest.fixture
async def mq(api: Api, tenant: Tenant) -> AsyncIterator[Mq]:
    yield Mq(api, tenant.pk)
    await traffic.counts.close()
    await long_polls.loops.close()


@pytest.fixture(autouse=True)
async def fresh_spill(settings: Any, tmp_path: Path) -> AsyncIterator[None]:
    """A spill of the test's own, empty before and after."""
    await spill.loops.close()
    settings.SPILL_FOLDER = tmp_path
    yield
    await nothing_waits()
    asides = [aside.reason for kind in (spilling.KIND, buffer.KIND) for aside in await spill.quarantined(kind)]
    await spill.loops.close()
    spilling.waiting.clear()
    assert asides == []


async def nothing_waits() -> None:
    async def empty() -> bool:
        return not any(now.records for now in await spill.state())

    await eventually(empty)


async def stored(tenant: Tenant) -> list[str]:
    """Ids of the tenant's payments in the order they were stored."""
    async with database.own_connection():
        ids = Payment.async_objects.filter(tenant=tenant).order_by("id").values_list("correlation_id", flat=True)
        return [str(id) async for id in ids]


async def call(api: Api, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
    async with api.session.request(method, path, **options) as response:
        body = await response.json() if response.content_type.endswith("json") else None
        return response.status, body, response.headers


async def health(api: Api) -> tuple[list[int], str]:
    """The statuses of the three addresses, and what is said of the database."""
    answers = [await call(api, "GET", path) for path in ("/health", "/health/ready", "/health/live")]
    return [status for status, _, _ in answers], answers[0][1]["checks"]["database"]["detail"]


# -- Read-only ---------------------------------------------------------------------------------------------


async def test_while_the_database_is_read_only_payments_and_pushes_are_spilled_reads_succeed_and_the_rest_is_503(
    api: Api, mq: Mq, tenant: Tenant
):
    before, queue = await api.pay(), fresh_name()
    await mq.push(queue, "warm")
    async with read_only() as switch:
        during = [(await api.pay())["correlationId"] for _ in range(5)]
        items = [{"correlationId": str(uuid4()), "amount": "1.00"} for _ in range(3)]
        batch = await call(api, "POST", "/payments/batch", json={"items": items})
        cancel = await call(api, "POST", f"/payments/{before['correlationId']}/cancel")
        refund = await call(api, "POST", f"/payments/{before['correlationId']}/refunds", json={})
        pop = await call(api, "GET", f"/api/v1/pop/queue/{queue}")
        pushed = await mq.push(queue, 1, 2)
        reads = [(await call(api, "GET", path))[0] for path in (before["statusUrl"], "/payments", "/payments-summary")]
        statuses, said = await health(api)
        waiting = await stored(tenant)
        await switch.off()
        await nothing_waits()
    after = await call(api, "POST", f"/payments/{before['correlationId']}/cancel")

    assert (batch[0], [one["status"] for one in batch[1]["results"]]) == (200, ["queued"] * 3)
    for status, body, headers in (cancel, refund, pop):
        assert (status, headers.get("Retry-After")) == (503, "1"), body
    assert [one["status"] for one in pushed] == ["buffered"] * 2
    assert reads == [200] * 3
    assert (statuses, said) == ([503, 503, 200], "the database is read-only")
    assert waiting == [before["correlationId"]]
    assert await stored(tenant) == [before["correlationId"], *during, *(item["correlationId"] for item in items)]
    assert await mq.data(queue, batch=9) == ["warm", 1, 2]
    assert (after[0], (await health(api))[1]) == (200, "connected")


async def test_stored_payments_are_replayed_while_the_database_is_read_only(api: Api, tenant: Tenant):
    mine = {"correlationId": str(uuid4()), "amount": "7.00"}
    other = {**mine, "amount": "8.00"}
    new = {"correlationId": str(uuid4()), "amount": "9.00"}
    first = await call(api, "POST", "/payments", json=mine)
    async with read_only() as switch:
        fresh = [await call(api, "POST", "/payments", json=one) for one in (new, new)]
        again = await call(api, "POST", "/payments", json=mine)
        conflict = await call(api, "POST", "/payments", json=other)
        _, batch, _ = await call(api, "POST", "/payments/batch", json={"items": [other, mine, new, {"amount": "1.00"}]})
        await switch.off()
        await nothing_waits()

    assert (again[0], again[1], again[2]["Idempotent-Replayed"]) == (202, first[1], "true")
    assert [answer[2].get("Idempotent-Replayed") for answer in fresh] == [None, "true"]
    assert conflict[0] == 409
    assert [one["status"] for one in batch["results"]] == ["conflict", "replayed", "replayed", "queued"]
    assert len(await stored(tenant)) == 3


async def test_a_key_that_is_not_cached_can_read_while_the_database_is_read_only(api: Api, tenant: Tenant):
    assert await in_thread(lambda: ApiKey.objects.get(tenant=tenant).last_used_at) is None

    async with read_only():
        status, _, _ = await call(api, "GET", "/payments")

    assert status == 200


async def test_an_outcome_during_a_read_only_period_is_written_once_writes_are_accepted_again(
    api: Api, quick: None, default: HttpProcessor
):
    """It is not asked for again."""
    default.delays(300)
    async with at_work():
        payment = (await api.pay())["correlationId"]
        await eventually(lambda: default.received)
        async with read_only() as switch:
            await in_thread(cut_all)
            await eventually(lambda: default.booked)
            await eventually(lambda: db_breaker.current().read_only)
            await asyncio.sleep(2 * WRITE_AGAIN)
            during = await api.status(payment)
            await switch.off()
            await api.until(payment, "succeeded")
        detail = await api.detail(payment)

    assert during["status"] == "processing"
    assert (len(detail["attempts"]), default.lookups, default.received) == (1, [], [payment])


# -- A table or a right that is missing, a disk that is full -----------------------------------------------


@asynccontextmanager
async def made_and_undone(make: str, undo: str) -> AsyncIterator[None]:
    await in_thread(execute, make)
    try:
        yield
    finally:
        await in_thread(execute, undo)


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A refusal counts as lasting after a moment."""
    monkeypatch.setattr(refusals, "REPORT_AFTER", 0.2)
    yield
    refusals.set_writable(True)


async def test_while_a_table_is_missing_payments_are_spilled_and_the_statement_is_named(
    api: Api, mq: Mq, tenant: Tenant, soon: None
):
    before, queue = await api.pay(), fresh_name()
    move = "ALTER TABLE {} RENAME TO {}"
    async with made_and_undone(
        move.format("payments_payment", "payments_elsewhere"), move.format("payments_elsewhere", "payments_payment")
    ):
        during = [(await api.pay())["correlationId"] for _ in range(3)]
        status, _, headers = await call(api, "GET", before["statusUrl"])
        listed, _, _ = await call(api, "GET", "/payments")
        pushed = await mq.push(queue, 1)
        statuses, said = await health(api)
        named = 'registry_database_statement_refused{statement="intake.accept"}'
        metric = await eventually(lambda: sample(api, named, 1))
    await nothing_waits()

    assert (status, headers["Retry-After"], listed) == (503, "1", 503)
    assert pushed[0]["status"] == "queued"
    assert statuses == [503, 503, 200]
    assert said.startswith("the database lacks a table, a function or a right: intake.accept is refused")
    assert await stored(tenant) == [before["correlationId"], *during]
    assert metric
    assert await sample(api, named, 0)
    assert (await call(api, "GET", before["statusUrl"]))[0] == 200
    assert (await health(api))[1] == "connected"


async def sample(api: Api, name: str, value: float) -> bool:
    async with api.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return any(line.startswith(name) and float(line.rsplit(" ", 1)[1]) == value for line in lines)


async def test_a_statement_refused_for_long_in_another_process_is_named_by_health(api: Api, soon: None):
    """Workers have no health of their own."""
    with pytest.raises(Exception, match="refuses the statement"):
        await database.fetch("SELEKT", repeatable=False)
    first = (await health(api))[1]
    await asyncio.sleep(refusals.REPORT_AFTER)
    with pytest.raises(Exception, match="refuses the statement"):
        await database.fetch("SELEKT", repeatable=False)

    assert first == "connected"
    assert (await health(api))[1] == "the database refuses the statement: SELEKT is refused"


async def test_a_session_is_checked_again_after_the_table_of_memberships_was_missing(
    server: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_socket, "SESSION_RECHECK", 0.05)
    cookies = {settings.SESSION_COOKIE_NAME: await session_cookie(tenant)}
    async with aiohttp.ClientSession(server, cookies=cookies, headers={"Origin": server}) as browser:
        async with browser.ws_connect("/ws/payments") as socket:
            await socket.send_json({"type": "ping"})
            pong = await socket.receive_json()
            move = "ALTER TABLE {} RENAME TO {}"
            async with made_and_undone(
                move.format("registry_membership", "elsewhere"), move.format("elsewhere", "registry_membership")
            ):
                await asyncio.sleep(5 * live_socket.SESSION_RECHECK)
            await in_thread(Membership.objects.filter(tenant=tenant).delete)
            message = await socket.receive(timeout=5)

    assert pong == {"type": "pong"}
    assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 4401)


async def test_a_page_of_the_admin_reports_an_outage_of_the_database():
    move = "ALTER TABLE {} RENAME TO {}"

    def look() -> Any:
        client = Client()
        client.force_login(make_person())
        execute(move.format("payments_payment", "elsewhere"))
        try:
            return client.get("/admin/payments/payment/")
        finally:
            execute(move.format("elsewhere", "payments_payment"))

    response = await in_thread(look)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert b"The database is unavailable" in response.content


FULL = """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON payments_payment EXECUTE FUNCTION no_room()"""


@pytest.mark.parametrize("page", ["/", "/queues", "/admin/"])
async def test_during_a_known_outage_a_page_does_not_read_the_session(
    server: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, page: str
):
    cookies = {settings.SESSION_COOKIE_NAME: await session_cookie(tenant)}
    monkeypatch.setattr(db_breaker.current(), "away", True)
    async with aiohttp.ClientSession(server, cookies=cookies) as browser, browser.get(page) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_while_its_disk_is_full_payments_are_spilled_and_health_reports_it(api: Api, tenant: Tenant):
    async with made_and_undone(FULL, "DROP FUNCTION no_room CASCADE"):
        during = [(await api.pay())["correlationId"] for _ in range(3)]
        statuses, said = await health(api)
    await nothing_waits()

    assert statuses == [503, 503, 200]
    assert said.startswith("the database has no room on its disk")
    assert await stored(tenant) == during


# -- A lock ------------------------------------------------------------------------------------------------


BUSY = 3.0  # seconds; a machine that does nothing else keeps the limits


def test_the_limits_of_a_slow_statement_leave_time_to_spill_within_a_second():
    assert db_breaker.PATIENCE + intake.SEPARATE_LIMIT + HANDOVER_LIMIT < 1


async def test_during_a_lock_payments_are_spilled_within_a_second_and_other_tables_are_not_affected(
    api: Api, mq: Mq, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("registry.edge.status.CHECK_TIMEOUT", 0.3)  # the checks of other dependencies wait for the lock
    queue = fresh_name()
    await api.pay()
    await mq.push(queue, "warm")
    took: list[float] = []

    async def pay() -> None:
        started = time.monotonic()
        await api.pay()
        took.append(time.monotonic() - started)

    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE payments_payment IN ACCESS EXCLUSIVE MODE")
        first = [asyncio.create_task(pay()) for _ in range(5)]
        await asyncio.sleep(0.2)
        second = [asyncio.create_task(pay()) for _ in range(5)]
        pushed = await mq.push(queue, 1)
        popped = await mq.data(queue)
        await asyncio.gather(*first, *second)
        away = db_breaker.current().away
        _, said = await health(api)
    await nothing_waits()

    assert max(took) < BUSY
    assert (pushed[0]["status"], popped, away) == ("queued", ["warm"], False)
    assert said == "connected"
    assert len(await stored(tenant)) == 11


async def test_a_lock_on_rows_of_one_tenant_delays_no_other(server: str, api: Api, tenant: Tenant):
    neighbour = await in_thread(make_tenant, f"shop-{uuid4().hex[:12]}")
    took: list[float] = []

    async def pay(by: Api) -> str:
        started = time.monotonic()
        paid = await by.pay()
        took.append(time.monotonic() - started)
        return paid["correlationId"]

    async with Api(server, await make_key(neighbour)) as theirs:
        await asyncio.gather(api.pay(), theirs.pay())
        async with database.transaction() as conn:
            await conn.execute("SELECT 1 FROM payments_stream WHERE tenant_id = %s FOR UPDATE", [tenant.pk])
            together = await asyncio.gather(*(pay(by) for _ in range(3) for by in (api, theirs)))
            later = [await pay(theirs) for _ in range(3)]
            during = await stored(neighbour), await stored(tenant)
            mine = [await pay(api), *together[::2]]
        await nothing_waits()

    assert max(took) < BUSY
    assert set(during[0][1:]) == {*together[1::2], *later}
    assert len(during[1]) == 1
    assert set((await stored(tenant))[1:]) == set(mine)


async def test_during_a_lock_on_processors_payments_that_name_one_are_accepted_within_a_second(
    api: Api, tenant: Tenant
):
    await in_thread(make_processor, tenant, "default")
    items = [{"correlationId": str(uuid4()), "amount": "1.00", "processor": "default"} for _ in range(100)]
    await api.pay()  # the key is known, the names of processors are not
    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE payments_processor IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        status, body, _ = await call(api, "POST", "/payments/batch", json={"items": items})
        took = time.monotonic() - started

    assert (status, {one["status"] for one in body["results"]}) == (200, {"queued"})
    assert took < BUSY
