"""Transactions: acks and pushes together or not at all, each ack fenced by its lease."""

import asyncio
from uuid import uuid4

import pytest

from tests.conftest import eventually
from tests.queueing.mq import ack_of, all_of, blocked, fresh_name, holding, payloads


def pushing(queue: str, *data: object, **fields: object) -> dict:
    return {"type": "push", "items": [{"queue": queue, "payload": d, **fields} for d in data]}


def acking(message: dict, status: str = "completed", **fields: object) -> dict:
    return {"type": "ack", **ack_of(message, status), **fields}


@pytest.fixture
def onward() -> str:
    """The queue that results go to."""
    return fresh_name("onward")


async def test_a_transaction_acks_a_message_and_pushes_its_result(mq, queue, onward):
    await mq.push(queue, "in")
    [message] = (await mq.pop(queue))["messages"]

    answer = await mq.transact(acking(message), pushing(onward, "out"))

    [ack, push] = answer["results"]
    assert answer["success"]
    assert ack == {
        "index": 0,
        "type": "ack",
        "success": True,
        "transactionId": message["transactionId"],
        "error": None,
        "dlq": False,
    }
    assert (push["index"], push["type"], push["success"], push["queueName"]) == (1, "push", True, onward)
    [result] = (await mq.pop(onward))["messages"]
    assert (result["id"], result["transactionId"], result["partitionId"]) == (
        push["messageId"],
        push["transactionId"],
        push["partitionId"],
    )
    assert await mq.at_rest(queue)


async def test_when_the_ack_is_refused_nothing_is_pushed(mq, queue, onward):
    await mq.push(queue, "in")
    popped = await mq.pop(queue)
    await mq.lapse(popped["leaseId"])

    answer = await mq.transact(pushing(onward, "out"), acking(popped["messages"][0]))

    assert (answer["success"], answer["error"]) == (False, "Invalid or expired lease")
    assert await mq.data(onward) == []
    assert await mq.data(queue) == ["in"]


async def test_when_a_push_is_a_duplicate_nothing_is_acked_or_pushed(mq, queue, onward):
    await mq.push(queue, "in")
    await mq.push_items([{"queue": onward, "payload": 0, "transactionId": "t"}])
    [message] = (await mq.pop(queue))["messages"]

    answer = await mq.transact(acking(message), pushing(onward, "x"), pushing(onward, "y", transactionId="t"))

    assert not answer["success"]
    assert "'t'" in answer["error"]
    assert await mq.data(onward, batch=10) == [0]
    assert (await mq.ack(message))["success"]


async def test_the_required_lease_fences_acks_that_name_no_lease(mq, queue, onward):
    """Clients of 0.15 name the lease there only."""
    await mq.push(queue, "in")
    popped = await mq.pop(queue)
    bare = acking(popped["messages"][0], leaseId=None)

    unfenced = await mq.transact(bare, pushing(onward, 1))
    fenced = await mq.transact(bare, pushing(onward, 2), leases=[popped["leaseId"]])

    assert (unfenced["success"], fenced["success"]) == (False, True)
    assert await mq.data(onward, batch=10) == [2]


async def test_an_expired_required_lease_refuses_the_transaction_even_without_acks(mq, queue, onward):
    await mq.push(queue, "in")
    popped = await mq.pop(queue)
    await mq.lapse(popped["leaseId"])

    lapsed = await mq.transact(pushing(onward, 1), leases=[popped["leaseId"]])
    unknown = await mq.transact(pushing(onward, 1), leases=[str(uuid4())])
    nonsense = await mq.transact(pushing(onward, 1), leases=["no lease"])

    assert [a["error"] for a in (lapsed, unknown, nonsense)] == ["Invalid or expired lease"] * 3
    assert await mq.data(onward) == []


async def test_a_lease_taken_over_by_another_reader_fences_the_first_out(mq, queue, onward):
    await mq.push(queue, "in")
    first = await mq.pop(queue)
    await mq.lapse(first["leaseId"])
    second = await mq.pop(queue)

    late = await mq.transact(acking(first["messages"][0]), pushing(onward, "twice"), leases=[first["leaseId"]])
    good = await mq.transact(acking(second["messages"][0]), pushing(onward, "once"), leases=[second["leaseId"]])

    assert (late["success"], good["success"]) == (False, True)
    assert await mq.data(onward, batch=10) == ["once"]


