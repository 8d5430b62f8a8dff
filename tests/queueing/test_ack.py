"""Acks: fenced by the lease, the cursor only moves forward, failures are limited."""

import asyncio
import random
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg
import pytest

from queueing.broker import ack_completed
from queueing.broker.ack_completed import CompletedAcks
from queueing.broker.ack_decision import LeasedConsumer, NumberedAck, decide
from queueing.broker.ack_request import COMPLETED, DEAD, FAILED, RETRY, Ack, check
from registry.data import database
from tests.conftest import eventually
from tests.queueing.mq import ack_of, all_of, blocked, holding

FENCED = "Invalid or expired lease"

# -- The fence ---------------------------------------------------------------------------------------------------


async def test_the_result_of_an_ack_is_complete(mq, queue):
    await mq.push(queue, 1, partition="p")
    [message] = (await mq.pop(queue))["messages"]

    verdict = await mq.ack(message)

    assert verdict == {
        "index": 0,
        "transactionId": message["transactionId"],
        "success": True,
        "error": None,
        "queueName": queue,
        "partitionName": "p",
        "leaseReleased": True,
        "dlq": False,
    }


@pytest.mark.parametrize("status", ["completed", "success", "failed", "retry", "dlq"])
async def test_an_ack_of_any_status_requires_the_current_lease(mq, queue, status):
    await mq.push(queue, 1)
    popped = await mq.pop(queue)
    [message] = popped["messages"]

    without = await mq.ack(message, status, leaseId=None)
    foreign = await mq.ack(message, status, leaseId=str(uuid4()))
    nonsense = await mq.ack(message, status, leaseId="lease")
    await mq.lapse(popped["leaseId"])
    lapsed = await mq.ack(message, status)

    assert [v["success"] for v in (without, foreign, nonsense, lapsed)] == [False] * 4
    assert [v["error"] for v in (foreign, nonsense, lapsed)] == [FENCED] * 3
    assert await mq.data(queue) == [1]


async def test_a_reader_without_the_lease_cannot_ack_for_its_holder(mq, queue):
    await mq.push(queue, 1)
    first = await mq.pop(queue)
    await mq.lapse(first["leaseId"])
    second = await mq.pop(queue)

    late = await mq.ack(first["messages"][0])
    good = await mq.ack(second["messages"][0])

    assert (late["error"], good["success"]) == (FENCED, True)


async def test_a_lease_of_one_group_is_invalid_in_another(mq, queue):
    await mq.push(queue, 1)
    [a] = (await mq.pop(queue, consumerGroup="a"))["messages"]
    await mq.pop(queue, consumerGroup="b")

    verdict = await mq.ack(a, consumerGroup="b")

    assert verdict["error"] == FENCED


async def test_an_ack_of_another_tenants_message_is_not_found(mq, foreign, queue):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]

    verdicts = [await foreign.ack(message, status) for status in ("completed", "failed")]
    extended = await foreign.call("POST", f"/api/v1/lease/{message['leaseId']}/extend", json={}, status=200)

    assert [v["error"] for v in verdicts] == ["Message not found"] * 2
    assert {v["queueName"] for v in verdicts} == {None}
    assert extended[0]["error"] == "Lease not found"
    assert (await mq.ack(message))["success"]


@pytest.mark.parametrize("status", ["failed", "retry", "dlq"])
async def test_an_ack_whose_commit_is_not_confirmed_is_never_reported_as_refused(mq, queue, monkeypatch, status):
    """It went through: a second try would find its lease ended, and tell the reader the opposite."""
    await mq.configure(queue, retry_delay_ms=0)
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]
    transaction, lost = database.transaction, []

    @asynccontextmanager
    async def unanswered():
        async with transaction() as conn:
            yield conn
        if not lost:
            lost.append(1)
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(database, "transaction", unanswered)

    answer = await mq.call("POST", "/api/v1/ack", json=ack_of(message, status), status=503)

    assert "error" in answer
    assert [row["lease"] for row in await mq.consumers(queue)] == [None]


# -- The cursor --------------------------------------------------------------------------------------------------


