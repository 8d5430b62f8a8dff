"""Inline refunds: by switch and by tenant; after every failure left to the workers."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from payments.api import prefer
from payments.processors import sandbox as sandbox_kind
from payments.refunds import inline as refunds_inline
from registry.data import database
from registry.models import Flag
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_processor
from tests.payments.refunding import ask, booked, given_back, pay_back, paying_back, refunds_of, sums, until_all
from tests.settling import configure, hasten_caches


@pytest.fixture(autouse=True)
async def _own_inline() -> AsyncIterator[None]:
    yield
    await refunds_inline.loops.close()


@pytest.fixture
async def payment(tenant) -> UUID:
    """A payment of 10.00 that has succeeded, of a tenant whose refunds are inline."""
    await in_thread(make_processor, tenant, "sandbox", fee="0.05")

    def switch() -> None:
        flag, _ = Flag.objects.update_or_create(name="inline.refund", defaults={"everyone": None})
        flag.tenants.set([tenant])

    await in_thread(switch)
    [one] = await booked(tenant)
    return one


async def test_an_inline_refund_is_answered_returned_and_needs_no_worker(api: Api, payment):
    status, said, _ = await ask(api, payment)

    assert (status, said["status"]) == (200, "returned")
    assert (await given_back(payment), await sums(payment)) == ([1000], (1000, 1000))


async def test_a_caller_that_prefers_not_to_wait_does_not_wait(api: Api, payment):
    status, said, _ = await ask(api, payment, Prefer="respond-async")

    assert (status, said["status"]) == (202, "owed")
    await until_all(payment, "returned")


async def test_without_the_switch_refunds_are_left_to_workers(api: Api, tenant, payment, monkeypatch):
    hasten_caches(monkeypatch)
    await in_thread(lambda: Flag.objects.get(name="inline.refund").tenants.clear())
    await eventually(lambda: _is_off(api, payment))


async def _is_off(api: Api, payment: UUID) -> bool:
    """A switch works within a second for a key in use."""
    status, said, _ = await ask(api, payment, {"amount": "0.01"})
    return (status, said["status"]) == (202, "owed")


async def test_a_hanging_refund_gets_a_response_in_time_and_is_settled_by_a_worker(
    api: Api, tenant, payment, monkeypatch
):
    monkeypatch.setattr(sandbox_kind, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(prefer, "LONGEST_WAIT", 0.1)
    await configure(tenant, "sandbox", refundHang=True)

    status, said, _ = await ask(api, payment, Prefer="wait=1")
    await pay_back(payment, "returned")

    assert (status, said["status"]) == (202, "owed")
    assert await given_back(payment) == [1000]


async def test_a_process_that_ends_gives_back_its_refunds(api: Api, tenant, payment, monkeypatch):
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.1)
    await configure(tenant, "sandbox", refundHang=True)
    await ask(api, payment, Prefer="respond-async")
    await eventually(lambda: given_back(payment))

    await refunds_inline.loops.close()

    [left] = await refunds_of(payment)
    assert (left.status, left.code) == ("uncertain", "worker_left")
    assert (await database.fetch("SELECT lease_id FROM payments_refund"))[0] == (None,)


async def test_beside_a_worker_each_refund_is_returned_once(api: Api, payment):
    async with paying_back():
        answers = await asyncio.gather(*(ask(api, payment, {"amount": "0.50"}) for _ in range(20)))

    assert {(status, said["status"]) for status, said, _ in answers} == {(200, "returned")}
    assert await given_back(payment) == [50] * 20
    assert await sums(payment) == (1000, 1000)
