"""Failed messages are retried up to their limit, alone, and messages that kill their readers are isolated."""

import pytest

from tests.queueing.mq import payloads

# -- Failures ----------------------------------------------------------------------------------------------------


async def test_a_later_ack_never_passes_a_failed_one(mq, queue):
    await mq.configure(queue, retry_delay_ms=0)
    await mq.push(queue, *range(5))
    messages = (await mq.pop(queue, batch=5))["messages"]

    verdicts = await mq.ack_all(messages, ["completed", "failed", "completed", "completed", "completed"])

    assert [v["success"] for v in verdicts] == [True, True, False, False, False]
    assert "will be delivered again" in verdicts[2]["error"]
    assert await mq.data(queue, batch=5) == [1, 2, 3, 4]


async def test_a_failed_message_is_retried_up_to_the_limit_and_then_becomes_a_dead_letter(mq, queue):
    await mq.configure(queue, retry_limit=2, retry_delay_ms=0)
    await mq.push(queue, "bad", "good")

    tries = []
    for _ in range(3):
        [bad, *_] = (await mq.pop(queue, batch=10))["messages"]
        tries.append(await mq.ack(bad, "failed", error="boom"))

    assert [v["dlq"] for v in tries] == [False, False, True]
    assert await mq.dead(queue) == [('"bad"', "boom")]
    assert [row["lease"] is None for row in await mq.consumers(queue)] == [False]  # the good one is still in hand


async def test_by_default_the_error_of_a_dead_letter_says_that_its_tries_were_used_up(mq, queue):
    await mq.configure(queue, retry_limit=0)
    await mq.push(queue, "bad")
    [bad] = (await mq.pop(queue))["messages"]

    await mq.ack(bad, "failed")

    assert await mq.dead(queue) == [('"bad"', "Retries exhausted")]


async def test_the_retry_delay_is_respected(mq, queue):
    await mq.configure(queue, retry_delay_ms=60_000)
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]

    await mq.ack(one, "failed")
    at_once = await mq.data(queue)
    await mq.wake_retries(queue)

    assert (at_once, await mq.data(queue)) == ([], [1])


async def test_returning_a_message_does_not_count_as_a_failure(mq, queue):
    await mq.configure(queue, retry_limit=0)
    await mq.push(queue, 1)

    for _ in range(5):
        [one] = (await mq.pop(queue))["messages"]
        assert (await mq.ack(one, "retry"))["success"]

    assert await mq.data(queue) == [1]
    assert await mq.dead(queue) == []


async def test_failures_of_one_message_do_not_count_for_the_next_one(mq, queue):
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


async def test_a_dropped_message_is_not_delivered_again_with_older_ones(mq, queue):
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


async def test_a_queue_may_have_no_limit_of_tries(mq, queue):
    await mq.configure(queue, dead_letter_after_retries=False, retry_limit=0, retry_delay_ms=0)
    await mq.push(queue, "bad")

    for _ in range(5):
        [bad] = (await mq.pop(queue))["messages"]
        assert not (await mq.ack(bad, "failed"))["dlq"]
    for _ in range(5):
        await mq.lapse((await mq.pop(queue))["leaseId"])

    assert await mq.data(queue) == ["bad"]
    assert await mq.dead(queue) == []


async def test_the_status_dlq_makes_a_dead_letter_at_once_and_the_batch_continues(mq, queue):
    await mq.push(queue, 1, 2, 3)
    messages = (await mq.pop(queue, batch=3))["messages"]

    verdicts = await mq.ack_all(messages, ["completed", "dlq", "completed"])

    assert [(v["success"], v["dlq"]) for v in verdicts] == [(True, False), (True, True), (True, False)]
    assert verdicts[2]["leaseReleased"]
    assert [payload for payload, _ in await mq.dead(queue)] == ["2"]
    assert await mq.at_rest(queue)


@pytest.mark.parametrize("order", [(2, 1, 0), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
async def test_the_lease_ends_once_every_message_is_a_dead_letter_in_any_order(mq, queue, order):
    """One message is done, two are given up on, each in a call of its own."""
    await mq.push(queue, 0, 1, 2)
    messages = (await mq.pop(queue, batch=3))["messages"]

    verdicts = [await mq.ack(messages[n], "completed" if n == 0 else "dlq") for n in order]

    assert [v["leaseReleased"] for v in verdicts] == [False, False, True]
    assert len(await mq.dead(queue)) == 2
    assert await mq.at_rest(queue)
    assert await mq.pop(queue) is None


async def test_a_dead_letter_is_not_delivered_again_with_older_messages(mq, queue):
    await mq.push(queue, 1, 2)
    [_, two] = (popped := await mq.pop(queue, batch=2))["messages"]
    await mq.ack(two, "dlq")

    await mq.lapse(popped["leaseId"])
    again = await mq.pop(queue, batch=2)
    await mq.ack_all(again["messages"])

    assert payloads(again) == [1]
    assert await mq.at_rest(queue)
    assert len(await mq.dead(queue)) == 1


async def test_acks_of_many_partitions_are_decided_partition_by_partition(mq, queue):
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


async def test_an_empty_batch_of_acks_is_no_error(mq):
    assert await mq.ack_all([]) == []


# -- Who goes silent -----------------------------------------------------------------------------------------------


async def test_a_message_that_kills_its_readers_is_isolated_and_the_others_are_delivered(mq, queue):
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


async def test_expired_leases_and_failures_are_counted_together(mq, queue):
    await mq.configure(queue, retry_limit=2, retry_delay_ms=0)
    await mq.push(queue, "bad")
    await mq.lapse((await mq.pop(queue))["leaseId"])
    [bad] = (await mq.pop(queue))["messages"]
    await mq.ack(bad, "failed")

    [bad] = (await mq.pop(queue))["messages"]
    verdict = await mq.ack(bad, "failed")

    assert verdict["dlq"]


async def test_a_message_that_kills_its_readers_is_delivered_once_with_auto_ack(mq, queue):
    await mq.push(queue, "killer", "next")

    first, second = await mq.data(queue, autoAck=True), await mq.data(queue, autoAck=True)

    assert (first, second) == (["killer"], ["next"])
    assert await mq.at_rest(queue)