async def test_an_ack_of_a_message_completes_all_before_it(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [_, two, _] = (popped := await mq.pop(queue, batch=3))["messages"]

    verdict = await mq.ack(two)
    await mq.lapse(popped["leaseId"])

    assert (verdict["success"], verdict["leaseReleased"]) == (True, False)
    assert await mq.data(queue, batch=3) == [3]


@pytest.mark.parametrize(
    ("order", "refused", "left"),
    [
        ([0, 1, 2, 3], [], []),  # as delivered: found by one scan
        ([0, 1], [], [3, 4]),
        ([3, 2, 1, 0], [], []),
        ([1, 2], [], [4]),  # the last one completes those before it
        ([0, 0, 1], [], [3, 4]),
        ([0, None, 1], [1], [3, 4]),
        ([None], [0], [1, 2, 3, 4]),
    ],
)
async def test_a_batch_finds_its_messages_in_any_order(mq, queue, order, refused, left):
    await mq.push(queue, 1, 2, 3, 4)
    popped = await mq.pop(queue, batch=4)
    messages = popped["messages"]
    unknown = {**messages[0], "transactionId": "nobody's"}

    verdicts = await mq.ack_all([unknown if place is None else messages[place] for place in order])

    assert [place for place, one in enumerate(verdicts) if one["error"] == "Message not found"] == refused
    assert [one["success"] for one in verdicts].count(True) == len(order) - len(refused)
    if left:
        await mq.lapse(popped["leaseId"])
    assert await mq.data(queue, batch=4) == left


async def test_an_ack_of_an_older_message_never_moves_the_cursor_back(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [one, two, _] = (popped := await mq.pop(queue, batch=3))["messages"]
    await mq.ack(two)

    again = await mq.ack(one)
    otherwise = await mq.ack(one, "failed")
    await mq.lapse(popped["leaseId"])

    assert (again["success"], otherwise["success"]) == (True, False)
    assert await mq.data(queue, batch=3) == [3]


async def test_a_message_that_was_not_leased_cannot_be_acked(mq, queue):
    pushed = await mq.push(queue, 1, 2)
    [one] = (await mq.pop(queue))["messages"]

    verdicts = [await mq.ack(one, s, transactionId=pushed[1]["transaction_id"]) for s in ("completed", "dlq")]
    unknown = await mq.ack(one, transactionId="nobody's")

    assert [v["error"] for v in (*verdicts, unknown)] == ["Message not found"] * 3
    assert (await mq.ack(one))["leaseReleased"]
    assert await mq.data(queue) == [2]


async def test_the_lease_ends_with_its_last_message_and_the_partition_can_be_leased_again(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [one, two] = (await mq.pop(queue, batch=2))["messages"]

    verdicts = [await mq.ack(one), await mq.ack(two)]

    assert [v["leaseReleased"] for v in verdicts] == [False, True]
    assert await mq.data(queue) == [3]


# -- Leases ------------------------------------------------------------------------------------------------------


async def extend(mq, lease: str, **body: int) -> dict:
    [verdict] = await mq.call("POST", f"/api/v1/lease/{lease}/extend", json=body, status=200)
    return verdict


async def seconds_left(mq, lease: str) -> list[float]:
    rows = await mq.sql(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM queueing_consumer WHERE lease_id = %s", lease
    )
    return [seconds for (seconds,) in rows]


async def test_a_lease_is_extended_on_every_partition_it_covers(mq, queue):
    await mq.configure(queue, lease_seconds=10)
    for partition in "abc":
        await mq.push(queue, 1, partition=partition)
    lease = (await mq.pop(queue, batch=10, partitions=3))["leaseId"]

    verdict = await extend(mq, lease, seconds=100)

    left = await seconds_left(mq, lease)
    assert (verdict["success"], verdict["error"], verdict["leaseId"]) == (True, None, lease)
    assert verdict["expiresAt"].endswith("Z")
    assert len(left) == 3
    assert all(90 < seconds <= 100 for seconds in left)


async def test_a_lease_never_gets_shorter(mq, queue):
    await mq.configure(queue, lease_seconds=100)
    await mq.push(queue, 1)
    lease = (await mq.pop(queue))["leaseId"]

    await extend(mq, lease, seconds=5)

    assert (await seconds_left(mq, lease))[0] > 90


async def test_an_expired_lease_cannot_be_extended(mq, queue):
    await mq.push(queue, 1)
    lease = (await mq.pop(queue))["leaseId"]
    await mq.lapse(lease)

    verdicts = [await extend(mq, lease), await extend(mq, str(uuid4())), await extend(mq, "nonsense")]

    assert [v["success"] for v in verdicts] == [False] * 3
    assert [v["error"] for v in verdicts] == ["Lease already expired", "Lease not found", "Lease not found"]


async def test_concurrent_acks_of_one_message_all_succeed(mq, queue):
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]

    verdicts = await all_of(*(mq.ack(one) for _ in range(10)))

    assert any(v["success"] for v in verdicts)
    assert {v["error"] for v in verdicts if not v["success"]} <= {FENCED}
    assert await mq.at_rest(queue)


async def test_a_message_far_behind_the_cursor_can_be_acked_failed_and_made_a_dead_letter(mq, queue):
    """Numbers beyond the smaller integers, of the message and of its partition, which others of a statement are within."""
    await mq.push(queue, 0)
    await mq.data(queue, autoAck=True)
    beyond = "SELECT setval('queueing_partition_id_seq', greatest(100_000, last_value)) FROM queueing_partition_id_seq"
    await mq.sql(beyond)
    await mq.call("POST", "/api/v1/configure", json={"queue": queue, "options": {"retryDelay": 0}}, status=200)
    await mq.push(queue, 1, partition="late")
    await mq.data(queue, autoAck=True)
    await mq.sql("UPDATE queueing_partition SET last_seq = 5_000_000_000 WHERE name = 'late'")
    await mq.push(queue, 2, 3, 4, partition="late")

    [two, three, four] = (await mq.pop(queue, batch=3))["messages"]
    done = await mq.ack_all([two, three], ["completed", "dlq"])
    failed = await mq.ack(four, "failed")
    [four] = (await mq.pop(queue))["messages"]
    last = await mq.ack(four)

    assert [verdict["success"] for verdict in (*done, failed, last)] == [True] * 4
    assert [verdict["dlq"] for verdict in done] == [False, True]
    assert await mq.at_rest(queue)


async def test_concurrent_acks_of_several_partitions_lock_them_in_one_order(mq, queue):
    """Two processes, each with acks of the same two partitions, the other way round: neither waits for the other."""
    for name in ("a", "b", "c", "d"):
        await mq.push(queue, 1, 2, 3, partition=name)  # the third keeps the lease alive
    found = {name: (await mq.pop(queue, name, batch=3))["messages"] for name in ("a", "b", "c", "d")}
    tie = "SELECT FROM queueing_consumer WHERE lease_id = %s FOR UPDATE"
    forth = [found["a"][0], found["c"][0], found["b"][0]]
    back = [found["b"][1], found["d"][0], found["a"][1]]

    async with holding(tie, found["c"][0]["leaseId"]) as conn:
        await database.rows(conn, tie, (found["d"][0]["leaseId"],))
        tasks = [asyncio.create_task(ack_completed.write_batch([_of(mq, messages)])) for messages in (forth, back)]
        await eventually(lambda: blocked(2))
    verdicts = await asyncio.gather(*tasks)

    assert [outcome.error for [request] in verdicts for outcome in request] == [None] * 6


def _of(mq, messages) -> CompletedAcks:
    acks = [Ack(m["transactionId"], m["partitionId"], COMPLETED, m["leaseId"], m["consumerGroup"]) for m in messages]
    return CompletedAcks(mq.tenant_id, check(mq.tenant_id, acks)[1])


# -- What follows, as a decision ---------------------------------------------------------------------------------


def test_the_cursor_only_moves_forward_and_never_past_a_message_that_is_to_be_tried_again():
    dice = random.Random(7)
    for _ in range(5000):
        consumer = some_consumer(dice)
        acks = some_acks(dice, consumer)

        decision = decide(consumer, acks, at_once=dice.random() < 0.2)

        update, passed = decision.update, {dead.seq for dead in decision.dead}
        outcomes = {outcome.index: outcome for outcome in decision.outcomes}
        completed = {one.seq for one in acks if one.status == COMPLETED and outcomes[one.index].error is None}
        again = [one.seq for one in acks if one.status in (FAILED, RETRY) and not given_up(one, decision)]
        assert consumer.cursor <= update.cursor <= consumer.delivered
        assert update.cursor in {consumer.cursor, *completed} | set(range(consumer.cursor + 1, consumer.delivered + 1))
        assert all(update.cursor < seq for seq in again)
        assert all(seq <= update.cursor for seq in completed)
        assert update.release == (bool(again) or update.cursor == consumer.delivered)
        assert len(outcomes) == len(acks)
        assert passed <= {one.seq for one in acks if one.status in (FAILED, DEAD)}
        assert (update.attempt > consumer.attempt) == any(
            one.status == FAILED and not given_up(one, decision) for one in acks
        )


def given_up(one: NumberedAck, decision) -> bool:
    dead = any(outcome.index == one.index and outcome.dead_letter for outcome in decision.outcomes)
    return one.seq <= decision.update.buried and dead


def some_consumer(dice: random.Random) -> LeasedConsumer:
    cursor = dice.randint(0, 5)
    return LeasedConsumer(
        lease=uuid4(),
        partition=1,
        group=1,
        group_name="g",
        cursor=cursor,
        delivered=cursor + dice.randint(1, 8),
        buried=0,
        attempt=dice.randint(0, 4),
        retry_limit=dice.randint(0, 4),
        retry_delay_ms=dice.choice([0, 1000]),
        dead_letter_after_retries=dice.random() < 0.8,
        dead_letter_queue=True,
    )


def some_acks(dice: random.Random, consumer: LeasedConsumer) -> list[NumberedAck]:
    waiting = range(consumer.cursor + 1, consumer.delivered + 1)
    numbers = dice.sample(waiting, dice.randint(1, consumer.delivered - consumer.cursor))
    return [NumberedAck(n, seq, dice.choice([COMPLETED, FAILED, DEAD, RETRY])) for n, seq in enumerate(numbers)]
