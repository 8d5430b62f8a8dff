"""The kinds of jobs that come with queueing: replays of webhooks and key rotation; `http` has its own file."""

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from queueing.broker import rotation
from queueing.jobs import exporting, files, queries, waiting
from queueing.jobs.builtin import webhooks_replay
from queueing.jobs.kinds import JobFailed
from queueing.jobs.work import JobWork
from queueing.models import Job, WebhookEndpoint
from queueing.outbound import deliveries
from queueing.work.drain import Drain
from registry.data import database
from registry.models import AuditEntry, Tenant
from registry.tenants import export
from tests.bed.receiver import Receiver
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_payment, make_tenant
from tests.queueing.hooks import deliveries as deliveries_to
from tests.queueing.hooks import delivering, endpoint, events, fan_out, until
from tests.queueing.mq import Mq
from tests.queueing.test_encryption import rows, use
from tests.queueing.test_jobs import get, make_due, post, run, submit


@pytest.fixture
async def boss(server: str, tenant: Tenant) -> AsyncIterator[Api]:
    """A program whose key may administer."""
    async with Api(server, await make_key(tenant, "admin")) as client:
        yield client


@pytest.fixture
async def hook(tenant: Tenant) -> WebhookEndpoint:
    """An endpoint with 25 deliveries that were given up and one that was made, of one payment."""
    hook = await endpoint(tenant, "http://127.0.0.1:9999/", "payment.*")
    await events(await in_thread(make_payment, tenant), 2, 26)
    await fan_out(3)
    await database.fetch(
        """UPDATE queueing_webhookdelivery SET attempt = 10, changed_at = now(),
        status = CASE WHEN position = 1 THEN 'delivered' ELSE 'dead' END"""
    )
    return hook


@pytest.fixture
def slices_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_replay, "SLICE", 10)


async def statuses(hook: WebhookEndpoint) -> dict[str, int]:
    found = [one.status for one in await deliveries_to(hook)]
    return {status: found.count(status) for status in set(found)}


# -- Replays of webhooks -------------------------------------------------------------------------------------------


async def test_a_replay_delivers_again_what_was_given_up_slice_by_slice(
    boss: Api, hook: WebhookEndpoint, slices_of_ten: None
) -> None:
    job = await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid)})
    await run()

    done = await get(boss, f"/jobs/{job['id']}")
    assert await get(boss, f"/jobs/{job['id']}/result") == {"replayed": 25}
    assert (done["status"], done["progress"]["done"], done["progress"]["total"]) == ("succeeded", 25, 25)
    assert await statuses(hook) == {"delivered": 1, "pending": 25}


async def test_a_replay_may_take_everything_or_a_range_of_time(boss: Api, hook: WebhookEndpoint) -> None:
    [before, after] = ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z")
    counts = []
    for asked in ({"to": before}, {"from": after}, {"from": before, "to": after, "deadOnly": False}):
        job = await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid), **asked})
        await run()
        counts.append((await get(boss, f"/jobs/{job['id']}/result"))["replayed"])

    assert counts == [0, 0, 26]


async def test_messages_are_replayed_in_order_and_under_their_ids(
    boss: Api, tenant: Tenant, slices_of_ten: None
) -> None:
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url, "payment.*", ordered=True)
        await events(await in_thread(make_payment, tenant), 2, 26)
        async with delivering():
            await until(hook, "delivered", count=26)
        first, receiver.heard = list(receiver.ids), []
        await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid), "deadOnly": False})
        await run()
        async with delivering():
            await until(hook, "delivered", count=26)

    assert receiver.ids == first
    assert [one.data["sequence"] for one in receiver.heard] == list(range(1, 27))


