"""Jobs whose worker is lost: what counts, how long they wait, and where it ends."""

from datetime import timedelta
from uuid import UUID

import pytest

from queueing.jobs import decisions
from queueing.jobs.work import JOBS, JobWork
from queueing.models import Job, JobEvent
from registry.data import database
from tests.conftest import Api
from tests.queueing.test_jobs import get, make_due, post, run, submit

DEAD = 999_999  # id of a worker that is no more


async def lose(id: str, *, times: int = 1) -> Job:
    """A worker claims the job and dies, `times` times, as soon as it is due each time."""
    for _ in range(times):
        await make_due(id)
        await claim_and_forget()
        await JOBS.release([DEAD])
    return await row(id)


async def claim_and_forget() -> None:
    async with database.own_connection():
        await JobWork().claim(DEAD, 10)


async def row(id: str) -> Job:
    async with database.own_connection():
        return await Job.async_objects.aget(uuid=UUID(id))


async def test_a_lost_worker_costs_a_job_none_of_its_attempts(api: Api) -> None:
    job = await submit(api, maxAttempts=1)
    await lose(job["id"], times=3)
    await make_due(job["id"])
    await run()

    done = await get(api, f"/jobs/{job['id']}")
    assert (done["status"], done["attempts"]) == ("succeeded", 4)


async def test_failures_are_counted_beside_losses(api: Api) -> None:
    job = await submit(api, kind="test.fail", maxAttempts=2)
    statuses = []
    for _ in range(2):
        await lose(job["id"], times=2)
        await make_due(job["id"])
        await run()
        statuses.append((await get(api, f"/jobs/{job['id']}"))["status"])

    assert statuses == ["queued", "failed"]


@pytest.mark.parametrize(("before", "wait"), [(1, 1.0), (2, 5.0), (3, 30.0), (4, 120.0), (5, 600.0), (15, 600.0)])
async def test_a_job_waits_for_longer_after_each_loss_but_the_first(api: Api, before: int, wait: float) -> None:
    job = await submit(api)
    first = await lose(job["id"])
    await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(lost_attempts=before - 1)
    put_off = await lose(job["id"])

    assert (first.status, first.lost_attempts) == (
        "running",
        0,
    )  # its lease has ended: the next claim takes it and counts
    shortest, longest = timedelta(seconds=wait * 0.79), timedelta(seconds=wait * 1.21)
    assert shortest < put_off.run_at - put_off.changed_at < longest
    shown = await get(api, f"/jobs/{job['id']}")
    assert (shown["status"], shown["error"]["code"]) == ("queued", "worker_lost")


async def test_a_job_that_loses_every_worker_fails_in_the_end_and_can_be_retried(api: Api) -> None:
    job = await submit(api, callbackUrl="http://127.0.0.1:9999/done")
    almost = await lose(job["id"], times=decisions.MOST_LOST - 1)
    await lose(job["id"])
    failed = await get(api, f"/jobs/{job['id']}")
    await post(api, f"/jobs/{job['id']}/retry", 202)
    await lose(job["id"], times=2)
    await make_due(job["id"])
    await run()

    assert almost.status == "queued"
    assert (failed["status"], failed["error"]["code"], failed["attempts"]) == ("failed", "worker_lost", 20)
    assert await JobEvent.async_objects.filter(status="failed", callback_due=True).acount() == 1
    assert (await get(api, f"/jobs/{job['id']}"))["status"] == "succeeded"


async def test_a_job_whose_lease_ends_for_the_twentieth_time_fails_too(api: Api) -> None:
    job = await submit(api)
    await claim_and_forget()
    await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(
        leased_until="2020-01-01T00:00:00Z", lost_attempts=decisions.MOST_LOST - 1
    )
    await run()

    failed = await get(api, f"/jobs/{job['id']}")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "worker_lost")


async def test_a_job_that_should_be_canceled_is_not_put_off(api: Api) -> None:
    job = await submit(api)
    await lose(job["id"])
    await claim_and_forget()
    await post(api, f"/jobs/{job['id']}/cancel", 202)
    await JOBS.release([DEAD])

    assert (await get(api, f"/jobs/{job['id']}"))["status"] == "canceled"
