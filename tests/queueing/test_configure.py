"""Options of a queue: validated, merged or replaced, and each one applied."""

import asyncio

import pytest
from queen import Queen

from queueing.broker import retention
from queueing.broker.options import OPTIONS
from queueing.models.broker import Queue
from tests.conftest import Api, make_key
from tests.queueing.mq import payloads


async def configure(mq, queue, status=200, **body):
    return await mq.call("POST", "/api/v1/configure", json={"queue": queue, **body}, status=status)


@pytest.fixture
def options(mq, queue):
    async def set_options(**options):
        return (await configure(mq, queue, options=options))["options"]

    return set_options


async def test_a_queue_is_made_with_the_defaults_and_a_partition(mq):
    made = await configure(mq, "orders.billing")

    assert made["options"] == {option.name: option.default for option in OPTIONS}
    assert (made["configured"], made["queue"], made["namespace"], made["task"]) == (
        True,
        "orders.billing",
        "orders",
        "billing",
    )
    assert await mq.sql("SELECT name FROM queueing_partition WHERE tenant_id = %s", mq.tenant_id) == [("Default",)]


def test_the_defaults_are_those_of_the_tables():
    assert {o.column: o.default for o in OPTIONS} == {
        o.column: Queue._meta.get_field(o.column).db_default for o in OPTIONS
    }


async def test_options_that_are_not_named_keep_their_values(mq, queue):
    await configure(mq, queue, options={"leaseTime": 7, "retryLimit": 9}, namespace="n", task="t")

    done = await configure(mq, queue, options={"retryLimit": 1})

    assert (done["options"]["leaseTime"], done["options"]["retryLimit"]) == (7, 1)
    assert (done["namespace"], done["task"]) == ("n", "t")


async def test_replace_sets_the_rest_to_the_defaults(mq, queue):
    await configure(mq, queue, options={"leaseTime": 7, "retryLimit": 9, "deadLetterQueue": False})

    done = await configure(mq, queue, options={"retryLimit": 1}, mode="replace")

    assert done["options"] == {option.name: option.default for option in OPTIONS} | {"retryLimit": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"options": {"leaseTimes": 1}}, "unknown option 'leaseTimes'; allowed: leaseTime, retryLimit"),
        ({"options": {"leaseTime": 0}}, "leaseTime wants a whole number from 1"),
        ({"options": {"ttl": -1}}, "ttl wants a whole number from 0"),
        ({"options": {"maxSize": 10**16}}, "maxSize wants a whole number"),
        ({"options": {"retryLimit": 1.5}}, "retryLimit wants a whole number"),
        ({"options": {"retryLimit": "3"}}, "retryLimit wants a whole number"),
        ({"options": {"retryLimit": True}}, "retryLimit wants a whole number"),
        ({"options": {"retentionEnabled": 1}}, "retentionEnabled wants true or false"),
        ({"options": {"encryptionEnabled": True}}, "QUEUE_ENCRYPTION_KEYS"),
        ({"mode": "overwrite"}, "mode wants merge or replace"),
        ({"namespace": "n" * 256}, "namespace has 256 characters"),
    ],
)
async def test_invalid_options_are_refused_with_an_explanation_and_no_queue_is_created(mq, queue, body, words):
    refused = await configure(mq, queue, status=400, **body)

    assert words in refused["error"]
    assert await mq.sql("SELECT 1 FROM queueing_queue WHERE tenant_id = %s", mq.tenant_id) == []


async def test_a_key_that_may_only_read_configures_nothing(server, tenant, queue):
    async with Api(server, await make_key(tenant, "read")) as reader:
        async with reader.post("/api/v1/configure", json={"queue": queue}) as response:
            assert response.status == 403


async def test_the_client_of_the_contract_configures(server, api, key, mq, queue):
    async with Queen({"urls": [server], "bearer_token": key}) as client:
        await client.queue(queue).config({"lease_time": 12, "max_size": 5}).create()

    rows = await mq.sql("SELECT lease_seconds, max_size, encrypted FROM queueing_queue WHERE name = %s", queue)
    assert rows == [(12, 5, False)]


