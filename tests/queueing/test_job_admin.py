"""Jobs, schedules and workers in the admin: seen by those of the tenant, changed with a reason, nothing else; and their metrics."""

import re
from typing import Any
from uuid import UUID

import pytest

from queueing.jobs.operate import may_cancel, may_retry
from queueing.models import Job, JobSchedule, Worker
from registry.models import AuditEntry, Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_person, make_tenant
from tests.queueing.test_job_schedules import put
from tests.queueing.test_jobs import get as get_json
from tests.queueing.test_jobs import run, submit
from tests.queueing.test_webhook_admin import get, post

WHY = "asked by the shop"


@pytest.fixture
async def operator(tenant: Tenant) -> Any:
    return await in_thread(make_person, tenant=tenant)


async def stored(id: str) -> Job:
    return await Job.async_objects.aget(uuid=UUID(id))


async def reasons() -> list[tuple[str, str, int | None]]:
    def read() -> list[tuple[str, str, int | None]]:
        entries = AuditEntry.objects.exclude(reason="").order_by("id")
        return list(entries.values_list("action", "reason", "tenant_id"))

    return await in_thread(read)


async def test_dead_letters_are_retried_and_open_jobs_canceled_with_a_reason(
    api: Api, operator: Any, tenant: Tenant
) -> None:
    failed = await stored((await submit(api, kind="test.fail", maxAttempts=1))["id"])
    await run()
    queued = await stored((await submit(api))["id"])

    asking = await in_thread(post, operator, Job, "job_retry", failed.pk)
    unfit = await in_thread(post, operator, Job, "job_retry", queued.pk, seen="1", reason=WHY)
    await in_thread(post, operator, Job, "job_retry", failed.pk, seen="1", reason=WHY)
    await in_thread(post, operator, Job, "job_cancel", queued.pk, seen="1", reason=WHY)

    statuses = [(await stored(str(job.uuid))).status for job in (failed, queued)]
    assert "queued again with all of its attempts" in asking
    assert "none of the selected rows is in a state for it" in unfit
    assert statuses == ["queued", "canceled"]
    assert await reasons() == [("job.retry", WHY, tenant.pk), ("job.cancel", WHY, tenant.pk)]
    timeline = (await get_json(api, f"/jobs/{failed.uuid}"))["timeline"]
    assert [event["status"] for event in timeline] == ["queued", "running", "failed", "queued"]


async def test_a_retry_that_its_unique_key_forbids_is_said_and_the_others_are_done(api: Api, operator: Any) -> None:
    blocked = await stored((await submit(api, kind="test.fail", maxAttempts=1, uniqueKey="only"))["id"])
    other = await stored((await submit(api, kind="test.fail", maxAttempts=1))["id"])
    await run()
    await submit(api, kind="test.fail", uniqueKey="only")

    rows = [str(blocked.pk), str(other.pk)]
    told = await in_thread(post, operator, Job, "job_retry", 0, seen="2", reason=WHY, _selected_action=rows)

    assert "another job with the same unique key is at work" in told
    assert "Retry: done." in told
    assert [(await stored(str(job.uuid))).status for job in (blocked, other)] == ["failed", "queued"]


async def test_lists_filter_by_state_and_search_by_id_and_hide_secrets(api: Api, operator: Any, tenant: Tenant) -> None:
    failed = await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    secret = await submit(api, kind="test.secret", input={"headers": {"X-Key": "tok-123456"}})
    viewer = await in_thread(make_person, tenant=tenant, role="viewer")
    row = await stored(failed["id"])

    _, dead = await in_thread(get, operator, "queueing_job_changelist", state="failed")
    _, open_ones = await in_thread(get, operator, "queueing_job_changelist", state="queued")
    _, found = await in_thread(get, operator, "queueing_job_changelist", q=secret["id"])
    _, shown = await in_thread(get, operator, "queueing_job_change", row.pk)
    _, plain = await in_thread(get, viewer, "queueing_job_change", row.pk)
    _, sealed = await in_thread(get, operator, "queueing_job_change", (await stored(secret["id"])).pk)

    assert failed["id"] in dead and secret["id"] not in dead
    assert secret["id"] in open_ones and failed["id"] not in open_ones
    assert secret["id"] in found and failed["id"] not in found
    assert "Traceback" in shown and "Traceback" not in plain and "ZeroDivisionError" in plain
    assert "•••" in sealed and "tok-123456" not in sealed


