"""What readers say of their messages: fenced by the lease, forward only, with a limit to every failure."""

import random
from uuid import uuid4

import pytest

from queueing.broker.ack import COMPLETED, DEAD, FAILED, RETRY, Held, Said, decide
from tests.queueing.mq import all_of, payloads

FENCED = "Invalid or expired lease"

# -- The fence ---------------------------------------------------------------------------------------------------


async def test_what_was_done_is_told_in_full(mq, queue):
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
async def test_an_ack_of_any_kind_counts_only_with_the_lease_that_is_alive(mq, queue, status):
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


async def test_who_lost_the_lease_cannot_finish_for_the_one_who_has_it(mq, queue):
    await mq.push(queue, 1)
    first = await mq.pop(queue)
    await mq.lapse(first["leaseId"])
    second = await mq.pop(queue)

    late = await mq.ack(first["messages"][0])
    good = await mq.ack(second["messages"][0])

    assert (late["error"], good["success"]) == (FENCED, True)


async def test_the_lease_of_one_group_is_nothing_in_another(mq, queue):
    await mq.push(queue, 1)
    [a] = (await mq.pop(queue, consumerGroup="a"))["messages"]
    await mq.pop(queue, consumerGroup="b")

    verdict = await mq.ack(a, consumerGroup="b")

    assert verdict["error"] == FENCED


async def test_another_tenants_ack_is_of_something_unknown(mq, foreign, queue):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]

    verdicts = [await foreign.ack(message, status) for status in ("completed", "failed")]
    extended = await foreign.call("POST", f"/api/v1/lease/{message['leaseId']}/extend", json={}, status=200)

    assert [v["error"] for v in verdicts] == ["Message not found"] * 2
    assert {v["queueName"] for v in verdicts} == {None}
    assert extended[0]["error"] == "Lease not found"
    assert (await mq.ack(message))["success"]


# -- The cursor --------------------------------------------------------------------------------------------------


