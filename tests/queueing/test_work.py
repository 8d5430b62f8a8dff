"""Work: claims in order and for one worker only, leases, the fence of attempts, and depth."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from psycopg import AsyncConnection

from payments.processors.base import Outcome, Result
from payments.settle import parameters
from payments.settle.decisions import after_send
from payments.settle.work import PAYMENTS, PaymentWork
from queueing.work import shares
from queueing.work.drain import run_until_idle
from registry.data import database
from tests.conftest import eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, payment, payments, seed, tries

BOOKED = Outcome(Result.BOOKED, code="http_200")


@pytest.fixture
async def claimers():
    """Eight workers: (worker id, work)."""
    jobs = [PaymentWork() for _ in range(8)]
    yield list(enumerate(jobs, start=1))
    for work in jobs:
        await work.close()


@pytest.fixture
async def processor(tenant):
    return await in_thread(make_processor, tenant)


async def claim(work: PaymentWork, worker: int, limit: int = 100) -> list:
    return list(await work.claim(worker, limit))


async def lapse() -> None:
    await database.fetch(
        "UPDATE payments_payment SET leased_until = now() - interval '1 ms' WHERE leased_until IS NOT NULL"
    )


# -- Claiming ---------------------------------------------------------------------------------------------------


async def test_no_row_is_claimed_twice_however_many_claim(tenant, processor, claimers):
    await seed(tenant, 600)

    async def until_nothing_is_left(number: int, work: PaymentWork) -> list:
        mine = []
        while found := await claim(work, number, 20):
            mine += found
        return mine

    hauls = await asyncio.gather(*(until_nothing_is_left(number, work) for number, work in claimers))

    claimed = [c.payment_id for haul in hauls for c in haul]
    assert len(claimed) == len(set(claimed)) == 600
    owners = {c.payment_id: number for number, haul in enumerate(hauls, start=1) for c in haul}
    assert {row.id: row.lease_id for row in await payments(tenant)} == owners
    [[attempts]] = await database.fetch("SELECT count(*) FROM payments_attempt WHERE tenant_id = %s", [tenant.pk])
    assert attempts == 600


async def test_rows_are_claimed_by_priority_and_then_by_age(tenant, processor, claimers):
    await seed(tenant, 20, priority="n %% 2", due="now() - make_interval(secs => n * 60)")
    number, work = claimers[0]

    first = {c.payment_id for c in await claim(work, number, 5)}
    second = {c.payment_id for c in await claim(work, number, 10)}

    order = await database.fetch(
        "SELECT id FROM payments_payment WHERE tenant_id = %s ORDER BY priority DESC, run_at, id", [tenant.pk]
    )
    ids = [one for (one,) in order]
    assert (first, second) == (set(ids[:5]), set(ids[5:15]))


async def test_rows_that_are_not_due_are_not_claimed(tenant, processor, claimers):
    await seed(tenant, 5, due="now() + interval '1 second'")
    await seed(tenant, 5)

    number, work = claimers[0]

    assert len(await claim(work, number)) == 5


async def test_a_claim_is_shared_between_tenants_and_respects_their_limits(tenant, processor, claimers):
    other, full = await in_thread(make_tenant), await in_thread(make_tenant)
    for one in (other, full):
        await in_thread(make_processor, one)
    for one in (tenant, other, full):
        await seed(one, 200)
    number, work = claimers[0]

    work.in_flight_of.update({full.pk: work.share_limit, other.pk: work.share_limit - 7})

    found = await claim(work, number, 90)

    shares = {one.pk: len([c for c in found if c.tenant_id == one.pk]) for one in (tenant, other, full)}
    assert shares == {tenant.pk: 45, other.pk: 7, full.pk: 0}


async def test_a_claim_is_never_larger_than_its_limit(tenant, processor, claimers):
    others = [await in_thread(make_tenant) for _ in range(2)]
    for one in others:
        await in_thread(make_processor, one)
    for one in (tenant, *others):
        await seed(one, 100)
    number, work = claimers[0]

    found = await claim(work, number, 100)

    shares = sorted(len([c for c in found if c.tenant_id == one.pk]) for one in (tenant, *others))
    assert shares == [33, 33, 34]


async def test_tenants_take_turns_when_a_claim_is_too_small_for_all(tenant, processor, claimers):
    others = [await in_thread(make_tenant) for _ in range(3)]
    for one in others:
        await in_thread(make_processor, one)
    for one in (tenant, *others):
        await seed(one, 10)
    number, work = claimers[0]

    found = await claim(work, number, 2) + await claim(work, number, 2)

    assert {c.tenant_id for c in found} == {one.pk for one in (tenant, *others)}


async def test_a_backlog_is_claimed_without_reading_the_tenants_with_due_rows_again(
    tenant, processor, claimers, monkeypatch
):
    await seed(tenant, 30)
    number, work = claimers[0]
    looks, real = [], work.due

    async def due(conn: AsyncConnection) -> list[int]:
        looks.append(1)
        return await real(conn)

    monkeypatch.setattr(work, "due", due)
    monkeypatch.setattr(shares, "FRESH", 60.0)

    taken = [len(await claim(work, number, 10)) for _ in range(5)]

    assert (taken, len(looks)) == ([10, 10, 10, 0, 0], 2)


async def test_once_cached_tenants_have_no_due_rows_the_others_are_read_at_once(
    tenant, processor, claimers, monkeypatch
):
    monkeypatch.setattr(shares, "FRESH", 60.0)
    other = await in_thread(make_tenant)
    await in_thread(make_processor, other)
    await seed(tenant, 5)
    number, work = claimers[0]
    woken = asyncio.Event()
    work.wake = woken.set
    await claim(work, number, 5)
    await seed(other, 5)

    remembered = await claim(work, number, 5)
    was_woken = woken.is_set()
    anew = await claim(work, number, 5)

    assert (remembered, was_woken) == ([], True)
    assert {c.tenant_id for c in anew} == {other.pk}


async def test_a_hint_soon_invalidates_the_cached_tenants(tenant, processor, claimers, monkeypatch):
    monkeypatch.setattr(shares, "FRESH", 60.0)
    monkeypatch.setattr(shares, "LEAST", 0.0)
    other = await in_thread(make_tenant)
    await in_thread(make_processor, other)
    await seed(tenant, 20)
    number, work = claimers[0]
    await claim(work, number, 5)
    await seed(other, 5)

    before = await claim(work, number, 4)
    work.shares.hint()
    after = await claim(work, number, 4)

    assert {c.tenant_id for c in before} == {tenant.pk}
    assert {c.tenant_id for c in after} == {tenant.pk, other.pk}


async def test_frequent_hints_do_not_make_each_claim_read_the_tenants(tenant, processor, claimers, monkeypatch):
    monkeypatch.setattr(shares, "LEAST", 60.0)
    await seed(tenant, 30)
    number, work = claimers[0]
    looks, real = [], work.due

    async def due(conn: AsyncConnection) -> list[int]:
        looks.append(1)
        return await real(conn)

    monkeypatch.setattr(work, "due", due)
    for _ in range(3):
        work.shares.hint()
        await claim(work, number, 10)

    assert len(looks) == 1


async def test_run_until_idle_does_all_due_rows_and_waits_for_nothing(tenant, processor, claimers):
    await seed(tenant, 30)
    await seed(tenant, 3, due="now() + interval '1 hour'")
    _, work = claimers[0]

    done = await run_until_idle(work, limit=10)

    assert done == [True] * 30
    assert sorted(row.status for row in await payments(tenant)) == ["queued"] * 3 + ["succeeded"] * 30
    assert (work.in_flight, work.in_flight_of) == (0, Counter())


async def test_a_claim_that_fails_leaves_its_rows_free(tenant, processor, claimers, monkeypatch):
    await seed(tenant, 10)
    number, work = claimers[0]
    monkeypatch.setattr(parameters, "begins", lambda claims: {})  # the statement lacks its parameters

    with pytest.raises(Exception, match="parameter"):
        await claim(work, number)

    monkeypatch.undo()
    other_number, other = claimers[1]
    assert len(await claim(other, other_number)) == 10


# -- Leases ----------------------------------------------------------------------------------------------------


async def test_rows_are_claimed_although_their_live_messages_fail(tenant, processor, claimers, monkeypatch):
    await seed(tenant, 3)
    number, work = claimers[0]

    def fails(items: list, rows: list) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(work, "after_begin", fails)

    assert len(await claim(work, number)) == work.in_flight == 3


async def test_a_leased_row_is_not_claimed_until_its_lease_expires(tenant, processor, claimers):
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


async def test_leases_are_measured_by_the_clock_of_the_database(tenant, processor, claimers):
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


async def test_an_outcome_under_a_lost_lease_is_refused(tenant, processor, claimers):
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


async def test_an_outcome_after_the_lease_expired_is_stored_if_no_worker_claimed_the_row_again(
    tenant, processor, claimers
):
    [(one, first), *_] = claimers
    [correlation] = await accept(tenant)
    [mine] = await claim(first, one)
    await lapse()

    assert await first.write([after_send(mine, BOOKED, 1)]) == [True]
    assert (await payment(tenant, correlation)).status == "succeeded"


async def test_two_outcomes_of_one_claim_are_stored_once(tenant, processor, claimers):
    """As when a worker gives back a row that it has just settled."""
    [(one, first), *_] = claimers
    [correlation] = await accept(tenant)
    [mine] = await claim(first, one)

    await asyncio.gather(first.write([after_send(mine, BOOKED, 1)]), first.give_back([mine]))

    [[lines]] = await database.fetch("SELECT count(*) FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk])
    assert (await payment(tenant, correlation)).status in ("succeeded", "uncertain")
    assert lines == (3 if (await payment(tenant, correlation)).status == "succeeded" else 0)


# -- Depth -------------------------------------------------------------------------------------------------------


async def test_depth_counts_due_leased_and_scheduled_rows(tenant, processor, claimers):
    [(one, first), *_] = claimers
    await seed(tenant, 4, due="now() - interval '10 seconds'")
    await seed(tenant, 3, due="now() + interval '1 hour'")
    await claim(first, one, 1)

    depth = await PAYMENTS.depth()

    assert (depth.waiting, depth.leased, depth.scheduled) == (3, 1, 3)
    assert 10 <= depth.oldest < 20


async def test_a_worker_declared_dead_loses_its_leases(tenant, processor, claimers):
    from queueing.models import Worker
    from queueing.work.heartbeats import reap

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
