"""The client's schedules against the service: save, read, run, pause, resume, delete."""

from typing import Any
from uuid import uuid4

import pytest

from registry_client import NotFound, ValidationFailed
from tests.client.unreliable import Unreliable
from tests.queueing.kinds_app import jobs as _kinds  # noqa: F401 - registers the kinds test.…

NIGHTLY: dict[str, Any] = {"cron": "0 3 * * *", "kind": "test.echo", "input": {"text": "a"}, "timezone": "Europe/Rome"}


async def test_a_schedule_is_saved_read_and_replaced(client: Any):
    made = await client.schedules.put("nightly", **NIGHTLY, overlap="queue", catch_up="all", max_attempts=2)
    found = await client.schedules.get("nightly")
    replaced = await client.schedules.put("nightly", **NIGHTLY | {"cron": "0 4 * * *"})

    assert made == found
    assert (found.cron, found.timezone, found.overlap, found.catch_up) == ("0 3 * * *", "Europe/Rome", "queue", "all")
    assert (found.kind, found.input["text"], found.max_attempts) == ("test.echo", "a", 2)
    assert found.next_at == found.next[0] and found.next_at.tzinfo
    assert (replaced.cron, replaced.overlap, replaced.catch_up) == ("0 4 * * *", "skip", "one")


async def test_a_schedule_submits_its_job_now_once_per_key(far: Any, way: Unreliable, client: Any):
    await client.schedules.put("nightly", **NIGHTLY)
    way.loses_answers()
    key = uuid4()

    job = await far.schedules.run("nightly")
    one, other = [await client.schedules.run("nightly", idempotency_key=key) for _ in range(2)]

    assert one.id == other.id != job.id
    assert (await client.jobs.page()).total == 2
    assert (await client.jobs.get(job.id)).input["text"] == "a"
    assert (await client.schedules.get("nightly")).last_job.id == one.id


async def test_a_schedule_is_paused_resumed_and_deleted(client: Any):
    await client.schedules.put("nightly", **NIGHTLY)

    paused, resumed = await client.schedules.pause("nightly"), await client.schedules.resume("nightly")
    await client.schedules.delete("nightly")

    assert (paused.paused, resumed.paused) == (True, False)
    for call in (client.schedules.get, client.schedules.run, client.schedules.pause, client.schedules.delete):
        with pytest.raises(NotFound):
            await call("nightly")


async def test_schedules_are_listed_by_name_over_pages(client: Any):
    for name in ("c", "a", "b"):
        await client.schedules.put(name, **NIGHTLY)

    assert [one.name async for one in client.schedules.list(page_size=2)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [("nightly", {"cron": "never"}, "cron"), ("nightly", {"kind": "no.such"}, "kind"), ("-", {}, "name")],
)
async def test_what_is_not_acceptable_is_named(client: Any, name: str, fields: dict[str, Any], field: str):
    with pytest.raises(ValidationFailed) as refused:
        await client.schedules.put(name, **NIGHTLY | fields)

    assert [one.field for one in refused.value.errors] == [field]
