"""Schedules over HTTP, and the jobs that they submit: each due time one, whatever processes look, die, or repeat."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from queueing.jobs.schedules import ticking
from queueing.jobs.work import JobWork
from queueing.models import Job, JobSchedule
from queueing.work.drain import Drain
from registry.data import database
from registry.models import AuditEntry, Tenant
from tests.conftest import Api, eventually, make_key
from tests.queueing.kinds_app.jobs import CALLS
from tests.queueing.test_jobs import get, post, run

ECHO = {"cron": "* * * * *", "kind": "test.echo", "input": {"text": "hello"}}


async def put(api: Api, name: str = "nightly", status: int = 201, **fields: Any) -> dict[str, Any]:
    async with api.session.put(f"/schedules/{name}", json={**ECHO, **fields}) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def delete(api: Api, name: str = "nightly", status: int = 204) -> None:
    async with api.session.delete(f"/schedules/{name}") as response:
        assert response.status == status, await response.text()


async def now() -> datetime:
    [(at,)] = await database.fetch("SELECT now()")
    return at


async def outage(name: str = "nightly", **since: int) -> datetime:
    """As if no worker had lived for so long; the first due time that was missed."""
    first = (await now()).replace(second=0, microsecond=0) - timedelta(**since)
    await JobSchedule.async_objects.filter(name=name).aupdate(next_at=first)
    return first


async def tick() -> int:
    """Look until nothing is due; the number of schedules that were handled."""
    handled = 0
    while count := await ticking.submit_due():
        handled += count
    return handled


async def due_times() -> list[datetime]:
    return [at async for at in Job.async_objects.order_by("due_at", "id").values_list("due_at", flat=True)]


def every_minute(first: datetime, last: datetime) -> list[datetime]:
    return [first + timedelta(minutes=n) for n in range(int((last - first) / timedelta(minutes=1)) + 1)]


# -- Over HTTP -----------------------------------------------------------------------------------------------------


async def test_a_schedule_is_created_replaced_listed_and_deleted(api: Api) -> None:
    created = await put(api, timezone="Europe/Berlin", priority=3, maxAttempts=2, timeout=9.5, resultTtl=60)
    replaced = await put(api, status=200, cron="0 9 * * MON-FRI", overlap="queue", catchUp="all")
    await put(api, "weekly", cron="0 0 * * SUN")

    first = await get(api, "/schedules?limit=1")
    second = await get(api, f"/schedules?limit=1&cursor={first['next']}")
    await delete(api)

    assert (created["overlap"], created["catchUp"], created["timezone"]) == ("skip", "one", "Europe/Berlin")
    assert [created[name] for name in ("priority", "maxAttempts", "timeout", "resultTtl")] == [3, 2, 9.5, 60]
    assert (replaced["overlap"], replaced["catchUp"], replaced["timezone"], replaced["priority"]) == (
        "queue",
        "all",
        "UTC",
        0,
    )
    assert [len(one["next"]) for one in (created, replaced)] == [5, 5]
    assert (created["next"][0], created["lastJob"], created["paused"]) == (created["nextAt"], None, False)
    assert [one["name"] for one in first["items"] + second["items"]] == ["nightly", "weekly"]
    assert (first["total"], second["next"]) == (2, None)
    await get(api, "/schedules/nightly", 404)
    await delete(api, status=404)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 0 30,31 FEB *", "never comes due: there is no day 30,31 in month FEB"),
        ("0 0 */31 2 MON#5", "never comes due: no day of the next 50 years matches"),
        ("0 0 32 * *", "cannot be read: 32 is no day of month, which is 1 to 31, or L for the last one"),
        ("0 0 * 13 *", "cannot be read: 13 is no month, which is 1 to 12, or JAN to DEC"),
        ("60 0 * * *", "cannot be read: 60 is no minute, which is 0 to 59"),
        ("0 0 * *", "wants five fields: minute, hour, day of month, month, day of week"),
    ],
)
async def test_an_expression_that_is_not_acceptable_is_told_why(api: Api, cron: str, message: str) -> None:
    refusal = await put(api, status=422, cron=cron)

    assert refusal["errors"] == [{"field": "cron", "message": message}]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "often"}, "cron"),
        ({"cron": ""}, "cron"),
        ({"cron": None}, "cron"),
        ({"cron": "1," * 60 + "1 * * * *"}, "cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"kind": "no.such"}, "kind"),
        ({"input": {"steps": "many"}}, "input.steps"),
        ({"overlap": "wait"}, "overlap"),
        ({"catchUp": "two"}, "catchUp"),
        ({"priority": 10}, "priority"),
        ({"callbackUrl": "ftp://example.com"}, "callbackUrl"),
        ({"runAt": "2030-01-01T00:00:00Z"}, "runAt"),
        ({"uniqueKey": "one"}, "uniqueKey"),
    ],
)
async def test_a_field_of_a_schedule_that_is_not_acceptable_is_named(
    api: Api, fields: dict[str, Any], field: str
) -> None:
    refusal = await put(api, status=422, **fields)

    assert [error["field"] for error in refusal["errors"]] == [field]
    assert (await get(api, "/schedules"))["total"] == 0


async def test_all_faults_are_named_at_once(api: Api) -> None:
    refusal = await put(api, status=422, cron="often", timezone="Mars/Base", input={"text": 1})

    assert {error["field"] for error in refusal["errors"]} == {"cron", "timezone", "input.text"}


@pytest.mark.parametrize("name", ["a b", "-a", "ä", "x" * 101, "%00"])
async def test_a_name_has_letters_digits_dots_underscores_and_hyphens(api: Api, name: str) -> None:
    await put(api, name, status=422)
    await get(api, f"/schedules/{name}", 404)


async def test_an_input_above_64_kib_is_too_large_for_a_schedule(api: Api) -> None:
    await put(api, status=201, input={"text": "x" * 65_000})
    await put(api, status=413, input={"text": "x" * 65_600})


async def test_a_tenant_has_a_limited_number_of_schedules(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queueing.jobs.schedules.schedules.SCHEDULES_AT_MOST", 2)
    await put(api, "one")
    await put(api, "two")

    await put(api, "three", status=409)
    await put(api, "two", status=200)


async def test_schedules_of_other_tenants_are_unknown(api: Api, stranger: Api) -> None:
    await put(api)

    await get(stranger, "/schedules/nightly", 404)
    await delete(stranger, status=404)
    for action in ("run", "pause", "resume"):
        await post(stranger, f"/schedules/nightly/{action}", 404)
    assert (await get(stranger, "/schedules"))["items"] == []
    assert (await put(stranger))["name"] == "nightly"  # a name is the tenant's own


async def test_changes_need_the_scope_write_and_that_of_the_kind(api: Api, server: str, tenant: Tenant) -> None:
    async with Api(server, await make_key(tenant, "read")) as reader:
        await put(reader, status=403)
        await delete(reader, status=403)
    await put(api, kind="test.admin", status=403)
    async with Api(server, await make_key(tenant, "admin")) as operator:
        await put(operator, kind="test.admin")
    await post(api, "/schedules/nightly/run", 403)


async def test_every_change_is_in_the_audit_trail(api: Api, tenant: Tenant) -> None:
    await put(api)
    await put(api, status=200, cron="0 0 * * *")
    for action, status in (("pause", 200), ("pause", 200), ("resume", 200), ("run", 202)):
        await post(api, f"/schedules/nightly/{action}", status)
    await delete(api)

    entries = AuditEntry.async_objects.filter(tenant_id=tenant.pk, target="schedule nightly").order_by("id")
    assert [entry.action async for entry in entries] == [
        f"schedule.{word}" for word in ("add", "change", "pause", "resume", "run", "delete")
    ]


# -- Due times -----------------------------------------------------------------------------------------------------


async def test_a_due_schedule_submits_a_job_that_a_worker_runs(api: Api) -> None:
    CALLS.clear()
    await put(api)
    assert await tick() == 0
    first = await outage(minutes=0)

    drain = Drain(JobWork())
    working = asyncio.create_task(drain.run(seconds=600))
    try:

        async def over() -> dict[str, Any] | None:
            last = (await get(api, "/schedules/nightly"))["lastJob"]
            return last if last and last["status"] == "succeeded" else None

        last = await eventually(over)
    finally:
        drain.stop()
        await working
        await drain.work.close()

    job = await get(api, f"/jobs/{last['id']}")
    assert datetime.fromisoformat(last["dueAt"]) == first
    assert (job["schedule"], job["dueAt"], job["input"]) == ("nightly", last["dueAt"], {"text": "hello"})
    assert ("test.echo", "hello", 1) in CALLS


async def test_a_due_time_submits_one_job_however_many_processes_look(api: Api) -> None:
    for n in range(30):
        await put(api, f"s{n}", overlap="queue", catchUp="all")
    first = await outage("s0", minutes=250)
    await JobSchedule.async_objects.exclude(name="s0").aupdate(next_at=(await now()) - timedelta(seconds=1))

    async def process() -> None:
        async with database.own_connection():
            while (await now()) >= (await first_next_at()):
                await ticking.submit_due()

    await asyncio.gather(*(process() for _ in range(6)))

    last = await JobSchedule.async_objects.aget(name="s0")
    found = Job.async_objects.filter(schedule_id=last.pk).order_by("due_at").values_list("due_at", flat=True)
    assert [at async for at in found] == every_minute(first, last.next_at - timedelta(minutes=1))
    others = Job.async_objects.exclude(schedule_id=last.pk)
    assert await others.acount() - 29 in range(30)  # a minute may have begun meanwhile
    ids = [(job.schedule_id, job.due_at) async for job in Job.async_objects.all()]
    assert len(set(ids)) == len(ids)


async def first_next_at() -> datetime:
    [(at,)] = await database.fetch("SELECT min(next_at) FROM queueing_jobschedule")
    return at


async def test_a_due_time_that_is_handled_again_submits_no_second_job(api: Api) -> None:
    await put(api, overlap="queue")
    first = await outage(minutes=0)
    await tick()
    await JobSchedule.async_objects.aupdate(next_at=first)  # as after a step of the database's clock

    await tick()

    assert await due_times() == [first]


@pytest.mark.parametrize("seconds", [-60, 60])
async def test_the_clock_of_a_process_does_not_count(api: Api, seconds: int) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds)):
        created = await put(api)
        await tick()
        assert await due_times() == []
        first = await outage(minutes=0)
        await tick()

    begun = (await now()).replace(second=0, microsecond=0)
    assert abs(datetime.fromisoformat(created["nextAt"]) - begun) <= timedelta(minutes=1)
    assert (await due_times())[0] == first
    assert len(await due_times()) <= 2  # the next minute may have begun


@pytest.mark.parametrize(("catch_up", "jobs"), [("one", slice(-1, None)), ("all", slice(None))])
async def test_after_an_outage_one_or_all_missed_due_times_are_made_up_for(
    api: Api, catch_up: str, jobs: slice
) -> None:
    await put(api, catchUp=catch_up, overlap="queue")
    first = await outage(minutes=130)

    await tick()

    schedule = await JobSchedule.async_objects.aget(name="nightly")
    assert schedule.next_at > await now()
    assert await due_times() == every_minute(first, schedule.next_at - timedelta(minutes=1))[jobs]


async def test_after_an_outage_none_of_the_missed_due_times_is_made_up_for(api: Api) -> None:
    missed = (await now()).replace(second=0, microsecond=0) - timedelta(minutes=10)
    await put(api, catchUp="none", cron=f"{missed.minute} {missed.hour} * * *")
    await JobSchedule.async_objects.aupdate(next_at=missed)

    await tick()

    schedule = await JobSchedule.async_objects.aget(name="nightly")
    assert (await due_times(), schedule.next_at) == ([], missed + timedelta(days=1))


async def test_missed_due_times_that_may_not_overlap_run_one_after_the_other(api: Api) -> None:
    await put(api, catchUp="all", cron="0 * * * *")
    first = (await now()).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    await JobSchedule.async_objects.aupdate(next_at=first)
    open_at_once = []

    for _ in range(3):
        await tick()
        open_at_once.append(await Job.async_objects.filter(closed=None).acount())
        await run()

    assert open_at_once == [1, 1, 1]
    assert await due_times() == [first + timedelta(hours=n) for n in range(3)]


async def test_a_due_time_is_skipped_while_a_job_of_the_schedule_is_open_unless_they_may_queue(api: Api) -> None:
    await put(api, "skips")
    await put(api, "queues", overlap="queue")
    for _ in range(2):
        for name in ("skips", "queues"):
            await outage(name, minutes=1)
        await tick()
        await database.fetch("UPDATE queueing_job SET uuid = gen_random_uuid(), due_at = due_at - interval '1 day'")

    async def count(name: str) -> int:
        schedule = await JobSchedule.async_objects.aget(name=name)
        return await Job.async_objects.filter(schedule_id=schedule.pk).acount()

    assert (await count("skips"), await count("queues")) == (1, 2)


async def test_a_schedule_whose_time_zone_is_gone_stops_and_hinders_no_other(api: Api) -> None:
    await put(api, "broken")
    await put(api, "sound")
    await outage("broken", minutes=1)
    await outage("sound", minutes=0)
    await JobSchedule.async_objects.filter(name="broken").aupdate(timezone="Mars/Base")

    await tick()

    assert [job["schedule"] for job in await jobs(api)] == ["sound"]
    assert (await get(api, "/schedules/broken"))["nextAt"] is None


async def jobs(api: Api) -> list[dict[str, Any]]:
    return [await get(api, f"/jobs/{job['id']}") for job in (await get(api, "/jobs"))["items"]]


async def test_a_suspended_tenant_submits_nothing(api: Api, tenant: Tenant) -> None:
    await put(api, catchUp="all", overlap="queue")
    await outage(minutes=5)
    await Tenant.async_objects.filter(pk=tenant.pk).aupdate(status="suspended")

    await tick()

    assert await due_times() == []
    assert (await JobSchedule.async_objects.aget(name="nightly")).next_at > await now()


# -- Changes -------------------------------------------------------------------------------------------------------


async def test_saving_the_same_times_again_keeps_a_missed_due_time_and_other_times_begin_now(api: Api) -> None:
    await put(api)
    first = await outage(minutes=10)

    same = await put(api, status=200, input={"text": "other"})
    other = await put(api, status=200, cron="0 0 * * *")

    assert datetime.fromisoformat(same["nextAt"]) == first
    assert datetime.fromisoformat(other["nextAt"]) > await now()


async def test_a_paused_schedule_submits_nothing_and_its_due_times_are_not_made_up_for(api: Api) -> None:
    await put(api, catchUp="all", overlap="queue")
    await outage(minutes=10)

    paused = await post(api, "/schedules/nightly/pause")
    saved = await put(api, status=200, overlap="queue")
    await tick()
    resumed = await post(api, "/schedules/nightly/resume")
    await tick()

    assert (paused["paused"], paused["nextAt"], paused["next"]) == (True, None, [])
    assert (saved["paused"], saved["nextAt"]) == (True, None)
    assert resumed["paused"] is False
    assert datetime.fromisoformat(resumed["nextAt"]) > await now() - timedelta(minutes=1)
    assert await due_times() == []


async def test_a_schedule_can_be_run_now_also_while_it_is_paused(api: Api) -> None:
    await put(api, timeout=7)
    await post(api, "/schedules/nightly/pause")

    async def run_now(key: str) -> dict[str, Any]:
        async with api.post("/schedules/nightly/run", headers={"Idempotency-Key": key}) as response:
            assert response.status == 202
            assert response.headers["Location"].endswith(f"/jobs/{(await response.json())['id']}")
            replays.append(response.headers.get("Idempotent-Replayed"))
            return await response.json()

    replays: list[str | None] = []
    first, again, other = [await run_now(key) for key in ("a", "a", "b")]
    await run()

    assert replays == [None, "true", None]
    assert (first["status"], again["id"] == first["id"], other["id"] == first["id"]) == ("queued", True, False)
    job = await get(api, f"/jobs/{first['id']}")
    assert [job[name] for name in ("status", "schedule", "dueAt", "timeout")] == ["succeeded", "nightly", None, 7]
    assert (await get(api, "/schedules/nightly"))["lastJob"]["id"] == other["id"]
    runs = [
        entry.detail["job"] async for entry in AuditEntry.async_objects.filter(action="schedule.run").order_by("id")
    ]
    assert runs == [first["id"], other["id"]]  # a replay did nothing


async def test_the_jobs_of_a_deleted_schedule_stay(api: Api) -> None:
    await put(api)
    job = await post(api, "/schedules/nightly/run", 202)
    await delete(api)
    await run()

    found = await get(api, f"/jobs/{job['id']}")

    assert (found["status"], found["schedule"]) == ("succeeded", None)


async def test_secret_fields_of_a_schedule_reach_its_jobs_and_nobody_else(api: Api) -> None:
    shown = await put(api, kind="test.secret", input={"headers": {"X-Key": "hush-hush"}})
    await outage(minutes=0)
    await tick()
    by_hand = await post(api, "/schedules/nightly/run", 202)
    await run()

    stored = await database.fetch("SELECT s::text FROM queueing_jobschedule s UNION SELECT j::text FROM queueing_job j")
    assert shown["input"]["headers"] == {"X-Key": "•••"}
    assert "hush-hush" not in str(stored)
    for job in await jobs(api):
        assert job["input"]["headers"] == {"X-Key": "•••"}
        assert await get(api, f"/jobs/{job['id']}/result") == {"X-Key": "hush-hush"}
    assert by_hand["id"] in [job["id"] for job in await jobs(api)]


async def test_a_secret_that_no_key_can_decrypt_fails_the_job_and_says_so(api: Api, settings: Any) -> None:
    await put(api, kind="test.secret", input={"headers": {"X-Key": "hush-hush"}}, maxAttempts=1)
    settings.SECRET_KEY = "another one, of at least thirty-two characters"
    await outage(minutes=0)

    await tick()
    await run()

    [job] = await jobs(api)
    assert (job["status"], "SECRET_KEY" in job["error"]["detail"]) == ("failed", True)
