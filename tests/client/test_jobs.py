"""The client's jobs against the service: submit, read, wait, follow the progress, fetch the result, cancel, retry."""

import asyncio
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from registry_client import (
    Conflict,
    ConnectionFailed,
    JobNotSuccessful,
    JobProgress,
    NewJob,
    NotFound,
    TooLarge,
    ValidationFailed,
    WaitTimeout,
)
from tests.client.unreliable import Unreliable
from tests.client.working import jobs_at_work
from tests.queueing.kinds_app import jobs as _kinds  # noqa: F401 - registers the kinds test.…


async def test_a_submitted_job_runs_and_its_result_can_be_fetched(client: Any):
    accepted = await client.jobs.submit("test.echo", {"text": "hello"}, priority=3)
    async with jobs_at_work():
        done = await client.jobs.wait(accepted.id)

    job = await client.jobs.get(accepted.id)
    assert (accepted.status, accepted.replayed, accepted.at_work) == ("queued", False, False)
    assert (done.status, done.attempts, done.error) == ("succeeded", 1, None)
    assert (job.input["text"], job.priority, job.sequence) == ("hello", 3, done.sequence)
    assert [entry.status for entry in job.timeline] == ["queued", "running", "succeeded"]
    assert await client.jobs.result(accepted.id) == {"text": "hello"}
    assert accepted.status_url.endswith(f"/jobs/{accepted.id}")


async def test_every_field_of_a_job_is_sent(client: Any):
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)

    accepted = await client.jobs.submit(
        "test.echo", {}, run_at=later, unique_key="nightly", max_attempts=2, timeout=7.5, result_ttl=60
    )

    job = await client.jobs.get(accepted.id)
    assert (job.run_at, job.unique_key, job.max_attempts) == (later, "nightly", 2)
    assert (job.timeout, job.result_ttl) == (7.5, 60)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
async def test_a_number_that_json_lacks_is_refused_before_it_is_sent(client: Any, number: float):
    with pytest.raises(ValueError, match="NaN or infinite"):
        await client.jobs.submit("test.echo", {"text": "hello", "nested": [{"n": number}]})

    assert (await client.jobs.page()).total == 0


@pytest.mark.parametrize("at", ["2030-01-01T03:00:00Z", date(2030, 1, 1)])
async def test_a_time_that_is_no_datetime_is_refused_before_it_is_sent(client: Any, at: Any):
    with pytest.raises(TypeError, match=r"a time is a datetime with a time zone, not (str|date)$"):
        await client.jobs.submit("test.echo", {"text": "hello"}, run_at=at)

    assert (await client.jobs.page()).total == 0


async def test_the_same_key_is_the_same_job_and_a_unique_key_returns_the_job_at_work(client: Any):
    key = uuid4()

    first, again = [await client.jobs.submit("test.echo", {"text": "a"}, idempotency_key=key) for _ in range(2)]
    one, other = [await client.jobs.submit("test.echo", {}, unique_key="nightly") for _ in range(2)]
    with pytest.raises(Conflict):
        await client.jobs.submit("test.echo", {"text": "b"}, idempotency_key=key)

    assert (first.id, first.replayed, again.replayed) == (again.id, False, True)
    assert (one.id, one.at_work, other.at_work) == (other.id, False, True)
    assert other.status_url == one.status_url


async def test_a_job_whose_answer_was_lost_is_submitted_once(far: Any, way: Unreliable, client: Any):
    way.loses_answers()

    job = await far.jobs.submit("test.echo", {})

    assert job.replayed and (await client.jobs.page()).total == 1


async def test_a_batch_has_one_result_per_job_and_is_not_repeated(far: Any, way: Unreliable, client: Any):
    jobs = [NewJob(kind="test.echo", input={"text": "a"}), NewJob(kind="no.such"), NewJob(kind="test.echo")]

    results = await client.jobs.batch(jobs)
    way.loses_answers()
    with pytest.raises(ConnectionFailed):
        await far.jobs.batch(jobs)
    with pytest.raises(ValueError, match="1 to 1000"):
        await client.jobs.batch([])

    assert [(one.status, one.accepted) for one in results] == [("queued", True), ("invalid", False), ("queued", True)]
    assert results[1].error["errors"][0]["field"] == "kind"
    assert way.requests == ["POST /jobs/batch"]


async def test_what_is_not_acceptable_or_not_there_has_an_error_of_its_own(client: Any):
    with pytest.raises(ValidationFailed) as refused:
        await client.jobs.submit("test.echo", {"steps": "many"})
    with pytest.raises(TooLarge):
        await client.jobs.submit("test.echo", {"text": "x" * 70_000})
    for read in (client.jobs.status, client.jobs.get, client.jobs.result, client.jobs.cancel, client.jobs.wait):
        with pytest.raises(NotFound):
            await read(uuid4())

    [fault] = refused.value.errors
    assert fault.field == "input.steps"
    assert f"422 some fields are not acceptable: input.steps: {fault.message} (request " in str(refused.value)


