"""Limits of kinds: how many of their jobs run at once, of one tenant and in all, and how many start per second."""

from collections import Counter

import pytest

from queueing.jobs.decisions import JobClaim
from queueing.jobs.work import JobWork
from queueing.models import JobLimit
from registry.data import database
from tests.conftest import Api
from tests.queueing.test_jobs import submit


async def claim(work: JobWork, *, worker: int = 1) -> list[JobClaim]:
    work.shares.forget()
    return list(await work.claim(worker, 20))


async def time_passes(kind: str) -> None:
    """As long as the rate of the kind asks for between two starts."""
    past = await database.fetch("SELECT now() - interval '1 ms'")
    await JobLimit.async_objects.aupdate_or_create(kind=kind, defaults={"next_start_at": past[0][0]})


async def test_each_tenant_has_as_many_jobs_of_a_kind_at_once_as_the_kind_allows(api: Api, stranger: Api) -> None:
    for tenant in (api, api, stranger, stranger):
        await submit(tenant, kind="test.each")
    first, second = JobWork(), JobWork()

    async with database.own_connection():
        one_each = await claim(first)
        none = await claim(second, worker=2)
        await first.run(one_each[:1])
        next_one = await claim(second, worker=2)
        await first.run(one_each[1:])
        await second.run(next_one)

    assert sorted(Counter(job.tenant_id for job in one_each).values()) == [1, 1]
    assert none == []
    assert [job.tenant_id for job in next_one] == [one_each[0].tenant_id]


@pytest.mark.parametrize("workers", [(1, 1, 1), (1, 2, 3)])
async def test_a_rate_puts_starts_off_and_leaves_all_places_of_the_kind(api: Api, workers: tuple[int, ...]) -> None:
    for _ in range(5):
        await submit(api, kind="test.rated")
    works = {worker: JobWork() for worker in workers}

    async with database.own_connection():
        running: list[JobClaim] = []
        for worker in workers:
            await time_passes("test.rated")
            started = await claim(works[worker], worker=worker)
            too_soon = await claim(works[worker], worker=worker)
            assert (len(started), too_soon) == (1, [])
            running += started
        await time_passes("test.rated")
        full = await claim(works[workers[0]], worker=workers[0])
        for worker, job in zip(workers, running, strict=True):
            await works[worker].run([job])

    assert full == []  # all three places are taken