async def test_schedules_are_paused_and_resumed_with_a_reason(api: Api, operator: Any, tenant: Tenant) -> None:
    await put(api)
    schedule = await JobSchedule.async_objects.aget(name="nightly")
    states = []

    for action in ("schedule_pause", "schedule_resume"):
        await in_thread(post, operator, JobSchedule, action, schedule.pk, seen="1", reason=WHY)
        now = await JobSchedule.async_objects.aget(name="nightly")
        states.append((now.paused, now.next_at is None))
    _, listed = await in_thread(get, operator, "queueing_jobschedule_changelist")
    _, page = await in_thread(get, operator, "queueing_jobschedule_change", schedule.pk)

    assert states == [(True, True), (False, False)]
    assert "nightly" in listed and "hello" in page
    assert await reasons() == [("schedule.pause", WHY, tenant.pk), ("schedule.resume", WHY, tenant.pk)]


async def test_a_worker_is_stopped_by_superusers_with_a_reason(operator: Any) -> None:
    worker = await in_thread(lambda: Worker.objects.create(queue="jobs", pool="heavy", hostname="host-a", pid=1))
    superuser = await in_thread(make_person)

    refused, _ = await in_thread(get, operator, "queueing_worker_changelist")
    await in_thread(post, operator, Worker, "worker_stop", worker.pk, seen="1", reason=WHY)
    before = (await Worker.async_objects.aget(pk=worker.pk)).stop_requested
    _, listed = await in_thread(get, superuser, "queueing_worker_changelist")
    await in_thread(post, superuser, Worker, "worker_stop", worker.pk, seen="1", reason=WHY)

    assert (refused, before) == (403, False)
    assert "heavy" in listed
    assert (await Worker.async_objects.aget(pk=worker.pk)).stop_requested
    assert await reasons() == [("worker.stop", WHY, None)]


async def test_another_tenants_operator_sees_and_changes_nothing(api: Api, tenant: Tenant) -> None:
    job = await stored((await submit(api, uniqueKey="of the shop"))["id"])
    await put(api)
    schedule = await JobSchedule.async_objects.aget(name="nightly")
    stranger = await in_thread(make_person, tenant=await in_thread(make_tenant), role="owner")

    lists = [
        (await in_thread(get, stranger, f"queueing_{name}_changelist", tenant=tenant.slug))[1]
        for name in ("job", "jobschedule")
    ]
    pages = [
        (await in_thread(get, stranger, f"queueing_{name}_change", row.pk))[0]
        for name, row in (("job", job), ("jobschedule", schedule))
    ]
    await in_thread(post, stranger, Job, "job_cancel", job.pk, seen="1", reason=WHY)
    await in_thread(post, stranger, JobSchedule, "schedule_pause", schedule.pk, seen="1", reason=WHY)

    assert not any(str(job.uuid) in text or "nightly" in text for text in lists)
    assert pages == [302, 302]
    assert (await stored(str(job.uuid))).status == "queued"
    assert not (await JobSchedule.async_objects.aget(name="nightly")).paused


def test_a_job_can_be_canceled_while_open_and_retried_once_failed() -> None:
    states = ("queued", "running", "succeeded", "failed", "canceled")
    jobs = [Job(status=status, cancel_requested=False) for status in states]

    assert [job.status for job in jobs if may_cancel(job)] == ["queued", "running"]
    assert [job.status for job in jobs if may_retry(job)] == ["failed"]
    assert not may_cancel(Job(status="running", cancel_requested=True))


# -- Metrics (O1) ------------------------------------------------------------------------------------------------


async def test_waits_and_run_times_of_jobs_are_in_the_metrics_by_kind(api: Api) -> None:
    async def counts() -> dict[str, float]:
        async with api.get("/metrics") as response:
            text = await response.text()
        found = re.findall(r'^registry_job_(\w+_seconds_count)\{kind="test.echo"\} (\S+)$', text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    before = await counts()
    await submit(api)
    await run()
    after = await counts()

    assert set(after) == {"wait_seconds_count", "run_seconds_count"}
    assert all(after[name] == before.get(name, 0) + 1 for name in after)
