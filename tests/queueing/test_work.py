"""Rows as work: claimed by one, in order, for as long as the lease lasts; whoever lost it changes nothing any more."""

import asyncio
from datetime import timedelta

import pytest

from payments.processors.base import Outcome, Result
from payments.settle import parameters
from payments.settle.decisions import after_send
from payments.settle.work import PAYMENTS, Dispatch
from registry.data import database
from tests.conftest import eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, payment, payments, seed, tries

BOOKED = Outcome(Result.BOOKED, code="http_200")


@pytest.fixture
async def claimers():
    """Eight workers' jobs, as their drains hold them; the number is the worker's, and the lease's."""
    jobs = [Dispatch() for _ in range(8)]
    yield list(enumerate(jobs, start=1))
    for job in jobs:
        await job.close()


@pytest.fixture
async def processor(tenant):
    return await in_thread(make_processor, tenant)


async def claim(job: Dispatch, worker: int, limit: int = 100) -> list:
    return list(await job.claim(worker, limit))


async def lapse() -> None:
    await database.fetch(
        "UPDATE payments_payment SET leased_until = now() - interval '1 ms' WHERE leased_until IS NOT NULL"
    )


# -- Claiming ---------------------------------------------------------------------------------------------------


async def test_no_row_is_claimed_twice_however_many_claim(tenant, processor, claimers):
    await seed(tenant, 600)

    async def until_nothing_is_left(number: int, job: Dispatch) -> list:
        mine = []
        while found := await claim(job, number, 20):
            mine += found
        return mine

    hauls = await asyncio.gather(*(until_nothing_is_left(number, job) for number, job in claimers))

    claimed = [c.payment_id for haul in hauls for c in haul]
    assert len(claimed) == len(set(claimed)) == 600
    owners = {c.payment_id: number for number, haul in enumerate(hauls, start=1) for c in haul}
    assert {row.id: row.lease_id for row in await payments(tenant)} == owners
    [[attempts]] = await database.fetch("SELECT count(*) FROM payments_attempt WHERE tenant_id = %s", [tenant.pk])
    assert attempts == 600


async def test_the_most_urgent_come_first_and_of_these_the_oldest(tenant, processor, claimers):
    await seed(tenant, 20, priority="n %% 2", due="now() - make_interval(secs => n * 60)")
    number, job = claimers[0]

    first = {c.payment_id for c in await claim(job, number, 5)}
    second = {c.payment_id for c in await claim(job, number, 10)}

    order = await database.fetch(
        "SELECT id FROM payments_payment WHERE tenant_id = %s ORDER BY priority DESC, run_at, id", [tenant.pk]
    )
    ids = [one for (one,) in order]
    assert (first, second) == (set(ids[:5]), set(ids[5:15]))


async def test_what_is_not_due_yet_is_left_alone(tenant, processor, claimers):
    await seed(tenant, 5, due="now() + interval '1 second'")
    await seed(tenant, 5)

    number, job = claimers[0]

    assert len(await claim(job, number)) == 5


async def test_a_claim_is_shared_between_tenants_and_keeps_to_their_rooms(tenant, processor, claimers):
    other, full = await in_thread(make_tenant), await in_thread(make_tenant)
    for one in (other, full):
        await in_thread(make_processor, one)
    for one in (tenant, other, full):
        await seed(one, 200)
    number, job = claimers[0]

    job.in_hand.update({full.pk: job.room, other.pk: job.room - 7})

    found = await claim(job, number, 90)

    shares = {one.pk: len([c for c in found if c.tenant_id == one.pk]) for one in (tenant, other, full)}
    assert shares == {tenant.pk: 45, other.pk: 7, full.pk: 0}


async def test_a_claim_that_fails_leaves_its_rows_free(tenant, processor, claimers, monkeypatch):
    await seed(tenant, 10)
    number, job = claimers[0]
    monkeypatch.setattr(parameters, "begins", lambda claims: {})  # the statement lacks its parameters

    with pytest.raises(Exception, match="parameter"):
        await claim(job, number)

    monkeypatch.undo()
    other_number, other = claimers[1]
    assert len(await claim(other, other_number)) == 10


# -- Leases ----------------------------------------------------------------------------------------------------


