"""Export and erasure of a tenant's jobs, results and schedules."""

import json
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from queueing.jobs.work import JobWork
from queueing.models import Job, JobFile, JobFileChunk, JobSchedule
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api
from tests.factories import in_thread
from tests.queueing.test_job_schedules import put
from tests.queueing.test_jobs import get, run, submit

PERSON = "Ms Miller, 5 Elm Street"
WORDS = {"text": PERSON, "headers": {"X-Key": "hush-hush"}}


async def tenant_command(*arguments: str) -> str:
    out = StringIO()
    await in_thread(call_command, "tenant", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


async def exported(tenant: Tenant) -> dict[str, list[dict[str, Any]]]:
    """By the way that submits no job, which would be one more."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for line in (await tenant_command("export", tenant.slug, "--decrypt")).splitlines():
        found = json.loads(line)
        tables.setdefault(found["table"].removeprefix("queueing."), []).append(found["row"])
    return tables


async def erase(tenant: Tenant) -> dict[str, int]:
    return json.loads(await tenant_command("erase", tenant.slug, "--reason", "asked to", "--yes", "--json"))


async def everything_of_jobs(api: Api) -> None:
    """A schedule, and jobs that succeeded, failed, and wait, with a person's words in all of them."""
    await put(api, kind="test.secret", input=WORDS, cron="0 0 1 1 *")
    await submit(api, input={"text": PERSON, "steps": 2}, uniqueKey=PERSON)
    await submit(api, kind="test.secret", input=WORDS)
    await submit(api, kind="test.file", input={"steps": 1})
    await submit(api, kind="test.fail", input={"text": "for good"})
    await run()
    await JobFile.async_objects.aupdate(name=PERSON)
    await database.fetch("UPDATE queueing_job SET error = %s, traceback = %s", [PERSON, PERSON])
    await database.fetch("UPDATE queueing_jobevent SET detail = %s", [PERSON])
    await submit(api, input={"text": PERSON}, runAt="2030-01-01T00:00:00Z")


async def test_jobs_results_and_schedules_are_exported_without_sealed_secrets(api: Api, tenant: Tenant) -> None:
    await everything_of_jobs(api)

    tables = await exported(tenant)

    assert {job["kind"] for job in tables["Job"]} == {"test.echo", "test.secret", "test.file", "test.fail"}
    assert json.loads(tables["JobResult"][0]["body"]) == {"text": PERSON}
    assert [one["name"] for one in tables["JobSchedule"]] == ["nightly"]
    assert tables["JobEvent"]
    assert "hush-hush" not in json.dumps(tables["Job"] + tables["JobSchedule"])
    assert not {"sealed", "fingerprint"} & (tables["Job"][0].keys() | tables["JobSchedule"][0].keys())


async def test_erasure_cancels_what_waits_and_blanks_what_people_wrote(api: Api, stranger: Api, tenant: Tenant) -> None:
    await everything_of_jobs(api)
    theirs = await submit(stranger, input={"text": PERSON}, runAt="2030-01-01T00:00:00Z")

    await erase(tenant)

    mine = Job.async_objects.of(tenant.pk)
    assert PERSON not in json.dumps(await exported(tenant), ensure_ascii=False)
    assert [bytes(one or b"") async for one in mine.values_list("sealed", flat=True)] == [b""] * 5
    assert [bytes(one) async for one in JobFileChunk.async_objects.values_list("data", flat=True)] == [b""]
    assert [one async for one in mine.order_by("id").values_list("status", flat=True)] == [
        "succeeded", "succeeded", "succeeded", "failed", "canceled",
    ]  # fmt: skip
    last = (await exported(tenant))["JobEvent"][-1]
    assert (last["status"], last["position"]) == ("canceled", len((await exported(tenant))["JobEvent"]))
    schedule = await JobSchedule.async_objects.aget(tenant_id=tenant.pk)
    assert (schedule.paused, schedule.next_at, schedule.input, schedule.sealed) == (True, None, "{}", None)
    assert (await get(stranger, f"/jobs/{theirs['id']}"))["input"] == {"text": PERSON}
    again = await erase(tenant)
    again.pop("registry.ApiRequest", None)  # what was asked meanwhile
    assert again == {}


async def test_a_job_that_runs_is_asked_to_end_first(api: Api, tenant: Tenant) -> None:
    await submit(api, input={"text": PERSON})
    work = JobWork()
    async with database.own_connection():
        [claim] = await work.claim(1, 10)

    try:
        await erase(tenant)
        raise AssertionError("it was erased")
    except CommandError as refusal:
        assert "has 1 jobs that are not over" in str(refusal)

    job = await Job.async_objects.aget(tenant_id=tenant.pk)
    assert (job.cancel_requested, PERSON in job.input) == (True, True)
    async with database.own_connection():
        await work.run([claim])
        await work.close()
    assert await erase(tenant)
    assert PERSON not in json.dumps(await exported(tenant))
