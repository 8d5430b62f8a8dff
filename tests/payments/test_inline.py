"""Inline payments: by switch, by tenant, and while no worker is alive; booked once, whatever fails."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from payments.settle import inline, work
from queueing import spill
from queueing.models import Worker
from queueing.work import inline as inlining
from queueing.work.inline import Result
from registry.data import database
from registry.edge import status
from registry.models import Flag, Tenant
from registry.servers.plan import APPLICATION
from tests.conftest import Api, at_work, eventually, make_key
from tests.factories import in_thread, make_tenant
from tests.settling import accept, payments, settle_all, tries, until_settled

PROJECT = Path(__file__).resolve().parents[2]
AT_ONCE = 0.9  # seconds: far below the wait of an inline payment


@pytest.fixture(autouse=True)
async def _own_inline() -> AsyncIterator[None]:
    yield
    await inline.loops.close()


def switch(operation: str, *tenants: Tenant, everyone: bool | None = None) -> None:
    flag, _ = Flag.objects.update_or_create(name=f"inline.{operation}", defaults={"everyone": everyone})
    flag.tenants.set(tenants)


@pytest.fixture
async def inlined(tenant: Tenant) -> Tenant:
    """The tenant, with its payments inline."""
    await in_thread(switch, "payment", tenant)
    return tenant


async def pay(api: Api, **headers: str) -> tuple[int, dict[str, Any], str | None]:
    """A payment's answer: status, body, and which preference was applied."""
    body = {"correlationId": str(uuid4()), "amount": "19.90"}
    async with api.post("/payments", json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers.get("Preference-Applied")


# -- Switched ---------------------------------------------------------------------------------------------------


async def test_an_inline_payment_is_answered_settled_and_needs_no_worker(inlined, default, api):
    code, body, applied = await pay(api)

    assert (code, body["status"], body["processor"], applied) == (200, "succeeded", "default", "wait=5")
    assert default.received == [body["correlationId"]]


async def test_a_queued_payment_waits_for_a_worker(tenant, default, api):
    code, body, applied = await pay(api)

    assert (code, body["status"], applied) == (202, "queued", None)
    assert default.received == []


async def test_the_switch_is_per_tenant(inlined, default, stranger):
    code, _, _ = await pay(stranger)

    assert code == 202


async def test_the_switch_is_per_operation(tenant, default, api):
    await in_thread(switch, "refund", tenant)

    code, _, _ = await pay(api)

    assert code == 202


@pytest.mark.parametrize(("everyone", "expected"), [(True, 200), (False, 202)])
async def test_a_switch_for_everyone_overrides_that_of_a_tenant(tenant, default, api, everyone, expected):
    named = [] if everyone else [tenant]
    await in_thread(switch, "payment", *named, everyone=everyone)

    code, _, _ = await pay(api)

    assert code == expected


async def test_a_switch_works_within_a_second_for_a_key_in_use(tenant, default, api):
    await pay(api)
    await in_thread(switch, "payment", tenant)
    switched = time.monotonic()

    async def is_inline() -> bool:
        return (await pay(api))[0] == 200

    await eventually(is_inline)

    assert time.monotonic() - switched < 1.5  # the second, and the answer of a busy machine


async def test_a_caller_that_prefers_not_to_wait_gets_a_response_at_once_and_the_payment_settles_inline(
    inlined, default, api
):
    code, body, applied = await pay(api, Prefer="respond-async")

    assert (code, body["status"], applied) == (202, "queued", "respond-async")
    await api.until(body["correlationId"], "succeeded")


async def test_the_response_says_which_longer_wait_was_applied(inlined, default, api):
    _, _, applied = await pay(api, Prefer="wait=9")

    assert applied == "wait=9"


async def test_a_scheduled_payment_is_left_to_workers(inlined, default, api):
    accepted = await api.pay(scheduledFor="2027-01-01T00:00:00Z")

    assert accepted["status"] == "queued"


async def test_a_repeated_payment_returns_the_settled_one(inlined, default, api):
    body = {"correlationId": str(uuid4()), "amount": "19.90"}
    answers = []

    for _ in range(2):
        async with api.post("/payments", json=body) as response:
            answers.append((response.status, (await response.json())["status"]))

    assert answers == [(200, "succeeded")] * 2
    assert default.received == [body["correlationId"]]


@pytest.mark.parametrize("takes", [["payments"], ["payments/default"]])
async def test_a_payment_that_a_pool_takes_is_left_to_its_workers(inlined, default, api, takes):
    await Worker.async_objects.acreate(queue="payments", hostname="elsewhere", pid=1, pool="cheap", takes=takes)

    code, body, _ = await pay(api, Prefer="wait=1")

    assert (code, body["status"]) == (202, "queued")
    assert default.received == []


async def test_a_payment_that_pools_leave_is_inline(inlined, default, api):
    await Worker.async_objects.acreate(
        queue="payments", hostname="elsewhere", pid=1, pool="dear", takes=["payments/fallback", "jobs"]
    )

    code, body, _ = await pay(api)

    assert (code, body["status"]) == (200, "succeeded")
    assert default.received == [body["correlationId"]]


# -- Where it cannot ---------------------------------------------------------------------------------------------


async def test_without_a_processor_an_inline_payment_stays_queued_and_the_caller_does_not_wait(inlined, api):
    began = time.monotonic()

    code, body, applied = await pay(api)

    assert (code, body["status"], applied) == (202, "queued", "respond-async")
    assert time.monotonic() - began < AT_ONCE


async def test_payments_beyond_the_inline_limit_stay_queued_for_workers(inlined, default, api, monkeypatch):
    monkeypatch.setattr(inline.loops.get(), "limit", 1)
    default.delays(200)

    answers = await asyncio.gather(*(pay(api) for _ in range(6)))

    codes = [code for code, _, _ in answers]
    assert 202 in codes
    await settle_all(inlined)
    assert sorted(default.booked) == sorted(body["correlationId"] for _, body, _ in answers)
    assert default.duplicates == 0


async def test_a_worker_retries_a_refused_inline_payment_and_the_caller_gets_the_result(inlined, default, worker, api):
    default.fails(times=1)

    code, body, _ = await pay(api)

    assert (code, body["status"], len(body["attempts"])) == (200, "succeeded", 2)


async def test_a_processor_slower_than_the_wait_is_answered_202_and_booked_once(inlined, default, api, monkeypatch):
    monkeypatch.setattr(inline, "WAIT", 0.1)
    default.delays(250)

    code, body, applied = await pay(api)

    assert (code, applied) == (202, "respond-async")
    await api.until(body["correlationId"], "succeeded")
    assert default.received == [body["correlationId"]]


async def test_while_the_database_is_slow_an_inline_payment_stays_queued(inlined, default, api, monkeypatch):
    monkeypatch.setattr(inline, "WAIT", 0.1)
    monkeypatch.setattr(work, "BY_ID", f"WITH slow AS MATERIALIZED (SELECT pg_sleep(0.4)) {work.BY_ID}, slow")

    code, body, _ = await pay(api)

    assert (code, body["status"]) == (202, "queued")
    await api.until(body["correlationId"], "succeeded")


async def test_a_spilled_payment_is_not_settled_inline(inlined, default, api, settings, tmp_path, monkeypatch):
    await spill.loops.close()
    settings.SPILL_FOLDER = tmp_path
    monkeypatch.setattr("payments.intake.intake.spill.blocked", _not_yours)

    code, _, applied = await pay(api)

    assert (code, applied) == (202, None)
    await spill.loops.close()


async def _not_yours(kind: str, tenants: set[int]) -> set[int]:
    return tenants


async def test_a_stopped_process_finishes_payments_that_it_is_sending(inlined, default, api):
    default.delays(300)
    answer = asyncio.create_task(pay(api))
    await eventually(lambda: default.received)

    await inline.loops.close()

    assert (await answer)[0] == 200


# -- Exactly once --------------------------------------------------------------------------------------------------


async def test_a_worker_and_the_web_process_after_the_same_payments_book_each_once(inlined, default, worker, api):
    answers = await asyncio.gather(*(pay(api) for _ in range(60)))

    assert {(code, body["status"]) for code, body, _ in answers} == {(200, "succeeded")}
    assert sorted(default.received) == sorted(body["correlationId"] for _, body, _ in answers)


async def test_a_payment_that_a_worker_has_leased_is_not_sent_inline(inlined, default, worker):
    default.delays(200)
    [payment] = await accept(inlined)
    await eventually(lambda: default.received)

    came = await inline.send(inlined.pk, payment)

    assert came is Result.ELSEWHERE
    await until_settled(inlined)
    assert len(await tries(payment)) == 1


async def test_a_row_that_is_being_claimed_is_not_waited_for(inlined, default):
    [payment] = await accept(inlined)

    async with database.transaction() as claiming:
        await database.rows(claiming, "SELECT FROM payments_payment WHERE correlation_id = %s FOR UPDATE", [payment])
        async with asyncio.timeout(AT_ONCE):
            came = await inline.send(inlined.pk, payment)

    assert came is Result.ELSEWHERE
    assert default.received == []


async def test_two_inline_requests_for_one_payment_send_it_once(inlined, default):
    [payment] = await accept(inlined)

    came = await asyncio.gather(*(inline.send(inlined.pk, payment) for _ in range(20)))

    assert set(came) == {Result.SETTLED}
    assert default.received == [str(payment)]


@pytest.fixture
async def web() -> AsyncIterator[Any]:
    """Starts a web process of its own on the test's database; killed after the test."""
    started: list[asyncio.subprocess.Process] = []

    async def start() -> tuple[str, asyncio.subprocess.Process]:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        handle = listener.fileno()
        facts = connection.settings_dict
        url = (
            f"postgres://{facts['USER']}:{facts.get('PASSWORD') or ''}@{facts['HOST']}:{facts['PORT']}/{facts['NAME']}"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "registry.servers.serve", str(handle), APPLICATION),
            cwd=PROJECT,
            env={**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "WARNING"},
            pass_fds=[handle],
        )
        started.append(process)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        return address, process

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def test_a_web_process_killed_while_it_sends_leaves_a_payment_that_is_booked_once(inlined, default, key, web):
    default.books_but_never_answers()  # it is still sending when it is killed
    address, process = await web()
    async with Api(address, key) as api:
        answer = asyncio.create_task(pay(api))
        await eventually(lambda: default.booked, within=20)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.gather(answer, return_exceptions=True)
    [left] = await payments(inlined)
    default.recovers()

    await database.fetch("UPDATE payments_payment SET leased_until = now() WHERE tenant_id = %s", [inlined.pk])
    [row] = await settle_all(inlined)

    assert left.status == "processing"
    assert list(default.booked) == [str(row.correlation_id)]
    assert default.duplicates <= 1  # the worker's question after the booking, of the same id and time
    assert {one.requested_at for one in await tries(row.correlation_id)} == {row.requested_at}