async def test_an_attempt_goes_on_where_the_one_before_was_cut_off(
    boss: Api, hook: WebhookEndpoint, slices_of_ten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was replayed and failed again meanwhile is not replayed twice."""
    calls: list[list[int]] = []
    replay_slice = deliveries.replay_slice

    async def breaking(*args: Any, **selection: Any) -> list[int]:
        if len(calls) == 1 and calls[0]:
            calls.append([])
            raise ConnectionError("the worker is lost")
        calls.append(await replay_slice(*args, **selection))
        return calls[-1]

    monkeypatch.setattr(deliveries, "replay_slice", breaking)
    job = await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid)})
    await run()
    cut_off = await statuses(hook)
    await database.fetch(
        "UPDATE queueing_webhookdelivery SET status = 'dead', changed_at = now() WHERE status = 'pending'"
    )
    await make_due(job["id"])
    await run()

    replayed = [id for ids in calls for id in ids]
    assert cut_off == {"delivered": 1, "pending": 10, "dead": 15}
    assert (len(replayed), replayed == sorted(set(replayed))) == (25, True)
    assert (await get(boss, f"/jobs/{job['id']}"))["status"] == "succeeded"


async def test_each_slice_of_a_replay_is_recorded_with_the_job(
    boss: Api, hook: WebhookEndpoint, slices_of_ten: None
) -> None:
    job = await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid)})
    await run()

    entries = await in_thread(
        lambda: list(AuditEntry.objects.filter(action="delivery.replay").order_by("id").values_list("actor", "rows"))
    )
    assert entries == [(f"job {job['id']}", rows) for rows in (10, 10, 5)]


async def test_only_a_key_that_may_administer_replays_and_only_its_tenants_endpoints(
    api: Api, boss: Api, server: str, hook: WebhookEndpoint
) -> None:
    await submit(api, "webhooks.replay", 403, input={"endpoint": str(hook.uuid)})
    other = await in_thread(make_tenant)
    async with Api(server, await make_key(other, "admin")) as foreign:
        refusal = await submit(foreign, "webhooks.replay", 422, input={"endpoint": str(hook.uuid)})

    assert refusal["errors"][0]["field"] == "input.endpoint"
    await submit(boss, "webhooks.replay", 422, input={"endpoint": str(uuid4())})


async def test_an_endpoint_that_was_deleted_meanwhile_fails_the_job(boss: Api, hook: WebhookEndpoint) -> None:
    job = await submit(boss, "webhooks.replay", input={"endpoint": str(hook.uuid)})
    async with boss.session.delete(f"/webhook-endpoints/{hook.uuid}") as answer:
        assert answer.status == 204
    await run()

    assert (await get(boss, f"/jobs/{job['id']}"))["error"]["code"] == "unknown_endpoint"


# -- Key rotation --------------------------------------------------------------------------------------------------


@pytest.fixture
async def filled(mq: Mq, queue: str, monkeypatch: pytest.MonkeyPatch) -> Mq:
    """A queue with five payloads of an older key."""
    use(monkeypatch, "old")
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, *range(5))
    use(monkeypatch, "new", "old")
    monkeypatch.setattr(rotation, "SLICE", 2)
    return mq


@asynccontextmanager
async def working(**options: Any) -> AsyncIterator[Drain]:
    """A worker of jobs in this loop."""
    work = JobWork()
    drain = Drain(work, **options)
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        await eventually(lambda: drain.worker_id)
        yield drain
    finally:
        drain.stop()
        await task
        await work.close()


async def command() -> str:
    out = io.StringIO()
    await in_thread(call_command, "queue", "rotate", stdout=out)
    return out.getvalue()


async def jobs() -> list[Job]:
    async with database.own_connection():
        return [job async for job in Job.async_objects.all().order_by("id")]


async def test_a_rotation_encrypts_a_tenants_payloads_again(boss: Api, filled: Mq) -> None:
    job = await submit(boss, "queue.rotate", input={})
    await run()

    assert await get(boss, f"/jobs/{job['id']}/result") == {"changed": 5, "unreadable": 0}
    assert {key for _, key in await rows(filled)} == {"new"}


async def test_a_rotation_leaves_other_tenants_alone(server: str, filled: Mq) -> None:
    other = await in_thread(make_tenant)
    async with Api(server, await make_key(other, "admin")) as foreign:
        job = await submit(foreign, "queue.rotate", input={})
        await run()

        assert await get(foreign, f"/jobs/{job['id']}/result") == {"changed": 0, "unreadable": 0}
    assert {key for _, key in await rows(filled)} == {"old"}


async def test_only_a_key_that_may_administer_rotates(api: Api) -> None:
    await submit(api, "queue.rotate", 403, input={})


async def test_a_worker_with_another_current_key_leaves_the_rotation_to_the_next(boss: Api, filled: Mq) -> None:
    job = await submit(boss, "queue.rotate", input={"key": "newer"})
    await run()

    found = await get(boss, f"/jobs/{job['id']}")
    assert (found["status"], found["error"]["code"]) == ("queued", "other_key")
    assert {key for _, key in await rows(filled)} == {"old"}


async def test_without_any_key_a_rotation_fails(boss: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    job = await submit(boss, "queue.rotate", input={})
    await run()

    assert (await get(boss, f"/jobs/{job['id']}"))["error"]["code"] == "no_key"


async def test_a_canceled_rotation_ends_at_its_next_report(
    boss: Api, filled: Mq, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await submit(boss, "queue.rotate", input={})
    change, seen = rotation._change, 0

    async def slow(*args: Any) -> None:
        nonlocal seen
        await change(*args)
        seen += 1
        if seen == 1:
            await post(boss, f"/jobs/{job['id']}/cancel", 202)
            await eventually(lambda: all(running.cancelled for running in drain.work.running))

    monkeypatch.setattr(rotation, "_change", slow)
    async with working() as drain:
        await eventually(lambda: _is(boss, job["id"], "canceled"))

    assert [key for _, key in await rows(filled)].count("new") == 2


async def _is(api: Api, id: str, status: str) -> bool:
    return (await get(api, f"/jobs/{id}"))["status"] == status


async def test_the_command_runs_the_rotation_itself_where_no_worker_lives(filled: Mq) -> None:
    said = await command()

    [job] = await jobs()
    assert "5 re-encrypted" in said
    assert (job.kind, job.status, job.tenant_id) == ("queue.rotate", "succeeded", filled.tenant_id)


async def test_the_command_leaves_the_rotation_to_a_living_worker(filled: Mq, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the command must not run it")

    async with working() as drain:
        monkeypatch.setattr(waiting.Drain, "run", never)
        said = await command()
        await eventually(lambda: drain.finished == 1)

    assert "5 re-encrypted" in said


async def test_the_command_takes_over_from_a_worker_that_dies(filled: Mq) -> None:
    """The worker lives by its row when the command begins, and takes nothing."""
    await database.fetch(
        "INSERT INTO queueing_worker (queue, hostname, pid, in_flight, capacity, finished, failed) VALUES ('jobs', 'h', 1, 0, 1, 0, 0)"
    )
    running = asyncio.create_task(command())
    await eventually(jobs)
    await database.fetch("UPDATE queueing_worker SET heartbeat_at = now() - interval '1 minute'")

    assert "5 re-encrypted" in await running


async def test_the_command_runs_the_rotation_itself_where_only_a_pool_for_other_work_lives(filled: Mq) -> None:
    async with working(pool="mail", takes=["webhooks", "jobs/http"]):
        assert "5 re-encrypted" in await command()


async def test_the_command_runs_no_other_jobs(api: Api, filled: Mq) -> None:
    other = await submit(api, "http", input={"url": "http://127.0.0.1:9999/"})

    await command()

    assert await _is(api, other["id"], "queued")


async def test_the_command_names_what_cannot_be_read(filled: Mq, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "newer")

    with pytest.raises(CommandError, match="5 cannot be read"):
        await command()


async def test_the_command_names_a_job_that_failed(filled: Mq, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise JobFailed("the disk is full")

    monkeypatch.setattr(rotation, "rotate", fail)

    with pytest.raises(CommandError, match="1 of 1 jobs failed: the disk is full"):
        await command()


# -- Export of a tenant --------------------------------------------------------------------------------------------


async def exported(api: Api, **asked: Any) -> list[dict[str, Any]]:
    """The lines of the file of a new export."""
    job = await submit(api, "tenant.export", input=asked)
    assert await run() == [True]
    url = (await get(api, f"/jobs/{job['id']}"))["file"]["url"]
    async with api.get(url[url.index("/jobs/") :]) as response:
        content = await response.read()
    text = gzip.decompress(content) if asked.get("gzip", True) else content
    return [json.loads(line) for line in text.decode().splitlines()]


async def exported_by_command(tenant: Tenant, *options: str) -> list[dict[str, Any]]:
    out = io.StringIO()
    await in_thread(call_command, "tenant", "export", tenant.slug, *options, stdout=out, stderr=io.StringIO())
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_an_export_writes_all_rows_of_the_tenant_as_the_command_does(boss: Api, tenant: Tenant) -> None:
    await in_thread(make_payment, tenant)
    await in_thread(make_payment, await in_thread(make_tenant))
    lines = await exported(boss)

    by_command = await exported_by_command(tenant)
    moving = (
        "queueing.Job",
        "registry.Audit",
        "registry.ApiKey",
        "registry.ApiRequest",
    )  # the export itself is in these
    kept = [[one for one in found if not one["table"].startswith(moving)] for found in (lines, by_command)]
    assert kept[0] == kept[1]
    assert [one["table"] for one in lines].count("payments.Payment") == 1


async def test_an_export_does_not_contain_the_ones_before_it(boss: Api) -> None:
    first, second = await exported(boss), await exported(boss, gzip=False)

    assert {"queueing.JobFile"} <= {one["table"] for one in second}
    assert "queueing.JobFileChunk" not in {one["table"] for one in first + second}


async def test_the_command_waits_for_a_job_and_reads_its_file_piece_by_piece(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK", 100)
    monkeypatch.setattr(exporting, "READ", 50)
    for _ in range(5):
        await in_thread(make_payment, tenant)

    lines = await exported_by_command(tenant)

    [job] = await jobs()
    assert (job.kind, job.status, job.tenant_id) == ("tenant.export", "succeeded", tenant.pk)
    assert [one["table"] for one in lines].count("payments.Payment") == 5
    assert json.loads(await queries.result(tenant.pk, job.uuid))["rows"] == len(lines)


async def test_what_the_command_decrypts_is_not_stored_as_a_file(tenant: Tenant) -> None:
    lines = await exported_by_command(tenant, "--decrypt")

    assert "registry.Tenant" in [one["table"] for one in lines]
    assert await jobs() == []


async def test_the_command_says_why_an_export_failed(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise JobFailed("the disk is full")

    monkeypatch.setattr(export, "sources", fail)

    with pytest.raises(CommandError, match="the disk is full"):
        await exported_by_command(tenant)


async def test_an_export_is_recorded_with_its_job(boss: Api) -> None:
    await exported(boss)

    [job] = await jobs()
    [entry] = await in_thread(lambda: list(AuditEntry.objects.filter(action="tenant.export")))
    assert entry.actor == f"job {job.uuid}"


async def test_only_a_key_that_may_administer_exports(api: Api) -> None:
    await submit(api, "tenant.export", 403, input={})
