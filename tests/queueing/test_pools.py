"""Pools of workers: the work that each takes, and leaves to others while those live."""

import pytest

from payments.settle.work import PaymentWork
from queueing.jobs.work import JobWork
from queueing.models import Worker
from queueing.work.pools import Division, InvalidPool, division, read
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, at_work, eventually
from tests.queueing.test_jobs import submit
from tests.settling import accept, payments


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("heavy", "wants NAME=KINDS:MIN-MAX"),
        ("heavy=jobs:2", "wants NAME=KINDS:MIN-MAX"),
        ("Heavy=jobs:1-2", "wants NAME=KINDS:MIN-MAX"),
        ("heavy=letters:1-2", "'letters' is no kind of work"),
        ("heavy=webhooks/x:1-2", "'webhooks/x' is no kind of work"),
        ("heavy=jobs/:1-2", "'jobs/' is no kind of work"),
        ("heavy=jobs:3-2", "wants MIN from 0 to MAX"),
        ("heavy=jobs:0-0", "wants MIN from 0 to MAX"),
    ],
)
def test_a_text_that_describes_no_pool_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(InvalidPool, match=fault):
        read([text])


def test_each_pool_and_each_kind_of_work_stands_once() -> None:
    with pytest.raises(InvalidPool, match="'a' stands twice"):
        read(["a=jobs:1-1", "a=webhooks:1-1"])
    with pytest.raises(InvalidPool, match="'jobs' stands twice"):
        read(["a=jobs:1-1", "b=jobs:1-1"])


def test_a_pool_has_a_name_kinds_and_limits() -> None:
    [pool] = read(["heavy=jobs/payments.export,webhooks:0-3"])

    assert (pool.name, pool.takes) == ("heavy", ("jobs/payments.export", "webhooks"))
    assert (pool.minimum, pool.maximum) == (0, 3)


LIVING = [("", []), ("heavy", ["jobs/export"]), ("hooks", ["webhooks"]), ("all-jobs", ["jobs"])]


@pytest.mark.parametrize(
    ("pool", "takes", "taken"),
    [
        ("", (), {"payments"}),
        ("heavy", ("jobs/export",), {"jobs/export"}),
        ("hooks", ("webhooks",), {"webhooks"}),
        ("all-jobs", ("jobs",), {"jobs/report"}),
    ],
)
def test_every_part_of_the_work_is_taken_by_one_pool(pool: str, takes: tuple[str, ...], taken: set[str]) -> None:
    mine = division(pool, takes, LIVING)
    parts = {one for one in ("jobs/export", "jobs/report") if mine.takes_part(*one.split("/"))}
    wholes = {queue for queue in ("payments", "webhooks") if mine.takes_some(queue)}

    assert parts | wholes == taken


def test_workers_of_no_pool_take_everything_while_no_pool_lives() -> None:
    alone = division("", (), [("", [])])

    assert alone == Division()
    assert alone.takes_some("webhooks") and alone.takes_part("jobs", "export")


async def test_jobs_of_a_kind_with_a_pool_are_left_to_its_workers(api: Api) -> None:
    mine, other = await submit(api), await submit(api, kind="test.secret")
    pool, rest = JobWork(), JobWork()
    pool.division = Division(frozenset({"jobs/test.secret"}))
    rest.division = Division(reserved=frozenset({"jobs/test.secret"}))

    async with database.own_connection():
        claimed = [str(claim.uuid) for claim in await rest.claim(1, 10)], [str(c.uuid) for c in await pool.claim(2, 10)]

    assert claimed == ([mine["id"]], [other["id"]])


async def test_payments_that_routing_would_send_to_a_processor_are_left_to_its_pool(
    tenant: Tenant, default, fallback
) -> None:
    free, wished = await accept(tenant, 2), await accept(tenant, 1, processor="fallback")
    pool, rest = PaymentWork(), PaymentWork()
    pool.division = Division(frozenset({"payments/default"}))
    rest.division = Division(reserved=frozenset({"payments/default"}))

    async with database.own_connection():
        for_rest = [claim.correlation_id for claim in await rest.claim(1, 10)]
        for_pool = [claim.correlation_id for claim in await pool.claim(2, 10)]

    assert (for_rest, sorted(for_pool)) == (wished, sorted(free))


async def test_a_payment_in_doubt_is_its_processor_s_pool_s(tenant: Tenant, default, fallback) -> None:
    [payment] = await accept(tenant, 1)
    first, rest, pool = PaymentWork(), PaymentWork(), PaymentWork()
    rest.division = Division(reserved=frozenset({"payments/default"}))
    pool.division = Division(frozenset({"payments/default"}))
    async with database.own_connection():
        await first.claim(1, 10)
        await database.fetch("UPDATE payments_payment SET leased_until = now() - interval '1 second'")
        claimed = len(await rest.claim(2, 10)), [claim.correlation_id for claim in await pool.claim(3, 10)]

    assert claimed == (0, [payment])


async def test_a_payment_in_doubt_is_its_processor_s_pool_s_though_nothing_can_be_sent(
    tenant: Tenant, default, fallback
) -> None:
    [payment] = await accept(tenant, 1)
    first, rest, pool = PaymentWork(), PaymentWork(), PaymentWork()
    rest.division = Division(reserved=frozenset({"payments/default"}))
    pool.division = Division(frozenset({"payments/default"}))
    async with database.own_connection():
        [claim] = await first.claim(1, 10)
        await first.give_back([claim])
        taken = []
        for work in (rest, pool):
            await work.routes.load({tenant.pk})
            work._narrow = {tenant.pk: 0}
            async with database.transaction() as conn:
                taken.append([one.correlation_id for one in await work.claim_first(conn, 10)])

    assert taken == [[], [payment]]


async def test_workers_of_no_pool_do_its_work_again_once_its_last_worker_is_gone(tenant: Tenant, default) -> None:
    await Worker.async_objects.acreate(queue="payments", hostname="h", pid=1, pool="own", takes=["payments"])
    await database.release()
    async with at_work() as drain:
        await eventually(lambda: drain.work.division.reserved == {"payments"})
        await accept(tenant, 1)
        waiting = [row.status for row in await payments(tenant)]
        await Worker.async_objects.filter(pool="own").adelete()
        await database.release()
        await eventually(lambda: not drain.work.division.reserved)
        settled = await eventually(lambda: _settled(tenant))

    assert (waiting, settled) == (["queued"], True)


async def _settled(tenant: Tenant) -> bool:
    return all(row.status == "succeeded" for row in await payments(tenant))


async def test_a_worker_that_is_asked_to_stop_ends(tenant: Tenant) -> None:
    async with at_work() as drain:
        await eventually(lambda: drain.worker_id)
        await Worker.async_objects.filter(id=drain.worker_id).aupdate(stop_requested=True)
        await database.release()
        await eventually(lambda: drain.stopping)
