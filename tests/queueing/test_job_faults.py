"""Jobs in trouble: leases that end, clocks and statements that are slow, texts that cannot be stored, secrets that come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from queueing.jobs import decisions, files, running
from queueing.jobs.addresses import CHECKS
from queueing.jobs.decisions import JobClaim
from queueing.jobs.files import CHUNK, JobFileWriter
from queueing.jobs.http_clients import CLIENTS
from queueing.jobs.processes.outcomes import Succeeded
from queueing.jobs.running import RunningJob, RunningJobs
from queueing.jobs.work import JobWork
from queueing.models import Job, JobFile, Worker
from queueing.work.drain import Drain
from registry.data import database
from registry.models import Tenant
from tests.bed.receiver import Receiver
from tests.conftest import Api, eventually
from tests.queueing.kinds_app.jobs import CALLS
from tests.queueing.test_jobs import get, run, submit


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


@asynccontextmanager
async def at_work(found: JobWork) -> AsyncIterator[Drain]:
    drain = Drain(found)
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        yield drain
    finally:
        drain.stop()
        await task
        await found.close()


async def row_of(id: str) -> Job:
    async with database.own_connection():
        found = await Job.async_objects.filter(uuid=UUID(id)).afirst()
    assert found
    return found


# -- Leases --------------------------------------------------------------------------------------------------------


async def test_a_job_whose_lease_ended_by_the_clock_of_its_worker_only_is_not_canceled(api: Api) -> None:
    job = await submit(api, kind="test.wait", input={"seconds": 60.0})
    mine = JobWork()
    async with database.own_connection():
        [claim] = await mine.claim(1, 10)
        task = asyncio.create_task(mine.run([claim]))
        await eventually(lambda: len(mine.running))
        for one in mine.running:
            one.lose()
        await task
        await mine.close()

    left = await get(api, f"/jobs/{job['id']}")
    assert (left["status"], left["attempts"]) == ("queued", 0)


async def test_a_lease_ends_in_time_though_its_extension_waits(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waiting(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(JobWork, "lease", 3.0)
    monkeypatch.setattr(JobWork, "_extend", waiting)
    await submit(api, kind="test.wait", input={"seconds": 60.0})
    mine = JobWork()
    async with at_work(mine):
        await eventually(lambda: len(mine.running))
        [running_job] = mine.running
        await database.fetch("UPDATE queueing_job SET leased_until = now() + interval '1 hour'", [])
        await eventually(running_job.lost.is_set)


async def test_an_attempt_is_told_to_stop_when_its_worker_claims_the_job_again(api: Api) -> None:
    job = await submit(api, kind="test.wait", input={"seconds": 60.0})
    mine = JobWork()
    async with database.own_connection():
        tasks = []
        for count in (1, 2):
            [claim] = await mine.claim(1, 10)
            tasks.append(asyncio.create_task(mine.run([claim])))
            await eventually(lambda count=count: len(CALLS) == count)
            await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(leased_until="2020-01-01T00:00:00Z")
            mine.shares.forget()
        [running_job] = mine.running
        async with asyncio.timeout(30.0):  # of the 60 that it would take
            written = await tasks[0]
        running_job.lose()
        await tasks[1]
        await mine.close()

    assert (running_job.claim.attempt, written) == (2, [False])


@pytest.mark.parametrize("order", [1, -1])
async def test_an_outcome_of_an_earlier_attempt_in_the_same_batch_changes_nothing(api: Api, order: int) -> None:
    job = await submit(api)
    mine = JobWork()
    async with database.own_connection():
        [first] = await mine.claim(1, 10)
        await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(leased_until="2020-01-01T00:00:00Z")
        mine.shares.forget()
        [second] = await mine.claim(1, 10)
        outcomes = [decisions.after(first, Succeeded(b'"stale"')), decisions.after(second, Succeeded(b'"fresh"'))]
        await mine.settle(outcomes[::order])
        await mine.close()

    async with api.get(f"/jobs/{job['id']}/result") as response:
        assert await response.json() == "fresh"


async def test_an_outcome_is_written_though_a_cancellation_was_requested_while_the_function_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "CANCEL_GRACE", 0.0)
    await submit(api)
    mine, jobs = JobWork(), RunningJobs()
    async with database.own_connection():
        [claim] = await mine.claim(1, 10)
        job = RunningJob(claim, lease=30.0)
        job.task = task = asyncio.create_task(asyncio.sleep(0.1))
        jobs.add(job)
        job.cancel()
        jobs.remove(job)
        await asyncio.wait([task])
        await mine.close()

    assert not task.cancelled()


# -- What functions raise and report ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attempts", "status", "code"),
    [("", 1, "failed", "error"), ("fails", 1, "failed", "7"), ("retry", 2, "queued", "x\ufffd")],
)
async def test_texts_and_numbers_that_cannot_be_stored_are_replaced(
    api: Api, text: str, attempts: int, status: str, code: str
) -> None:
    job = await submit(api, kind="test.garbled", input={"text": text}, maxAttempts=attempts)
    await run()

    found = await get(api, f"/jobs/{job['id']}")
    assert (found["status"], found["error"]["code"], found["progress"]["done"]) == (status, code, 2**63 - 1)
    assert "a\ufffd" in found["error"]["detail"]
    assert found["runAt"] < (datetime.now(UTC) + timedelta(days=400)).isoformat()


async def test_a_statement_that_is_too_slow_for_the_database_s_time_limit_fails_the_attempt(api: Api) -> None:
    job = await submit(api, kind="test.slow", maxAttempts=1)
    await run()

    failed = await get(api, f"/jobs/{job['id']}")
    assert (failed["status"], failed["attempts"], failed["error"]["code"]) == ("failed", 1, "error")


@pytest.fixture
async def _fresh_checks() -> AsyncIterator[None]:
    yield
    await CHECKS.close()
    await CLIENTS.close()


@pytest.mark.parametrize("before", [0, 185])
async def test_a_secret_that_a_receiver_repeats_is_not_in_the_job_s_error(
    api: Api, before: int, _fresh_checks: None
) -> None:
    async with Receiver() as receiver:
        receiver.answers(400, b"-" * before + b"unknown: hush-hush-hush")
        given = {"url": receiver.url, "headers": {"X-Shop": "hush-hush-hush"}}
        job = await submit(api, "http", input=given)
        await run()

    found = await get(api, f"/jobs/{job['id']}")
    assert found["error"]["code"] == "http_400"
    assert "hush" not in str({**found, "input": None})


async def test_secrets_of_the_input_are_not_in_the_error_of_a_function_on_the_loop(api: Api) -> None:
    given = {"text": "fail", "headers": {"X-Key": "hush-hush"}}
    job = await submit(api, kind="test.secret", input=given, maxAttempts=1)
    await run()

    row = await row_of(job["id"])
    assert row.error == "ValueError: [redacted] is wrong"
    assert "hush-hush" not in row.traceback


async def test_a_place_of_a_kind_with_limits_is_filled_as_soon_as_it_is_free(api: Api) -> None:
    await submit(api, kind="test.one")
    mine, woken = JobWork(), asyncio.Event()
    async with database.own_connection():
        claims = await mine.claim(1, 10)
        mine.wake = woken.set
        await mine.run(claims)
        await mine.close()

    assert woken.is_set()


# -- Files -----------------------------------------------------------------------------------------------------------


async def test_a_file_expires_after_it_is_whole_and_not_while_it_is_written(tenant: Tenant) -> None:
    options: dict[str, Any] = {"name": "a", "content_type": "text/plain", "gzip": False, "seconds": 0}
    async with database.own_connection():
        async with JobFileWriter(tenant_id=tenant.pk, job_id=7, attempt=1, **options) as file:
            await file.write(b"x" * CHUNK)
            await files.remove_expired()
            await file.write(b"y" * CHUNK)
        whole = await JobFile.async_objects.filter(job_id=7).afirst()
        await files.remove_expired()
        left = await JobFile.async_objects.filter(job_id=7).acount()

    assert whole and whole.size == 2 * CHUNK
    assert left == 0


# -- Pools -----------------------------------------------------------------------------------------------------------


async def test_a_worker_knows_the_pools_before_its_first_claim(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    await Worker.async_objects.acreate(queue="jobs", hostname="h", pid=1, pool="own", takes=["jobs/test.echo"])
    await database.release()
    known = []

    class Watched(JobWork):
        async def claim(self, worker_id: int, limit: int) -> list[JobClaim]:
            known.append(self.division.reserved)
            return await super().claim(worker_id, limit)

    async with at_work(Watched()):
        await eventually(lambda: known)

    assert known[0] == {"jobs/test.echo"}