async def test_the_text_of_an_error_names_each_field(client: Any):
    with pytest.raises(ValidationFailed) as unknown:
        await client.jobs.submit("no.such", {})
    with pytest.raises(ValidationFailed) as several:
        await client.jobs.submit("test.echo", {"text": "hello"}, priority=10, max_attempts=0)

    assert str(unknown.value).startswith(
        "422 Some fields are not acceptable: kind: there is no kind 'no.such'; there are "
    )
    texts = "; ".join(f"{one.field}: {one.message}" for one in several.value.errors)
    assert len(several.value.errors) == 2 and f"acceptable: {texts} (request " in str(several.value)


async def test_waiting_for_a_result_tells_of_failure_and_of_lateness(client: Any):
    failing = await client.jobs.submit("test.fail", {"text": "for good"})
    async with jobs_at_work():
        with pytest.raises(JobNotSuccessful, match="the card is stolen") as failed:
            await client.jobs.wait_result(failing.id)
    waiting = await client.jobs.submit("test.echo", {})
    with pytest.raises(WaitTimeout) as late:
        await client.jobs.wait_result(waiting.id, timeout=0.1)
    with pytest.raises(Conflict):
        await client.jobs.result(waiting.id)

    assert (failed.value.job.error.code, late.value.last.status) == ("stolen", "queued")


async def test_the_progress_of_a_job_that_has_ended_before_is_over_at_once(client: Any):
    accepted = await client.jobs.submit("test.echo", {})
    async with jobs_at_work():
        ended = await client.jobs.wait(accepted.id)

    async with asyncio.timeout(5):
        assert [job async for job in client.jobs.progress(accepted.id, after=ended.sequence)] == []


async def test_the_progress_of_a_job_is_iterated_until_it_ends(client: Any):
    accepted = await client.jobs.submit("test.echo", {"steps": 3, "seconds": 0.6})

    async with asyncio.timeout(60), jobs_at_work():
        seen = [job async for job in client.jobs.progress(accepted.id)]

    assert [seen[0].status, seen[1].status, seen[-1].status] == ["queued", "running", "succeeded"]
    assert [job.sequence for job in seen] == list(range(1, len(seen) + 1))
    reports = [job.progress for job in seen if job.progress]
    assert reports and all(isinstance(one, JobProgress) and one.total == 3 for one in reports)


async def test_the_file_of_a_job_is_read_by_its_link(client: Any, server: str):
    accepted = await client.jobs.submit("test.file", {"steps": 1})
    async with jobs_at_work():
        await client.jobs.wait(accepted.id)

    file = (await client.jobs.get(accepted.id)).file
    content = await asyncio.to_thread(lambda: httpx2.get(file.url).content)

    assert (file.name, file.content_type, file.size) == ("numbers.txt.gz", "application/gzip", len(content))
    assert file.url.startswith(server) and file.expires_at > datetime.now(UTC)


async def test_all_jobs_are_watched(client: Any):
    first = await client.jobs.submit("test.echo", {})
    seen = []

    async with asyncio.timeout(60), jobs_at_work(), aclosing(aiter(client.jobs.watch_all(after=0))) as changes:
        async for change in changes:
            seen.append((change.sequence, change.job.id, change.job.status))
            if len(seen) == 3:
                break

    assert seen == [(n, first.id, status) for n, status in enumerate(["queued", "running", "succeeded"], 1)]


async def test_a_list_is_iterated_over_its_pages_and_filtered(client: Any):
    jobs = [await client.jobs.submit("test.echo", {"text": str(number)}) for number in range(5)]
    await client.jobs.submit("test.fail", {})
    await client.jobs.cancel(jobs[0].id)

    found = [job.id async for job in client.jobs.list(page_size=2, kind="test.echo")]
    canceled = [job.id async for job in client.jobs.list(status="canceled")]

    assert (found, canceled) == ([job.id for job in reversed(jobs)], [jobs[0].id])


async def test_jobs_are_canceled_and_tried_again_as_far_as_their_state_allows(client: Any):
    queued = await client.jobs.submit("test.echo", {})
    states = [(await client.jobs.cancel(queued.id)).status for _ in range(2)]
    with pytest.raises(Conflict):
        await client.jobs.retry(queued.id)
    failing = await client.jobs.submit("test.fail", {"text": "for good"})
    async with jobs_at_work():
        await client.jobs.wait(failing.id)
    again = await client.jobs.retry(failing.id)  # without a worker, which may begin it before the answer is made
    async with jobs_at_work():
        failed = await client.jobs.wait(failing.id)
        with pytest.raises(Conflict):
            await client.jobs.cancel(failing.id)

    assert states == ["canceled", "canceled"]
    assert (again.status, again.error, failed.attempts) == ("queued", None, 2)
