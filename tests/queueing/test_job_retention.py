"""Retention of jobs: what expires is deleted, what can still be of use stays, and readers of events go on."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from queueing.jobs import retention
from queueing.jobs.work import JobWork
from queueing.models import Job, JobEvent, JobResult, JobSlot
from registry.data import database
from registry.data.chores import CHORES
from registry.models import Tenant
from tests.conftest import Api, eventually
from tests.queueing.mq import blocked, holding
from tests.queueing.test_jobs import get, post, run, submit


async def ended(days: int, *ids: str) -> None:
    """These jobs ended so long ago, and so did what they returned expire."""
    await database.fetch(
        "UPDATE queueing_job SET finished_at = finished_at - make_interval(days => %(days)s::int) WHERE uuid = ANY(%(ids)s)",
        {"days": days, "ids": [UUID(id) for id in ids]},
    )
    await database.fetch(
        """UPDATE queueing_jobresult r SET expires_at = expires_at - make_interval(days => %(days)s::int)
        FROM queueing_job j WHERE j.tenant_id = r.tenant_id AND j.id = r.job_id AND j.uuid = ANY(%(ids)s)""",
        {"days": days, "ids": [UUID(id) for id in ids]},
    )


async def left() -> set[str]:
    return {str(uuid) async for uuid in Job.async_objects.values_list("uuid", flat=True)}


async def test_an_expired_result_is_deleted_before_its_job(api: Api) -> None:
    short, long = await submit(api, resultTtl=60), await submit(api)
    await run()
    await ended(1, short["id"], long["id"])
    await get(api, f"/jobs/{short['id']}/result", 410)

    await retention.trim()

    await get(api, f"/jobs/{short['id']}/result", 410)
    assert await get(api, f"/jobs/{long['id']}/result") == {"text": "hello"}
    assert (await get(api, f"/jobs/{short['id']}"))["status"] == "succeeded"
    assert await JobResult.async_objects.acount() == 1


async def test_a_result_that_is_null_is_not_stored_and_expires_like_others(api: Api) -> None:
    job = await submit(api, kind="test.block", resultTtl=40 * 24 * 3600)
    await run()

    assert await get(api, f"/jobs/{job['id']}/result") is None
    assert await JobResult.async_objects.acount() == 0
    await ended(31, job["id"])
    await retention.trim()
    assert await get(api, f"/jobs/{job['id']}/result") is None
    await ended(10, job["id"])
    await get(api, f"/jobs/{job['id']}/result", 410)
    await retention.trim()
    await get(api, f"/jobs/{job['id']}", 404)


async def test_finished_jobs_are_deleted_with_their_events_and_failed_ones_later(api: Api) -> None:
    succeeded, canceled = await submit(api), await submit(api)
    failed, older = [await submit(api, kind="test.fail", input={"text": "for good"}) for _ in range(2)]
    recent = await submit(api)
    await post(api, f"/jobs/{canceled['id']}/cancel")
    await run()
    await ended(31, succeeded["id"], canceled["id"], failed["id"])
    await ended(91, older["id"])
    await ended(29, recent["id"])
    waiting = await submit(api, runAt="2030-01-01T00:00:00Z")

    await retention.trim()

    assert await left() == {failed["id"], recent["id"], waiting["id"]}
    kept = Job.async_objects.values_list("id", flat=True)
    assert {one async for one in JobEvent.async_objects.values_list("job_id", flat=True)} == {one async for one in kept}
    await get(api, f"/jobs/{succeeded['id']}", 404)


async def test_how_long_jobs_are_kept_is_a_setting(api: Api, settings: Any) -> None:
    settings.JOB_RETENTION, settings.FAILED_JOB_RETENTION = 2, 3
    two, three = await submit(api, resultTtl=0), await submit(api, kind="test.fail", input={"text": "for good"})
    await run()

    for days, kept in ((1, {two["id"], three["id"]}), (2, {three["id"]}), (3, set())):
        await ended(1, two["id"], three["id"])
        await database.fetch("UPDATE queueing_job SET finished_at = finished_at - interval '1 minute'")
        await retention.trim()
        assert await left() == kept, days


async def test_a_job_stays_as_long_as_its_result(api: Api) -> None:
    job = await submit(api, resultTtl=100 * 86_400)
    await run()
    await ended(99, job["id"])

    await retention.trim()

    assert await get(api, f"/jobs/{job['id']}/result") == {"text": "hello"}
    await ended(2, job["id"])
    await retention.trim()
    assert await left() == set()


async def test_every_slice_is_looked_at_also_where_a_whole_one_stays(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SLICE", 2)
    staying = [(await submit(api, resultTtl=100 * 86_400))["id"] for _ in range(3)]
    await run()
    going = [(await submit(api))["id"] for _ in range(5)]
    await run()
    await ended(31, *staying, *going)

    await retention.trim()

    assert await left() == set(staying)


async def test_a_job_that_is_tried_again_at_that_moment_stays(api: Api) -> None:
    job = await submit(api, kind="test.fail", input={"text": "for good"})
    await run()
    await ended(91, job["id"])

    async with holding(
        "UPDATE queueing_job SET status = 'queued', finished_at = NULL WHERE uuid = %s", UUID(job["id"])
    ):
        trimming = asyncio.create_task(retention.trim())
        await eventually(blocked)
    await trimming

    found = await get(api, f"/jobs/{job['id']}")
    assert [event["status"] for event in found["timeline"]] == ["queued", "running", "failed"]


async def test_readers_of_events_resume_over_what_was_deleted(api: Api) -> None:
    old, new = await submit(api), await submit(api)
    await run()
    await ended(31, old["id"])
    await retention.trim()

    async with api.ws_connect("/ws/jobs") as socket:
        await socket.send_json({"type": "resume", "after": 0})
        seen = [await socket.receive_json() for _ in range(3)]
        later = await submit(api)
        live = await socket.receive_json()

    assert [(one["job"]["id"], one["job"]["status"]) for one in seen] == [
        (new["id"], status) for status in ("queued", "running", "succeeded")
    ]
    numbers = [one["sequence"] for one in [*seen, live]]
    assert numbers == sorted(set(numbers))
    assert (live["job"]["id"], live["sequence"]) == (later["id"], 7)  # numbers are not used again
    await get(api, f"/jobs/{old['id']}/events?after=0&wait=0", 404)


async def test_a_slot_goes_once_its_job_does_not_run_any_more(api: Api) -> None:
    await submit(api, kind="test.one")
    await submit(api, kind="test.one")
    work = JobWork()
    async with database.own_connection():
        [claim] = await work.claim(1, 10)
        await retention.trim()
        while_it_runs = await JobSlot.async_objects.acount()
        await work.run([claim])
        await work.close()

    await retention.trim()

    assert (while_it_runs, await JobSlot.async_objects.acount()) == (1, 0)


def test_a_chore_does_it() -> None:
    assert CHORES["trim-jobs"].run is retention.trim


async def test_numbers_of_deleted_events_are_not_given_again(api: Api, tenant: Tenant) -> None:
    last = "SELECT position FROM queueing_job_latest WHERE tenant_id = %s"
    job = await submit(api)
    await run()
    [[before]] = await database.fetch(last, [tenant.pk])
    await ended(31, job["id"])

    await retention.trim()
    [[deleted]] = await database.fetch(last, [tenant.pk])
    await submit(api)

    assert deleted == before
    assert await database.fetch("SELECT position FROM queueing_jobevent WHERE tenant_id = %s", [tenant.pk]) == [
        (before + 1,)
    ]
