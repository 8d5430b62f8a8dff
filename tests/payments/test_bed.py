"""The processor of the test bed behaves as contract section 4 says; other tests rely on it."""

import asyncio
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from importlib import import_module
from operator import attrgetter

import aiohttp
import psycopg
import pytest
from django.db import connection

from registry.data import identity
from tests.bed import HttpProcessor, RemoteProcessor
from tests.bed.child.sitecustomize import LIMITS
from tests.bed.running import clean_environment
from tests.bed.template import DATABASE
from tests.depth import DEEP

AT = "2025-07-15T12:34:56.789Z"


@pytest.fixture
async def processor():
    async with HttpProcessor(health_every=0.2) as processor:
        yield processor


@pytest.fixture
async def caller(processor):
    async with aiohttp.ClientSession(processor.url) as session:
        yield session


def order(**changes):
    return {"correlationId": str(uuid.uuid4()), "amount": 19.90, "requestedAt": AT} | changes


async def pay(caller, **changes):
    async with caller.post("/payments", json=order(**changes)) as answer:
        return answer.status


async def test_a_payment_is_booked_once(processor, caller):
    first, second = await pay(caller, correlationId="a"), await pay(caller, correlationId="a")

    assert (first, second) == (200, 422)
    assert processor.booked == {"a": (1990, datetime(2025, 7, 15, 12, 34, 56, 789000, UTC))}
    assert (processor.received, processor.duplicates) == (["a", "a"], 1)


async def test_a_payment_is_booked_although_the_caller_has_hung_up(processor, caller):
    processor.delays(100)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await pay(caller, correlationId="a")
    async with caller.get("/payments/a") as early:
        pass
    await asyncio.sleep(0.15)
    async with caller.get("/payments/a") as late:
        pass

    assert (early.status, late.status) == (404, 200)


async def test_no_response_after_the_booking(processor, caller):
    processor.books_but_never_answers(times=1)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await pay(caller, correlationId="a")

    assert "a" in processor.booked
    assert await pay(caller) == 200


@pytest.mark.parametrize(("trouble", "error"), [
    ("resets_connections", aiohttp.ClientConnectionError),
    ("answers_garbage", aiohttp.ClientError),
])  # fmt: skip
async def test_after_an_invalid_response_a_payment_may_be_booked_or_not(processor, caller, trouble, error):
    getattr(processor, trouble)(times=1)
    with pytest.raises(error):
        await pay(caller, correlationId="booked")
    getattr(processor, trouble)(times=1, books=False)
    with pytest.raises(error):
        await pay(caller, correlationId="not booked")

    assert list(processor.booked) == ["booked"]


async def test_trouble_may_be_limited_to_the_next_calls(processor, caller):
    processor.fails(times=2)

    assert [await pay(caller) for _ in range(3)] == [500, 500, 200]


async def test_a_failing_processor_books_nothing_and_reports_it(processor, caller):
    processor.fails()

    status = await pay(caller)
    async with caller.get("/payments/service-health") as answer:
        health = await answer.json()

    assert (status, processor.booked, health) == (500, {}, {"failing": True, "minResponseTime": 0})


async def test_an_overloaded_processor_sends_retry_after(processor, caller):
    processor.overloads(retry_after=3)

    async with caller.post("/payments", json=order()) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")


async def test_a_flapping_processor_alternates_between_failure_and_success(processor, caller):
    processor.flaps(every=0.1)

    before = await pay(caller)
    await asyncio.sleep(0.12)

    assert (before, await pay(caller)) == (500, 200)


async def test_health_is_returned_to_one_caller_per_period_two_wait_and_the_fourth_is_refused(processor, caller):
    async def ask():
        async with caller.get("/payments/service-health") as answer:
            return answer.status

    started = asyncio.get_running_loop().time()
    statuses = await asyncio.gather(*(ask() for _ in range(4)))

    assert sorted(statuses) == [200, 200, 200, 429]
    assert asyncio.get_running_loop().time() - started >= 0.4
    assert (len(processor.health_calls), processor.health_refused) == (4, 1)


@pytest.mark.parametrize("changes", [
    {"amount": 19.901},
    {"amount": 0},
    {"requestedAt": "2025-07-15T12:34:56Z"},
    {"requestedAt": "2025-07-15T12:34:56.789+00:00"},
    {"more": 1},
])  # fmt: skip
async def test_an_invalid_order_is_refused(processor, caller, changes):
    assert await pay(caller, **changes) == 400
    assert processor.received == []


async def test_the_summary_takes_both_ends_of_its_window(processor, caller):
    at = datetime.fromisoformat(AT)
    await pay(caller, amount=0.29)

    assert processor.books.summary(at, at) == (1, 29)
    assert processor.books.summary(at + timedelta(milliseconds=1)) == (0, 0)
    assert processor.books.summary(None, at - timedelta(milliseconds=1)) == (0, 0)


async def test_a_processor_in_another_process_has_the_same_methods():
    with RemoteProcessor() as processor:
        processor.answers(503, times=1)
        async with aiohttp.ClientSession(processor.url) as caller:
            statuses = [await pay(caller, correlationId="a") for _ in range(2)]

        assert statuses == [503, 200]
        assert (processor.received, processor.booked) == (["a", "a"], {"a": (1990, AT)})
        assert processor.summary(**{"from": AT, "to": AT})["totalRequests"] == 1
        processor.resets()
        assert processor.booked == {}


def test_programs_that_tests_start_have_shorter_limits_of_the_names_that_the_product_knows():
    names = [(module, name) for module, limits in LIMITS.items() for name in limits]
    asked = "from registry.servers import child; print(child.LONGEST_PAUSE)"
    answer = subprocess.run([sys.executable, "-c", asked], env=clean_environment(), capture_output=True, check=True)
    wanted = import_module("registry.servers.child") if DEEP else None

    for module, name in names:
        attrgetter(name)(import_module(module))  # raises AttributeError
    assert float(answer.stdout) == (
        wanted.LONGEST_PAUSE if wanted else LIMITS["registry.servers.child"]["LONGEST_PAUSE"]
    )


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has no other to hear")
def test_processes_of_one_run_have_names_of_their_own_at_valkey():
    """Else each receives the live messages of the others' tenants, which have the same ids."""
    original = {**connection.get_connection_params(), "dbname": DATABASE}
    own = {name: value for name, value in original.items() if name not in ("cursor_factory", "prepare_threshold")}
    with psycopg.connect(**own) as conn:
        [copied_from] = conn.execute("SELECT name FROM registry_identity").fetchone()

    assert identity.name() != copied_from