async def test_a_leased_row_is_nobody_elses_until_its_lease_lapses(tenant, processor, claimers):
    [(one, first), (two, second), *_] = claimers
    await seed(tenant, 3)
    mine = await claim(first, one)

    while_leased = await claim(second, two)
    await lapse()
    afterwards = await claim(second, two)

    assert while_leased == []
    assert {c.payment_id for c in afterwards} == {c.payment_id for c in mine}
    assert {c.requested_at for c in afterwards} == {c.requested_at for c in mine}
    assert {c.number for c in afterwards} == {2}


async def test_a_lease_lasts_as_long_as_the_databases_clock_says(tenant, processor, claimers):
    [(one, first), *_] = claimers
    await seed(tenant, 1)

    await claim(first, one)

    [[left]] = await database.fetch(
        "SELECT leased_until - now() FROM payments_payment WHERE tenant_id = %s", [tenant.pk]
    )
    assert timedelta(seconds=28) < left <= timedelta(seconds=30)


async def test_releasing_a_worker_frees_its_rows_and_no_others(tenant, processor, claimers):
    [(one, first), (two, second), (three, third), *_] = claimers
    await seed(tenant, 6)
    mine = await claim(first, one, 3)
    await claim(second, two, 3)

    await PAYMENTS.release([one])
    await asyncio.sleep(0.002)  # the lease ended a millisecond ago, by the database's clock
    freed = await claim(third, three)

    assert {c.payment_id for c in freed} == {c.payment_id for c in mine}


async def test_a_late_answer_of_a_lost_lease_changes_nothing(tenant, processor, claimers):
    [(one, first), (two, second), *_] = claimers
    [correlation] = await accept(tenant)
    [mine] = await claim(first, one)
    await lapse()
    [theirs] = await claim(second, two)
    before = await payment(tenant, correlation), await tries(correlation)

    [late] = await first.write([after_send(mine, BOOKED, 1)])
    meanwhile = await payment(tenant, correlation), await tries(correlation)
    [right] = await second.write([after_send(theirs, BOOKED, 1)])
    [again] = await first.write([after_send(mine, BOOKED, 1)])

    assert (late, right, again) == (False, True, False)
    assert meanwhile == before
    [[lines]] = await database.fetch("SELECT count(*) FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk])
    assert lines == 3


async def test_an_answer_after_the_lease_lapsed_still_counts_if_nobody_took_over(tenant, processor, claimers):
    [(one, first), *_] = claimers
    [correlation] = await accept(tenant)
    [mine] = await claim(first, one)
    await lapse()

    assert await first.write([after_send(mine, BOOKED, 1)]) == [True]
    assert (await payment(tenant, correlation)).status == "succeeded"


async def test_two_answers_of_the_same_claim_are_one(tenant, processor, claimers):
    """As when a worker hands back what it has just settled."""
    [(one, first), *_] = claimers
    [correlation] = await accept(tenant)
    [mine] = await claim(first, one)

    await asyncio.gather(first.write([after_send(mine, BOOKED, 1)]), first.give_back([mine]))

    [[lines]] = await database.fetch("SELECT count(*) FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk])
    assert (await payment(tenant, correlation)).status in ("succeeded", "uncertain")
    assert lines == (3 if (await payment(tenant, correlation)).status == "succeeded" else 0)


# -- Depth -------------------------------------------------------------------------------------------------------


async def test_depth_tells_what_waits_what_is_held_and_what_is_for_later(tenant, processor, claimers):
    [(one, first), *_] = claimers
    await seed(tenant, 4, due="now() - interval '10 seconds'")
    await seed(tenant, 3, due="now() + interval '1 hour'")
    await claim(first, one, 1)

    depth = await PAYMENTS.depth()

    assert (depth.waiting, depth.leased, depth.scheduled) == (3, 1, 3)
    assert 10 <= depth.oldest < 20


async def test_a_worker_that_is_taken_for_dead_loses_its_leases(tenant, processor, claimers):
    from queueing.models import Worker
    from queueing.work.drain import reap

    [(_, first), (two, second), *_] = claimers
    dead = await Worker.async_objects.acreate(queue="payments", hostname="gone", pid=1)
    await Worker.async_objects.filter(id=dead.id).aupdate(heartbeat_at="2026-01-01T00:00Z")
    await database.release()
    await seed(tenant, 2)
    await claim(first, dead.id)

    await reap()
    await database.release()

    assert len(await eventually(lambda: claim(second, two))) == 2
    assert not await Worker.async_objects.filter(id=dead.id).aexists()
    await database.release()
