"""The parts of `check_books` for jobs and the message queue: they name what differs, and nothing that work in progress explains."""

import pytest

from queueing.jobs import retention
from registry.data import database
from registry.models import Tenant
from registry.tenants import books
from tests.conftest import Api
from tests.queueing.mq import Mq
from tests.queueing.test_job_retention import ended
from tests.queueing.test_jobs import run, submit


async def sentences(tenant: Tenant) -> list[str]:
    findings = await books.check([tenant.pk], lambda place, found: None)
    return [one.sentence for _, one in findings.named]


async def test_jobs_that_ran_failed_or_were_deleted_differ_in_nothing(api: Api, tenant):
    old = await submit(api)
    await submit(api, kind="test.fail", input={"text": "for good"})
    await run()
    await ended(31, old["id"])
    await retention.trim()
    await submit(api)

    assert await sentences(tenant) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "DELETE FROM queueing_jobevent WHERE sequence = 2",
            "job {job}: 2 events with the numbers 1, 3; it should be 1 to 3, each once",
        ),
        (
            "UPDATE queueing_job SET status = 'failed'",
            "job {job}: status failed; it should be succeeded, by its last event",
        ),
        (
            "DELETE FROM queueing_job",
            "event 3 of the stream of jobs: about the job with id {id}, which does not exist; it should be about a job of the tenant",
        ),
    ],
    ids=["an event deleted", "a status changed", "a job deleted"],
)
async def test_a_planted_error_of_a_job_is_named(api: Api, tenant, sql: str, expected: str):
    job = await submit(api)
    await run()
    [(id,)] = await database.fetch("SELECT id FROM queueing_job")
    await database.fetch(sql)

    assert (await sentences(tenant))[-1] == expected.format(job=job["id"], id=id)


async def test_messages_read_and_deleted_differ_in_nothing(mq: Mq, tenant, queue: str):
    await mq.push(queue, 1, 2, 3)
    popped = await mq.pop(queue, batch=3)
    await mq.ack_all(popped["messages"])
    message = popped["messages"][0]
    await mq.call("DELETE", f"/api/v1/messages/{message['partitionId']}/{message['transactionId']}", status=200)

    assert await sentences(tenant) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM queueing_message WHERE seq = 2", "2 messages; it should be 3: 3 were pushed, 0 deleted"),
        ("UPDATE queueing_partition SET removed = 1", "3 messages; it should be 2: 3 were pushed, 1 deleted"),
        (
            "UPDATE queueing_message SET seq = 9 WHERE seq = 3",
            "a message has the number 9; it should be at most 3, the number of the latest message",
        ),
        (
            "UPDATE queueing_consumer SET cursor = 5",
            "a group has read up to number 5; it should be at most 3, the number of the latest message",
        ),
    ],
    ids=["a message deleted", "a wrong count", "a message renumbered", "a cursor too far"],
)
async def test_a_planted_error_of_a_queue_is_named(mq: Mq, tenant, queue: str, sql: str, expected: str):
    await mq.push(queue, 1, 2, 3)
    await mq.pop(queue)
    await database.fetch(sql)

    assert await sentences(tenant) == [f"queue {queue}, partition Default: {expected}"]