@pytest.mark.parametrize("status", ["failed", "dlq"])
async def test_a_failed_message_in_a_transaction_becomes_a_dead_letter_at_once(mq, queue, onward, status):
    await mq.push(queue, "bad", "good")
    [bad, good] = (await mq.pop(queue, batch=2))["messages"]

    answer = await mq.transact(acking(bad, status, error="broken"), pushing(onward, "told"))

    assert answer["results"][0]["dlq"]
    assert await mq.dead(queue) == [('"bad"', "broken")]
    assert (await mq.ack(good))["leaseReleased"]


async def test_a_message_to_be_retried_is_delivered_again_in_order(mq, queue):
    await mq.push(queue, 1, 2)
    [one, two] = (await mq.pop(queue, batch=2))["messages"]

    both = await mq.transact(acking(one, "retry"), acking(two))
    alone = await mq.transact(acking(one, "retry"))

    assert (both["success"], alone["success"]) == (False, True)
    assert await mq.data(queue, batch=2) == [1, 2]


async def test_a_transaction_respects_the_maximum(mq, queue):
    await mq.configure(queue, max_size=2)

    too_many = await mq.transact(pushing(queue, 1, 2, 3))
    enough = await mq.transact(pushing(queue, 1, 2))
    more = await mq.transact(pushing(queue, 3))

    assert [a["success"] for a in (too_many, enough, more)] == [False, True, False]
    assert "full" in more["error"]


async def test_an_oversized_transaction_and_a_repeated_one_have_errors_of_their_own(mq, queue):
    await mq.configure(queue, max_size=2)
    done = {"type": "push", "items": [{"queue": queue, "payload": n, "transactionId": f"t{n}"} for n in (1, 2)]}

    never = await mq.transact(pushing(queue, 1, 2, 3))
    first, again = await mq.transact(done), await mq.transact(done)

    assert (first["success"], again["success"]) == (True, False)
    assert "3 at once can never fit" in never["error"]
    assert "duplicate transactionId 't1'" in again["error"]


async def test_a_transaction_respects_a_maximum_that_was_just_set(mq, queue):
    await mq.push(queue, 1)
    await mq.configure(queue, max_size=1)

    first = await mq.transact(pushing(queue, 2))
    second = await mq.transact(pushing(queue, 2))

    assert ("changed meanwhile" in first["error"], "full" in second["error"]) == (True, True)


async def test_two_transactions_that_cross_each_other_both_happen(mq, queue, onward):
    """Each acks in the queue that the other pushes to, many times: no deadlock, nothing lost."""
    await mq.push(queue, *range(20))
    await mq.push(onward, *range(20))

    async def carry(source: str, target: str) -> int:
        carried = 0
        while carried < 20:
            popped = await mq.pop(source, wait=True, timeout=5000)
            [message] = popped["messages"]
            answer = await mq.transact(acking(message), pushing(target, message["data"]), leases=[message["leaseId"]])
            assert answer["success"], answer
            carried += 1
        return carried

    assert await all_of(carry(queue, onward), carry(onward, queue)) == [20, 20]
    waiting = [*await mq.data(queue, batch=100), *await mq.data(onward, batch=100)]
    assert sorted(waiting) == sorted([*range(20), *range(20)])


async def test_an_ack_waits_for_the_transaction_that_holds_its_lease_and_sees_its_result(mq, queue):
    """The reader's lease lapses while its row is held: by the time the ack has it, it is another's."""
    await mq.push(queue, 1)
    popped = await mq.pop(queue)
    lapse = "UPDATE queueing_consumer SET lease_id = %s WHERE lease_id = %s"
    async with holding(lapse, uuid4(), popped["leaseId"]):
        late = asyncio.create_task(mq.transact(acking(popped["messages"][0])))
        await eventually(blocked)

    answer = await late

    assert answer["error"] == "Invalid or expired lease"


async def test_a_transaction_pushes_to_and_acks_in_many_partitions(mq, queue, onward):
    for partition in "abc":
        await mq.push(queue, partition, partition=partition)
    messages = (await mq.pop(queue, batch=10, partitions=3))["messages"]

    answer = await mq.transact(*(acking(m) for m in messages), *(pushing(onward, 1, partition=p) for p in "xyz"))

    assert [r["type"] for r in answer["results"]] == ["ack"] * 3 + ["push"] * 3
    assert await mq.at_rest(queue)
    assert payloads(await mq.pop(onward, batch=10, partitions=10)) == [1, 1, 1]
