"""Processors of kind sandbox: their switches, and bookings as strict as real ones."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from payments.models import SandboxBooking
from payments.processors import sandbox
from payments.processors.base import Account, Order, Result
from payments.processors.sandbox_behaviours import BEHAVIOURS
from registry.data import database
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_processor
from tests.settling import accept, configure, count, payment, payments, tries, until, until_settled


@pytest.fixture
async def cheap(tenant):
    return await in_thread(make_processor, tenant, "cheap", fee="0.01")


@pytest.fixture
async def dear(tenant):
    return await in_thread(make_processor, tenant, "dear", fee="0.10")


async def switch(tenant, name: str, position: str) -> None:
    await configure(tenant, name, **BEHAVIOURS[position].options)


async def booked(processor) -> set:
    sql = "SELECT correlation_id FROM payments_sandboxbooking WHERE processor_id = %s"
    return {one for (one,) in await database.fetch(sql, [processor.pk])}


async def test_the_sandbox_books_payments(tenant, cheap, dear, worker):
    ids = await accept(tenant, 5)
    await until_settled(tenant)

    assert (await booked(cheap), await booked(dear)) == (set(ids), set())
    assert (await in_thread(SandboxBooking.objects.filter(processor_id=cheap.pk).count)) == 5


async def test_failures_move_payments_to_the_other_processor(tenant, cheap, dear, worker):
    await switch(tenant, "cheap", "fail")

    ids = await accept(tenant, 20)
    settled = await until_settled(tenant)

    assert await booked(dear) == set(ids)
    assert {row.processor for row in settled} == {"dear"}
    outcomes = [a.outcome for one in ids for a in await tries(one) if a.processor == "cheap"]
    assert set(outcomes) == {"not_booked"}


async def test_slowness_moves_payments_to_the_quicker_processor(tenant, cheap, dear, worker):
    await switch(tenant, "cheap", "slower")

    [one] = await accept(tenant)
    await until_settled(tenant)

    assert await booked(dear) == {one}
    assert (await tries(one))[0].reason == "cheap needs 2000 ms, dear 0 ms"


async def test_hanging_makes_payments_uncertain_and_a_look_up_settles_them(tenant, cheap, dear, worker, monkeypatch):
    monkeypatch.setattr(sandbox, "ANSWER_TIMEOUT", 0.3)
    await switch(tenant, "cheap", "hang")

    [one] = await accept(tenant)
    await until(tenant, "uncertain")
    [settled] = await until_settled(tenant)

    assert settled.processor == "cheap"
    assert (await booked(cheap), await booked(dear)) == ({one}, set())
    assert [a.code for a in await tries(one)] == ["timeout", "looked_up"]


async def test_a_share_is_declined_permanently_and_the_same_payments_at_every_try(tenant, cheap, worker):
    await configure(tenant, "cheap", decline=0.5)

    await accept(tenant, 60)
    await eventually(lambda: _all_done(tenant))

    for row in await payments(tenant):
        unlucky = row.correlation_id.int % 1000 < 500
        assert row.status == ("failed" if unlucky else "succeeded")
        assert row.attempt == 1
    assert await booked(cheap) == {row.correlation_id for row in await payments(tenant) if row.status == "succeeded"}


async def _all_done(tenant) -> bool:
    return not await count(tenant, "queued", "processing", "uncertain")


async def test_a_payment_that_is_booked_is_not_booked_again(tenant, cheap):
    order = Order(correlation_id=uuid4(), amount=100, currency="BRL", requested_at=datetime.now(UTC))
    account = Account(
        id=cheap.pk,
        tenant_id=tenant.pk,
        name="cheap",
        kind="sandbox",
        url="",
        fee_ppm=0,
        options={},
        enabled=True,
        endpoint="s",
    )

    async with sandbox.SandboxProcessor() as processor:
        unknown = await processor.look_up(order, account)
        outcomes = [await processor.send(order, account), await processor.send(order, account)]
        known = await processor.look_up(order, account)

    assert [(o.result, o.code) for o in outcomes] == [(Result.BOOKED, "http_200"), (Result.BOOKED, "already_booked")]
    assert (unknown.result, known.result) == (Result.NOT_BOOKED, Result.BOOKED)


async def test_a_worker_that_leaves_while_it_hangs_loses_nothing(tenant, cheap, monkeypatch):
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.1)
    await switch(tenant, "cheap", "hang")
    async with at_work():
        [one] = await accept(tenant)
        await eventually(lambda: booked(cheap))
    left = await payment(tenant, one)
    await switch(tenant, "cheap", "work")

    async with at_work():
        [settled] = await until_settled(tenant)

    assert (left.status, left.lease_id, left.code) == ("uncertain", None, "worker_left")
    assert settled.processor == "cheap"