# -- In the workers' place ---------------------------------------------------------------------------------------


@pytest.fixture
async def watching(monkeypatch) -> None:
    """This process watches the workers, with short limits."""
    monkeypatch.setattr(inlining, "WATCH_EVERY", 0.05)
    monkeypatch.setattr(inlining, "STRANDED_AFTER", 0.2)
    await inline.start()


async def test_without_a_worker_the_web_process_sends_what_is_queued(tenant, default, api, watching):
    code, body, _ = await pay(api)

    assert (code, body["status"]) == (202, "queued")
    await api.until(body["correlationId"], "succeeded")


async def test_without_workers_queued_and_failed_payments_are_sent_too(tenant, default, watching):
    default.fails(times=1)
    await accept(tenant, 3)

    await until_settled(tenant)

    assert sorted(default.booked) == sorted(str(row.correlation_id) for row in await payments(tenant))


async def test_a_web_process_stops_draining_once_a_worker_is_back(tenant, default, watching):
    await eventually(lambda: inline.standing_in())

    async with at_work():
        await eventually(lambda: not inline.standing_in())


async def test_a_process_that_does_not_watch_the_workers_never_replaces_them(tenant, default, api):
    _, body, _ = await pay(api)

    assert not inline.standing_in()
    assert (await api.status(body["correlationId"]))["status"] == "queued"


async def test_a_web_process_in_place_of_workers_is_registered_and_not_counted_as_a_worker(tenant, watching):
    async def beats() -> bool:
        return await Worker.async_objects.filter(queue=inline.NAME).aexists()

    await eventually(beats)

    with pytest.raises(RuntimeError, match="no worker is alive"):
        await status.checks["workers"]()


async def test_the_switch_of_one_tenant_does_not_apply_to_another(inlined, default, server):
    other = await in_thread(make_tenant, f"third-{uuid4().hex[:8]}")
    async with Api(server, await make_key(other)) as api:
        code, _, _ = await pay(api)

    assert code == 202
