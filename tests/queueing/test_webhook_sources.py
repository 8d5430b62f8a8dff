"""Webhooks with two sources of events: each has numbers, types and bodies of its own, and an endpoint receives both."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from queueing.outbound import event_types, fanout, sources
from registry.data import database
from registry.data.live import Event
from registry.data.stream import EventStream
from tests.factories import in_thread, make_payment
from tests.queueing.hooks import again, deliveries, endpoint, fan_out

MAKE = """
CREATE TABLE test_jobevent (tenant_id bigint, position bigint, job uuid, at timestamptz DEFAULT now(), PRIMARY KEY (tenant_id, position))
"""
UNREAD = """
SELECT e.tenant_id, r.position, s.position, array_agg(e.id)
FROM queueing_webhookendpoint e
CROSS JOIN LATERAL (SELECT coalesce((e.positions ->> 'jobs')::bigint, 0) AS position) r
JOIN (SELECT tenant_id, max(position) AS position FROM test_jobevent GROUP BY tenant_id) s
  ON s.tenant_id = e.tenant_id AND s.position > r.position
WHERE e.enabled AND e.deleted_at IS NULL
GROUP BY 1, 2, 3 LIMIT %(limit)s
"""
EVENTS = """
SELECT position, job, at FROM test_jobevent
WHERE tenant_id = %(tenant)s AND position > %(after)s AND position <= %(upto)s ORDER BY position
"""


class JobEvent(NamedTuple):
    position: int
    subject: UUID
    at: datetime
    type: str = "job.finished"

    def data(self) -> dict[str, Any]:
        return {"job": str(self.subject)}


async def nothing(*_: Any) -> list[Event]:
    return []


async def positions(tenants: Sequence[int]) -> dict[int, int]:
    sql = "SELECT tenant_id, max(position) FROM test_jobevent WHERE tenant_id = ANY(%s) GROUP BY tenant_id"
    return dict(await database.fetch(sql, [list(tenants)]))


JOBS = sources.EventSource(
    stream=EventStream(name="jobs", since=nothing, of_subject=nothing, positions=positions),
    noun="job",
    subject_field="jobId",
    page="",
    types=("job.finished",),
    unread=UNREAD,
    events=EVENTS,
    event=lambda row: JobEvent(*row),
    examples=("job.finished",) * 3,
    example=lambda *_: {},
)


@pytest.fixture
async def jobs(tenant, monkeypatch) -> AsyncIterator[None]:
    """A second source, with a table of its own."""
    await database.fetch(MAKE)
    monkeypatch.setitem(sources.SOURCES, "jobs", JOBS)
    yield
    await database.fetch("DROP TABLE test_jobevent")


async def finish(tenant, number: int, job: UUID | None = None) -> UUID:
    job = job or uuid4()
    await database.fetch(
        "INSERT INTO test_jobevent (tenant_id, position, job) VALUES (%s, %s, %s)", [tenant.pk, number, job]
    )
    return job


async def test_an_endpoint_receives_the_events_of_both_sources_once_and_keeps_a_position_for_each(tenant, jobs):
    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook")
    await in_thread(make_payment, tenant)
    await finish(tenant, 1)
    await finish(tenant, 2)

    await fan_out(rounds=3)

    assert sorted(one.type for one in await deliveries(hook)) == ["job.finished", "job.finished", "payment.queued"]
    assert (await again(hook)).positions == {"payments": 1, "jobs": 2}


async def test_an_endpoint_receives_only_the_types_that_it_subscribes_to_whatever_their_source(tenant, jobs):
    of_jobs = await endpoint(tenant, "http://127.0.0.1:9999/jobs", "job.*")
    of_payments = await endpoint(tenant, "http://127.0.0.1:9999/payments", "payment.*")
    await in_thread(make_payment, tenant)
    job = await finish(tenant, 1)

    await fan_out(rounds=2)

    [one] = await deliveries(of_jobs)
    assert (one.subject, one.body.endswith(f'"data":{{"job":"{job}"}}}}')) == (job, True)
    assert [one.type for one in await deliveries(of_payments)] == ["payment.queued"]


async def test_a_new_endpoint_starts_at_the_latest_event_of_each_source(tenant, jobs):
    await in_thread(make_payment, tenant)
    await finish(tenant, 1)

    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook")
    await fan_out()

    assert (await again(hook)).positions == {"payments": 1, "jobs": 1}
    assert await deliveries(hook) == []


async def test_an_endpoint_older_than_a_source_receives_that_source_from_its_first_event(tenant, jobs):
    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook")
    await database.fetch("UPDATE queueing_webhookendpoint SET positions = positions - 'jobs' WHERE id = %s", [hook.pk])
    await finish(tenant, 1)

    await fan_out()

    assert [one.type for one in await deliveries(hook)] == ["job.finished"]


async def test_objects_of_different_sources_do_not_wait_for_each_other(tenant, jobs):
    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook", ordered=True)
    await in_thread(make_payment, tenant)
    job = await finish(tenant, 1)
    await finish(tenant, 2, job)

    await fan_out(rounds=2)

    states = {(one.type, one.position): one.status for one in await deliveries(hook)}
    assert states == {("payment.queued", 1): "pending", ("job.finished", 1): "pending", ("job.finished", 2): "held"}


async def test_a_fan_out_that_another_worker_has_done_creates_no_second_deliveries(tenant, jobs):
    """Both have read the same unread events; the second finds the position moved."""
    hook = await endpoint(tenant, "http://127.0.0.1:9999/hook")
    await finish(tenant, 1)
    [(tenant_id, after, latest, ids)] = await database.fetch(UNREAD, {"limit": 10})
    await fan_out()

    await fanout._spread(JOBS, tenant_id, after, latest, ids)

    assert [one.position for one in await deliveries(hook)] == [1]


async def test_filters_know_the_types_of_every_source(jobs):
    assert event_types.read_filters(["job.*", "payment.succeeded"]) == ["job.", "payment.succeeded"]
    assert sources.source_of("job.finished") is JOBS
