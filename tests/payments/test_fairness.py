"""A flood from one tenant, or one tenant's trouble, delays no other."""

import pytest

from payments.processors import sandbox
from registry.data import database
from registry.models import Tenant
from tests.bed import HttpProcessor
from tests.conftest import at_work, eventually
from tests.depth import deep
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, count, seed, until_settled

FLOOD = deep(5_000, 50_000)


async def test_ten_payments_beside_a_flood_of_another_tenant_settle_long_before_its_half(tenant):
    flooding = await in_thread(make_tenant)
    for one in (flooding, tenant):
        await in_thread(make_processor, one)
    await seed(flooding, FLOOD)

    async with at_work():
        await eventually(lambda: _some(flooding))  # the worker is in the middle of it
        await accept(tenant, 10)
        await until_settled(tenant)
        left = FLOOD - await count(flooding, "succeeded")
    await _forget(flooding)

    assert left > FLOOD / 2


async def test_a_flood_is_not_delayed_by_tenants_with_scheduled_payments_only(tenant):
    """Hundreds of tenants with payments for next month have no share of the present."""
    many = [Tenant(slug=f"patient-{n}", name="patient") for n in range(200)]
    for one in await in_thread(Tenant.objects.bulk_create, many):
        await seed(one, 1, due="now() + interval '30 days'")
    await in_thread(make_processor, tenant)
    await seed(tenant, 3000)

    async with at_work():
        await until_count(tenant, 3000, within=15.0)  # one row per claim would take twice that


async def until_count(tenant, number: int, *, within: float) -> None:
    async def reached() -> bool:
        return await count(tenant, "succeeded") == number

    await eventually(reached, within=within)


@pytest.fixture
def endless(monkeypatch) -> dict[str, int]:
    """Options of a processor that answers no payment before its test ends, on however busy a machine."""
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.1)
    monkeypatch.setattr(sandbox, "ANSWER_TIMEOUT", 600.0)
    return {"delay": 300_000}


async def test_a_slow_processor_of_one_tenant_starves_no_other(tenant, endless):
    slow = await in_thread(make_tenant)
    await in_thread(make_processor, slow, options=endless)
    await in_thread(make_processor, tenant)
    await seed(slow, 2000)

    async with at_work() as drain:
        await eventually(lambda: drain.work.in_flight_of[slow.pk] >= 250)
        for _ in range(5):
            await accept(tenant, 20)
            await until_settled(tenant)
        busy = drain.work.in_flight_of[slow.pk]
        await _forget(slow)

    assert busy >= 250


async def test_a_slow_processor_leaves_room_for_its_tenants_other_one(tenant, endless):
    await in_thread(make_processor, tenant, "slow", options=endless)
    await in_thread(make_processor, tenant, "quick")
    await seed(tenant, 1000, wanted="slow")

    async with at_work() as drain:
        await eventually(lambda: drain.work.in_flight_of[tenant.pk] >= 300)
        await accept(tenant, 20, processor="quick")
        await until_count(tenant, 20, within=10.0)
        # What is committed leaves the drain's hands a moment later; none of the others do.
        await eventually(lambda: drain.work.in_flight_of[tenant.pk] <= 300)
        held = drain.work.in_flight_of[tenant.pk]
        await _forget(tenant)

    assert held == 300


async def test_a_dead_processor_of_one_tenant_does_not_delay_another(tenant):
    unlucky = await in_thread(make_tenant)
    async with HttpProcessor() as dead:
        dead.answers(500)
        await in_thread(make_processor, unlucky, "dead", kind="http", url=dead.url)
        await in_thread(make_processor, tenant)
        await seed(unlucky, 2000)

        async with at_work():
            await eventually(lambda: len(dead.received) >= 5)
            await accept(tenant, 100)
            await until_settled(tenant, within=3.0)
            lost = await count(unlucky, "failed", "uncertain")

    assert lost == 0


async def test_a_backlog_for_a_processor_that_is_switched_off_lets_other_payments_of_its_tenant_pass(tenant):
    await in_thread(make_processor, tenant, "off", enabled=False)
    await in_thread(make_processor, tenant, "on")
    await seed(tenant, 6000, wanted="off", due="now() - interval '1 hour'")

    async with at_work():
        await accept(tenant, 5)
        await until_count(tenant, 5, within=4.0)


async def test_more_urgent_payments_of_a_tenant_are_sent_first(tenant):
    await in_thread(make_processor, tenant, options={"delay": 30})
    await seed(tenant, 300, priority="n %% 10")

    async with at_work(capacity=10):
        await eventually(lambda: _some(tenant, 60))
        order = await database.fetch(
            "SELECT p.priority FROM payments_attempt a JOIN payments_payment p ON p.id = a.payment_id "
            "WHERE a.tenant_id = %s ORDER BY a.started_at, p.priority DESC LIMIT 50",
            [tenant.pk],
        )

    assert [row[0] for row in order] == sorted((row[0] for row in order), reverse=True)
    assert {row[0] for row in order[:30]} == {9}


async def _some(tenant, number: int = 1) -> bool:
    return await count(tenant, "succeeded") >= number


async def _forget(tenant) -> None:
    await database.fetch("DELETE FROM payments_payment WHERE tenant_id = %s", [tenant.pk])