async def test_a_later_message_done_means_all_before_it_are(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [_, two, _] = (popped := await mq.pop(queue, batch=3))["messages"]

    verdict = await mq.ack(two)
    await mq.lapse(popped["leaseId"])

    assert (verdict["success"], verdict["leaseReleased"]) == (True, False)
    assert await mq.data(queue, batch=3) == [3]


async def test_an_ack_of_an_older_message_never_moves_the_cursor_back(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [one, two, _] = (popped := await mq.pop(queue, batch=3))["messages"]
    await mq.ack(two)

    again = await mq.ack(one)
    otherwise = await mq.ack(one, "failed")
    await mq.lapse(popped["leaseId"])

    assert (again["success"], otherwise["success"]) == (True, False)
    assert await mq.data(queue, batch=3) == [3]


async def test_what_was_not_handed_out_cannot_be_acked(mq, queue):
    pushed = await mq.push(queue, 1, 2)
    [one] = (await mq.pop(queue))["messages"]

    verdicts = [await mq.ack(one, s, transactionId=pushed[1]["transaction_id"]) for s in ("completed", "dlq")]
    unknown = await mq.ack(one, transactionId="nobody's")

    assert [v["error"] for v in (*verdicts, unknown)] == ["Message not found"] * 3
    assert (await mq.ack(one))["leaseReleased"]
    assert await mq.data(queue) == [2]


async def test_the_lease_ends_with_the_last_message_and_the_next_may_be_had(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [one, two] = (await mq.pop(queue, batch=2))["messages"]

    verdicts = [await mq.ack(one), await mq.ack(two)]

    assert [v["leaseReleased"] for v in verdicts] == [False, True]
    assert await mq.data(queue) == [3]


# -- Failures ----------------------------------------------------------------------------------------------------


async def test_a_later_ack_never_passes_a_failed_one(mq, queue):
    await mq.configure(queue, retry_delay_ms=0)
    await mq.push(queue, *range(5))
    messages = (await mq.pop(queue, batch=5))["messages"]

    verdicts = await mq.ack_all(messages, ["completed", "failed", "completed", "completed", "completed"])

    assert [v["success"] for v in verdicts] == [True, True, False, False, False]
    assert "will be delivered again" in verdicts[2]["error"]
    assert await mq.data(queue, batch=5) == [1, 2, 3, 4]


async def test_what_failed_is_tried_again_so_often_and_then_is_a_dead_letter(mq, queue):
    await mq.configure(queue, retry_limit=2, retry_delay_ms=0)
    await mq.push(queue, "bad", "good")

    tries = []
    for _ in range(3):
        [bad, *_] = (await mq.pop(queue, batch=10))["messages"]
        tries.append(await mq.ack(bad, "failed", error="boom"))

    assert [v["dlq"] for v in tries] == [False, False, True]
    assert await mq.dead(queue) == [('"bad"', "boom")]
    assert [row["lease"] is None for row in await mq.consumers(queue)] == [False]  # the good one is still in hand


async def test_without_a_word_the_reason_is_that_tries_ran_out(mq, queue):
    await mq.configure(queue, retry_limit=0)
    await mq.push(queue, "bad")
    [bad] = (await mq.pop(queue))["messages"]

    await mq.ack(bad, "failed")

    assert await mq.dead(queue) == [('"bad"', "Retries exhausted")]


async def test_the_wait_before_the_next_try_is_kept(mq, queue):
    await mq.configure(queue, retry_delay_ms=60_000)
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]

    await mq.ack(one, "failed")
    at_once = await mq.data(queue)
    await mq.wake_retries(queue)

    assert (at_once, await mq.data(queue)) == ([], [1])


async def test_to_give_a_message_back_is_no_failure(mq, queue):
    await mq.configure(queue, retry_limit=0)
    await mq.push(queue, 1)

    for _ in range(5):
        [one] = (await mq.pop(queue))["messages"]
        assert (await mq.ack(one, "retry"))["success"]

    assert await mq.data(queue) == [1]
    assert await mq.dead(queue) == []


async def test_failures_of_one_message_are_not_held_against_the_next(mq, queue):
    await mq.configure(queue, retry_limit=1, retry_delay_ms=0)
    await mq.push(queue, "a", "b")
    [a] = (await mq.pop(queue))["messages"]
    await mq.ack(a, "failed")
    [a] = (await mq.pop(queue))["messages"]
    await mq.ack(a, "failed")

    [b] = (await mq.pop(queue))["messages"]
    verdict = await mq.ack(b, "failed")

    assert b["data"] == "b"
    assert not verdict["dlq"]


async def test_a_queue_without_dead_letters_drops_what_is_out_of_tries(mq, queue):
    await mq.configure(queue, dead_letter_queue=False, retry_limit=0)
    await mq.push(queue, "bad", "good")
    [bad] = (await mq.pop(queue))["messages"]

    verdict = await mq.ack(bad, "failed")

    assert (verdict["success"], verdict["dlq"]) == (True, False)
    assert await mq.dead(queue) == []
    assert await mq.data(queue) == ["good"]


async def test_what_was_dropped_does_not_come_again_with_its_elders(mq, queue):
    """The first of the batch is still in hand when the second is out of tries, and then its reader goes silent."""
    await mq.configure(queue, dead_letter_queue=False, retry_limit=0)
    await mq.push(queue, 1, 2, 3)
    [_, two, _] = (popped := await mq.pop(queue, batch=3))["messages"]
    await mq.ack(two, "failed")

    await mq.lapse(popped["leaseId"])
    first = await mq.pop(queue, batch=3)
    await mq.ack_all(first["messages"])
    rest = await mq.pop(queue, batch=3)

    assert payloads(first) + payloads(rest) == [1, 3]


async def test_a_queue_may_try_without_end(mq, queue):
    await mq.configure(queue, dead_letter_after_retries=False, retry_limit=0, retry_delay_ms=0)
    await mq.push(queue, "bad")

    for _ in range(5):
        [bad] = (await mq.pop(queue))["messages"]
        assert not (await mq.ack(bad, "failed"))["dlq"]
    for _ in range(5):
        await mq.lapse((await mq.pop(queue))["leaseId"])

    assert await mq.data(queue) == ["bad"]
    assert await mq.dead(queue) == []


async def test_dlq_gives_up_at_once_and_the_others_of_the_batch_go_on(mq, queue):
    await mq.push(queue, 1, 2, 3)
    messages = (await mq.pop(queue, batch=3))["messages"]

    verdicts = await mq.ack_all(messages, ["completed", "dlq", "completed"])

    assert [(v["success"], v["dlq"]) for v in verdicts] == [(True, False), (True, True), (True, False)]
    assert verdicts[2]["leaseReleased"]
    assert [payload for payload, _ in await mq.dead(queue)] == ["2"]
    assert await mq.at_rest(queue)


@pytest.mark.parametrize("order", [(2, 1, 0), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
async def test_given_up_in_any_order_the_lease_ends_when_nothing_is_left(mq, queue, order):
    """One message is done, two are given up on, each in a call of its own."""
    await mq.push(queue, 0, 1, 2)
    messages = (await mq.pop(queue, batch=3))["messages"]

    verdicts = [await mq.ack(messages[n], "completed" if n == 0 else "dlq") for n in order]

    assert [v["leaseReleased"] for v in verdicts] == [False, False, True]
    assert len(await mq.dead(queue)) == 2
    assert await mq.at_rest(queue)
    assert await mq.pop(queue) is None


async def test_what_was_given_up_does_not_come_again_when_its_elders_do(mq, queue):
    await mq.push(queue, 1, 2)
    [_, two] = (popped := await mq.pop(queue, batch=2))["messages"]
    await mq.ack(two, "dlq")

    await mq.lapse(popped["leaseId"])
    again = await mq.pop(queue, batch=2)
    await mq.ack_all(again["messages"])

    assert payloads(again) == [1]
    assert await mq.at_rest(queue)
    assert len(await mq.dead(queue)) == 1


async def test_a_batch_over_many_partitions_is_judged_partition_by_partition(mq, queue):
    await mq.configure(queue, retry_delay_ms=0)
    for partition in "ab":
        await mq.push(queue, f"{partition}1", f"{partition}2", partition=partition)
    messages = (await mq.pop(queue, batch=10, partitions=2))["messages"]

    verdicts = await mq.ack_all(messages, ["failed", "completed", "completed", "completed"])

    assert [v["success"] for v in verdicts] == [True, False, True, True]
    assert await mq.data(queue, batch=10, partitions=2) == ["a1", "a2"]


async def test_a_bad_ack_in_a_batch_fails_alone(mq, queue):
    await mq.push(queue, 1, 2)
    [one, two] = (await mq.pop(queue, batch=2))["messages"]

    verdicts = await mq.ack_all([one, {**two, "partitionId": "nonsense"}, two], ["success", "completed", "completed"])
    [wrong] = await mq.ack_all([one], ["undecided"])

    assert [v["success"] for v in verdicts] == [True, False, True]
    assert [v["index"] for v in verdicts] == [0, 1, 2]
    assert (wrong["success"], "undecided" in wrong["error"] or "status wants" in wrong["error"]) == (False, True)


async def test_nothing_to_ack_is_no_fault(mq):
    assert await mq.ack_all([]) == []


# -- Who goes silent -----------------------------------------------------------------------------------------------


async def test_a_message_that_kills_its_readers_is_found_and_the_innocent_are_not_punished(mq, queue):
    await mq.push(queue, "a", "b", "killer", "d", "e")
    done: list[str] = []
    deaths = 0

    while popped := await mq.pop(queue, batch=5):
        if "killer" in payloads(popped):
            deaths += 1
            await mq.lapse(popped["leaseId"])
        else:
            done += payloads(popped)
            await mq.ack_all(popped["messages"])

    assert done == ["a", "b", "d", "e"]
    assert [payload for payload, _ in await mq.dead(queue)] == ['"killer"']
    assert deaths <= 2 * (3 + 1)  # with the others, then alone
    assert await mq.at_rest(queue)


async def test_silence_and_failure_count_together(mq, queue):
    await mq.configure(queue, retry_limit=2, retry_delay_ms=0)
    await mq.push(queue, "bad")
    await mq.lapse((await mq.pop(queue))["leaseId"])
    [bad] = (await mq.pop(queue))["messages"]
    await mq.ack(bad, "failed")

    [bad] = (await mq.pop(queue))["messages"]
    verdict = await mq.ack(bad, "failed")

    assert verdict["dlq"]


async def test_a_killer_that_is_read_at_most_once_kills_once(mq, queue):
    await mq.push(queue, "killer", "next")

    first, second = await mq.data(queue, autoAck=True), await mq.data(queue, autoAck=True)

    assert (first, second) == (["killer"], ["next"])
    assert await mq.at_rest(queue)


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


async def test_a_lease_that_lapsed_is_not_brought_back(mq, queue):
    await mq.push(queue, 1)
    lease = (await mq.pop(queue))["leaseId"]
    await mq.lapse(lease)

    verdicts = [await extend(mq, lease), await extend(mq, str(uuid4())), await extend(mq, "nonsense")]

    assert [v["success"] for v in verdicts] == [False] * 3
    assert [v["error"] for v in verdicts] == ["Lease already expired", "Lease not found", "Lease not found"]


async def test_acks_of_one_message_by_many_at_once_are_all_right(mq, queue):
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]

    verdicts = await all_of(*(mq.ack(one) for _ in range(10)))

    assert any(v["success"] for v in verdicts)
    assert {v["error"] for v in verdicts if not v["success"]} <= {FENCED}
    assert await mq.at_rest(queue)


# -- What follows, as a decision ---------------------------------------------------------------------------------


def test_whatever_readers_say_the_cursor_goes_forward_and_never_past_what_is_to_be_tried_again():
    dice = random.Random(7)
    for _ in range(5000):
        held = some_consumer(dice)
        said = some_acks(dice, held)

        decision = decide(held, said, at_once=dice.random() < 0.2)

        move, passed = decision.move, {dead.seq for dead in decision.dead}
        verdicts = {n: (error, released, dead) for n, error, released, dead in decision.verdicts}
        completed = {one.seq for one in said if one.status == COMPLETED and verdicts[one.n][0] is None}
        again = [one.seq for one in said if one.status in (FAILED, RETRY) and not given_up(one, decision)]
        assert held.cursor <= move.cursor <= held.delivered
        assert move.cursor in {held.cursor, *completed} | set(range(held.cursor + 1, held.delivered + 1))
        assert all(move.cursor < seq for seq in again)
        assert all(seq <= move.cursor for seq in completed)
        assert move.release == (bool(again) or move.cursor == held.delivered)
        assert len(verdicts) == len(said)
        assert passed <= {one.seq for one in said if one.status in (FAILED, DEAD)}
        assert (move.attempt > held.attempt) == any(
            one.status == FAILED and not given_up(one, decision) for one in said
        )


def given_up(one: Said, decision) -> bool:
    return one.seq <= decision.move.buried and any(n == one.n and dead for n, _, _, dead in decision.verdicts)


def some_consumer(dice: random.Random) -> Held:
    cursor = dice.randint(0, 5)
    return Held(
        lease=uuid4(),
        partition=1,
        group=1,
        name="g",
        cursor=cursor,
        delivered=cursor + dice.randint(1, 8),
        buried=0,
        attempt=dice.randint(0, 4),
        retry_limit=dice.randint(0, 4),
        retry_delay_ms=dice.choice([0, 1000]),
        dead_letter_after_retries=dice.random() < 0.8,
        dead_letter_queue=True,
    )


def some_acks(dice: random.Random, held: Held) -> list[Said]:
    numbers = dice.sample(range(held.cursor + 1, held.delivered + 1), dice.randint(1, held.delivered - held.cursor))
    return [Said(n, seq, dice.choice([COMPLETED, FAILED, DEAD, RETRY])) for n, seq in enumerate(numbers)]
