"""The client's queue against the service: push, pop, ack, leases, transactions, and the consumer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from registry_client import NewMessage, PermissionDenied, TransactionRefused, ack_of
from registry_client.models.queue import Message
from tests.client import halves
from tests.client.unreliable import Unreliable
from tests.conftest import Api, eventually, make_key
from tests.queueing.mq import Mq


@pytest.fixture
async def mq(api: Api, tenant) -> Mq:
    return Mq(api, tenant.pk)


async def test_what_was_pushed_is_popped_in_order_and_acked(client: Any):
    pushed = [await client.queue.push("orders", {"id": n}, partition="customer-7") for n in range(3)]

    messages = await client.queue.pop("orders", batch=10)
    acked = await client.queue.ack(messages[-1])

    assert [one.status for one in pushed] == ["queued"] * 3
    assert [message.data for message in messages] == [{"id": n} for n in range(3)]
    assert {(message.partition, message.transaction_id == one.transaction_id) for message, one in zip(messages, pushed, strict=True)} == {("customer-7", True)}  # fmt: skip
    assert (acked.success, acked.lease_released) == (True, True)
    assert await client.queue.pop("orders") == []


async def test_the_same_message_twice_is_stored_once(client: Any):
    message = NewMessage(queue="orders", payload=1)

    results = await client.queue.push_many([message, message])

    assert [one.status for one in results] == ["queued", "duplicate"]


async def test_a_pop_waits_for_a_message(client: Any):
    waiting = asyncio.ensure_future(client.queue.pop("orders", wait=20))
    await client.queue.push("orders", "late")

    assert [message.data for message in await waiting] == ["late"]


async def test_a_pop_of_a_partition_reads_that_one_only_also_with_odd_names(client: Any):
    for partition in ("a/b c?", "ü"):
        await client.queue.push("shop/orders #1", partition, partition=partition)

    found = await client.queue.pop("shop/orders #1", partition="a/b c?", batch=10)

    assert [message.data for message in found] == ["a/b c?"]


async def test_every_group_gets_every_message_and_a_new_one_may_begin_now(client: Any):
    await client.queue.push("orders", "old")
    await client.queue.pop("orders", group="late", start="new")
    await client.queue.push("orders", "new")

    early = await client.queue.pop("orders", group="early", start="all", batch=10, auto_ack=True)
    late = await client.queue.pop("orders", group="late", batch=10, auto_ack=True)

    assert [[message.data for message in group] for group in (early, late)] == [["old", "new"], ["new"]]


async def test_an_ack_after_the_lease_is_no_success(client: Any, mq: Mq):
    await client.queue.push("orders", 1)
    [message] = await client.queue.pop("orders")
    extended = await client.queue.extend(message.lease_id, 120)
    await mq.lapse(message.lease_id)

    acked, again = await client.queue.ack(message), await client.queue.extend(message.lease_id)

    assert extended.success and extended.expires_at.tzinfo
    assert (acked.success, acked.error) == (False, "Invalid or expired lease")
    assert not again.success


async def test_a_transaction_pushes_and_acks_together(client: Any):
    await client.queue.push("orders", 1)
    [message] = await client.queue.pop("orders")

    done = await client.queue.transaction(
        [NewMessage(queue="bills", payload="a"), NewMessage(queue="bills", payload="b"), ack_of(message)]
    )

    assert (done.success, len(done.results)) == (True, 3)
    assert [one.data for one in await client.queue.pop("bills", batch=10)] == ["a", "b"]
    assert await client.queue.pop("orders") == []


async def test_a_refused_transaction_changes_nothing(client: Any, mq: Mq):
    await client.queue.push("orders", 1)
    [message] = await client.queue.pop("orders")
    await mq.lapse(message.lease_id)

    with pytest.raises(TransactionRefused, match="lease"):
        await client.queue.transaction([NewMessage(queue="bills", payload="a"), ack_of(message)])

    assert await client.queue.pop("bills") == []


# -- The consumer ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def consuming(client: Any, handler: Any, **options: Any) -> AsyncIterator[Any]:
    """A consumer at work; stopped gently on leaving."""
    consumer = client.queue.consumer("orders", handler, **{"wait": 0.5, **options})
    running = asyncio.ensure_future(_run(consumer))
    try:
        yield consumer
    finally:
        consumer.stop()
        await running


async def _run(consumer: Any) -> None:
    await consumer.run()


async def test_a_consumer_handles_messages_in_order_and_acks_them(client: Any, mq: Mq):
    seen = []

    async def handle(message: Message) -> None:
        seen.append(message.data)

    async with consuming(client, handle, group="billing", batch=3):
        for number in range(7):
            await client.queue.push("orders", number)
        await eventually(lambda: len(seen) == 7)
        await eventually(lambda: mq.at_rest("orders"))

    assert seen == list(range(7))


async def test_a_message_whose_handler_raises_comes_again_and_the_others_of_its_partition_wait(client: Any, mq: Mq):
    await mq.configure("orders", retry_delay_ms=0)
    seen = []

    async def handle(message: Message) -> None:
        seen.append(message.data)
        if seen.count("bad") == 1 and message.data == "bad":
            raise RuntimeError("the shop is closed")

    await client.queue.push_many([NewMessage(queue="orders", payload=payload) for payload in ("good", "bad", "last")])
    async with consuming(client, handle):
        await eventually(lambda: seen[-1:] == ["last"])

    assert seen == ["good", "bad", "bad", "last"]


async def test_a_message_that_always_fails_becomes_a_dead_letter_with_its_error(client: Any, mq: Mq):
    await mq.configure("orders", retry_delay_ms=0, retry_limit=1)

    async def handle(message: Message) -> None:
        raise RuntimeError("the shop is closed")

    await client.queue.push("orders", "bad")
    async with consuming(client, handle):
        [(payload, error)] = await eventually(lambda: mq.dead("orders"))

    assert (payload, error) == ('"bad"', "RuntimeError: the shop is closed")


async def test_a_slow_handler_keeps_its_lease(client: Any, mq: Mq):
    await mq.configure("orders", lease_seconds=1)
    seen, leases = [], set()

    async def handle(message: Message) -> None:
        leases.add(message.lease_id)
        await eventually(lambda: lease_is_longer_than(mq, 30))
        seen.append(message.data)

    await client.queue.push("orders", "slow")
    async with consuming(client, handle, lease=60):
        await eventually(lambda: seen)
        await eventually(lambda: mq.at_rest("orders"))

    assert (seen, len(leases)) == (["slow"], 1)


async def lease_is_longer_than(mq: Mq, seconds: int) -> bool:
    rows = await mq.sql("SELECT max(due_at) > now() + %s * interval '1 second' FROM queueing_consumer", float(seconds))
    return bool(rows[0][0])


async def test_what_a_stopped_consumer_did_not_handle_goes_back_at_once(client: Any, mq: Mq):
    began, may_end = asyncio.Event(), asyncio.Event()
    seen = []

    async def handle(message: Message) -> None:
        seen.append(message.data)
        began.set()
        await may_end.wait()

    await client.queue.push_many([NewMessage(queue="orders", payload=number) for number in range(3)])
    async with consuming(client, handle) as consumer:
        await began.wait()
        consumer.stop()
        may_end.set()
    rest = await client.queue.pop("orders", batch=10)

    assert (seen, [message.data for message in rest]) == ([0], [1, 2])
    assert [row["attempt"] for row in await mq.consumers("orders")] == [0]


async def test_a_consumer_whose_lease_is_lost_leaves_the_rest_to_others(
    client: Any, mq: Mq, caplog: pytest.LogCaptureFixture
):
    await mq.configure("orders", retry_delay_ms=0)
    seen = []

    async def handle(message: Message) -> None:
        seen.append(message.data)
        if len(seen) == 1:
            await mq.lapse(message.lease_id)
            await eventually(lambda: "lease of orders is lost" in caplog.text)

    await client.queue.push_many([NewMessage(queue="orders", payload=number) for number in range(2)])
    async with consuming(client, handle):
        await eventually(lambda: seen[-1] == 1 if seen else False)

    assert seen == [0, 0, 1]
    assert "were not acked" not in caplog.text


async def test_a_consumer_goes_on_after_trouble(far: Any, way: Unreliable, client: Any, mq: Mq):
    seen = []

    async def handle(message: Message) -> None:
        seen.append(message.data)

    way.answers(503, times=2)
    way.loses_requests()
    async with consuming(far, handle):
        await client.queue.push("orders", 1)
        await eventually(lambda: seen)

    assert seen == [1]


async def test_a_consumer_without_the_right_ends_with_the_error(half: str, server: str, tenant):
    reader = halves.make(half, server, await make_key(tenant, "read"))

    async def handle(message: Message) -> None:
        """Never called."""

    with pytest.raises(PermissionDenied):
        await reader.queue.consume("orders", handle)

    await halves.end(reader)


async def test_a_canceled_consumer_returns_its_messages(server: str, key: str):
    client = halves.make("async", server, key)
    began = asyncio.Event()

    async def handle(message: Message) -> None:
        began.set()
        await asyncio.Event().wait()

    await client.queue.push("orders", 1)
    running = asyncio.create_task(client.queue.consume("orders", handle))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [message.data for message in await client.queue.pop("orders")] == [1]
    await client.aclose()