# -- Each option does what it says -------------------------------------------------------------------------------


async def test_a_shorter_delay_applies_to_waiting_messages(mq, queue, options):
    await options(delayedProcessing=600)
    await mq.pop(queue)
    await mq.push(queue, 1)
    assert await mq.pop(queue) is None

    await options(delayedProcessing=0)

    assert await mq.data(queue) == [1]


async def test_a_longer_delay_applies_to_waiting_messages(mq, queue, options):
    await options()
    await mq.pop(queue)
    await mq.push(queue, 1)

    await options(delayedProcessing=600)

    assert await mq.pop(queue) is None


async def test_waiting_messages_are_delivered_once_the_window_is_removed(mq, queue, options):
    await options(windowBuffer=600)
    await mq.pop(queue)
    await mq.push(queue, 1)
    assert await mq.pop(queue) is None

    await options(windowBuffer=0)

    assert await mq.data(queue) == [1]


async def test_a_time_to_live_applies_to_waiting_messages(mq, queue, options):
    await options()
    await mq.pop(queue)
    await mq.push(queue, "old")
    await mq.age(queue, 100)
    await mq.push(queue, "new")

    await options(ttl=50)

    assert await mq.data(queue, batch=10) == ["new"]


async def test_a_parked_reader_is_woken_when_the_delay_is_removed(mq, queue, options):
    await options(delayedProcessing=600)
    await mq.pop(queue)
    await mq.push(queue, 1)

    waiting = asyncio.create_task(mq.data(queue, wait=True, timeout=8000))
    await options(delayedProcessing=0)

    assert await asyncio.wait_for(waiting, 5) == [1]


async def test_a_queue_takes_no_more_than_its_maximum(mq, queue, options):
    await options(maxSize=2)

    verdicts = await mq.push(queue, 1, 2, 3)

    assert [verdict["status"] for verdict in verdicts] == ["queued", "queued", "failed"]


async def test_higher_priority_comes_first_within_a_namespace(mq):
    await configure(mq, "n.low", options={"priority": 1})
    await configure(mq, "n.high", options={"priority": 5})
    await mq.push("n.low", "low")
    await mq.push("n.high", "high")

    assert await mq.data("", namespace="n") == ["high"]


async def test_a_lease_lasts_for_its_lease_time(mq, queue, options):
    await options(leaseTime=60)
    await mq.push(queue, 1)
    await mq.pop(queue)
    await mq.age(queue, 58)
    early = await mq.data(queue)

    await mq.age(queue, 3)

    assert (early, await mq.data(queue)) == ([], [1])


async def test_the_retry_limit_and_the_retry_delay_are_options_of_the_queue(mq, queue, options):
    await options(retryLimit=1, retryDelay=600_000)
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]

    await mq.ack(message, "failed")
    early = await mq.pop(queue)
    await mq.wake_retries(queue)
    [again] = (await mq.pop(queue))["messages"]
    await mq.ack(again, "failed")

    assert early is None
    assert [payload for payload, _ in await mq.dead(queue)] == ["1"]


async def test_without_dead_letters_a_message_is_dropped_after_its_last_try(mq, queue, options):
    await options(retryLimit=0, deadLetterQueue=False)
    await mq.push(queue, 1, 2)
    await mq.ack((await mq.pop(queue))["messages"][0], "failed")

    assert await mq.data(queue) == [2]
    assert await mq.dead(queue) == []


async def test_without_a_limit_a_message_is_retried_for_ever(mq, queue, options):
    await options(retryLimit=0, retryDelay=0, dlqAfterMaxRetries=False)
    await mq.push(queue, 1)

    for _ in range(3):
        await mq.ack((await mq.pop(queue))["messages"][0], "failed")

    assert payloads(await mq.pop(queue)) == [1]


async def test_retention_works_by_the_contracts_names(mq, queue, options):
    await options(retentionEnabled=True, retentionSeconds=50)
    await mq.push(queue, "old")
    await mq.age(queue, 100)
    await mq.push(queue, "new")

    assert await retention.by_age() == 1
    assert await mq.data(queue, batch=10) == ["new"]
