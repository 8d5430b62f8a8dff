"""The queue as an independent client sees it: queen-mq 0.15 from PyPI, over real HTTP.

Two of its calls do not fit its own server of that version either: `renew` expects an object where the contract has an array,
and reports a failure although the lease was extended. Streams are out of scope.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from queen import Queen

from queueing.broker import long_polls
from tests.conftest import eventually, make_key
from tests.factories import in_thread, make_tenant
from tests.queueing.mq import Mq


@pytest.fixture
async def queen(server: str, tenant) -> AsyncIterator[Queen]:
    """The client as a program of `tenant`."""
    async with client(server, await make_key(tenant, "admin")) as found:
        yield found


@contextlib.asynccontextmanager
async def client(server: str, token: str | None) -> AsyncIterator[Queen]:
    with _signals_kept():
        async with Queen(url=server, bearer_token=token, retry_attempts=1, timeout_millis=15_000) as found:
            yield found


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """The client takes SIGINT and SIGTERM, and leaves them to the system when it closes: the test run wants its own."""
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)


def data(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["data"] for message in messages]


# -- In and out ----------------------------------------------------------------------------------------------


async def test_a_message_is_popped_as_it_was_pushed(queen: Queen, queue: str):
    payload = {"n": 1, "text": "grüße ✓", "deep": [{"a": None}, 1.5, True]}
    trace = str(uuid4())

    [pushed] = await queen.queue(queue).push({"data": payload, "transactionId": "t-1", "traceId": trace})
    [message] = await queen.queue(queue).batch(10).wait(False).pop()

    assert (pushed["status"], pushed["transaction_id"]) == ("queued", "t-1")
    assert (message["data"], message["transactionId"], message["traceId"]) == (payload, "t-1", trace)
    assert message["id"] == pushed["message_id"]


@pytest.mark.parametrize(
    "payload", [{"data": None}, {"payload": [1, 2]}, {"data": "text"}, {"plain": "object"}, {"data": 0}]
)
async def test_any_json_is_a_payload(queen: Queen, queue: str, payload: dict):
    await queen.queue(queue).push(payload)

    found = data(await queen.queue(queue).wait(False).pop())

    assert found == [payload.get("data", payload.get("payload", payload))]


async def test_a_batch_keeps_its_order(queen: Queen, queue: str):
    await queen.queue(queue).push([{"data": n} for n in range(200)])

    found = data(await queen.queue(queue).batch(1000).wait(False).pop())

    assert found == list(range(200))


async def test_a_transaction_id_is_accepted_once_and_the_callback_reports_the_duplicate(queen: Queen, queue: str):
    seen: list[str] = []

    async def duplicate(items: list, _error: Exception) -> None:
        seen.extend(item["result"]["message_id"] for item in items)

    [first] = await queen.queue(queue).push({"data": 1, "transactionId": "same"})
    [second] = await queen.queue(queue).push({"data": 2, "transactionId": "same"}).on_duplicate(duplicate)

    assert (second["status"], seen) == ("duplicate", [first["message_id"]])
    assert data(await queen.queue(queue).batch(9).wait(False).pop()) == [1]


async def test_partitions_are_separate(queen: Queen, queue: str):
    for name in ("one", "two"):
        await queen.queue(queue).partition(name).push([{"data": f"{name} {n}"} for n in range(2)])

    two = await queen.queue(queue).partition("two").batch(9).wait(False).pop()
    rest = await queen.queue(queue).partitions(9).batch(9).wait(False).pop()

    assert data(two) == ["two 0", "two 1"]
    assert data(rest) == ["one 0", "one 1"]


async def test_one_pop_takes_several_partitions_under_one_lease(queen: Queen, queue: str):
    for n in range(4):
        await queen.queue(queue).partition(f"p{n}").push({"data": n})

    found = await queen.queue(queue).partitions(10).batch(10).wait(False).pop()
    acked = await queen.ack(found)

    assert data(found) == [0, 1, 2, 3]
    assert len({message["leaseId"] for message in found}) == 1
    assert [one["success"] for one in acked["results"]] == [True] * 4


async def test_a_long_poll_gets_a_message_pushed_while_it_waits(queen: Queen, queue: str):
    waiting = asyncio.create_task(queen.queue(queue).wait(True).timeout_millis(10_000).pop())
    await eventually(parked)

    await queen.queue(queue).push({"data": "now"})

    assert data(await waiting) == ["now"]


def parked() -> int:
    return long_polls.parked().count


async def test_pop_by_namespace_and_task(queen: Queen):
    name = uuid4().hex[:8]
    await queen.queue(f"{name}.mail").push({"data": "letter"})
    await queen.queue(f"{name}.bill").push({"data": "bill"})

    bills = await queen.queue().namespace(name).task("bill").batch(9).wait(False).pop()
    rest = await queen.queue().namespace(name).batch(9).partitions(9).wait(False).pop()

    assert (data(bills), data(rest)) == (["bill"], ["letter"])


# -- Consumers -----------------------------------------------------------------------------------------------


async def test_several_consumers_share_the_messages_and_each_is_read_once(queen: Queen, queue: str):
    for n in range(40):
        await queen.queue(queue).partition(f"p{n % 8}").push({"data": n})
    seen: list[int] = []
    stop = asyncio.Event()

    async def handle(message: dict) -> None:
        seen.append(message["data"])
        if len(seen) >= 40:
            stop.set()

    await (
        queen.queue(queue).concurrency(4).batch(5).each().wait(False).timeout_millis(2000).consume(handle, signal=stop)
    )

    assert sorted(seen) == list(range(40))
    assert await queen.queue(queue).batch(9).wait(False).pop() == []


async def test_a_batch_consumer_gets_lists_and_acks_them_as_one(queen: Queen, queue: str):
    await queen.queue(queue).push([{"data": n} for n in range(6)])
    batches: list[list[int]] = []

    async def handle(messages: list[dict]) -> None:
        batches.append(data(messages))

    await queen.queue(queue).batch(3).limit(6).wait(False).consume(handle)

    assert batches == [[0, 1, 2], [3, 4, 5]]
    assert await queen.queue(queue).wait(False).pop() == []


async def test_a_message_whose_handler_fails_is_delivered_again_and_becomes_a_dead_letter(queen: Queen, queue: str):
    await queen.queue(queue).config({"retry_limit": 1, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": "bad"}, {"data": "good"}])
    seen: list[str] = []
    stop = asyncio.Event()

    async def handle(message: dict) -> None:
        seen.append(message["data"])
        if message["data"] == "bad":
            raise RuntimeError("cannot do this")
        stop.set()

    await queen.queue(queue).timeout_millis(1000).consume(handle, signal=stop)
    dead = await queen.queue(queue).dlq().get()

    assert seen == ["bad", "bad", "good"]
    assert (data(dead["messages"]), dead["total"]) == (["bad"], 1)


async def test_with_callbacks_the_caller_acks(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    verdicts: list[dict] = []

    async def handle(message: dict) -> int:
        return message["data"] + 1

    async def done(message: dict, result: int) -> None:
        verdicts.append({**await queen.ack(message), "result": result})

    await queen.queue(queue).limit(1).consume(handle).on_success(done)

    assert [(one["success"], one["result"]) for one in verdicts] == [(True, 2)]


async def test_a_lease_that_is_renewed_while_work_goes_on_is_kept(queen: Queen, queue: str):
    await queen.queue(queue).config({"lease_time": 1}).create()
    await queen.queue(queue).push({"data": 1})
    outcome: list[Any] = []

    async def slow(message: dict) -> None:
        await asyncio.sleep(1.2)  # longer than the lease
        outcome.append(data(await queen.queue(queue).wait(False).pop()))
        outcome.append((await queen.ack(message))["success"])

    await queen.queue(queue).limit(1).auto_ack(False).renew_lease(True, 200).consume(slow)

    assert outcome == [[], True]


async def test_messages_can_be_traced_while_they_are_processed(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    seen: list[dict] = []
    answers: list[dict] = []
    name = f"order-{uuid4().hex[:6]}"

    async def handle(message: dict) -> None:
        seen.append(message)
        answers.append(await message["trace"]({"data": {"step": "begun"}, "traceName": name, "eventType": "step"}))

    await queen.queue(queue).limit(1).consume(handle)
    of_message = await queen.admin.get_traces_for_message(seen[0]["partitionId"], seen[0]["transactionId"])
    by_name = await queen.admin.get_traces_by_name(name)

    assert answers[0]["success"]
    assert [one["data"] for one in of_message["traces"]] == [{"step": "begun"}]
    assert len(by_name["traces"]) == 1


# -- Acks -----------------------------------------------------------------------------------------------------


async def test_ack_and_nack_one_by_one_and_together(queen: Queen, queue: str):
    await queen.queue(queue).config({"retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": n} for n in range(4)])

    first = await queen.queue(queue).wait(False).pop()
    done = await queen.ack(first[0])
    rest = await queen.queue(queue).batch(3).wait(False).pop()
    rest[1]["_status"], rest[1]["_error"] = False, "not today"
    mixed = await queen.ack([{**message, "_status": message.get("_status", True)} for message in rest])
    again = await queen.queue(queue).batch(9).wait(False).pop()

    assert done["success"] is True
    assert [one["success"] for one in mixed["results"]][:2] == [True, True]
    assert data(again)[0] == 2


async def test_an_ack_under_a_lost_lease_is_refused(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    [message] = await queen.queue(queue).wait(False).pop()
    await queen.ack(message, "retry")

    late = await queen.ack(message)

    assert late == {"success": False, "error": "Invalid or expired lease"}


# -- Transactions -----------------------------------------------------------------------------------------------


async def test_a_transaction_acks_and_pushes_together(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    [message] = await queen.queue(queue).wait(False).pop()

    done = await queen.transaction().ack(message).queue(f"{queue}-next").partition("p").push({"data": 2}).commit()

    assert [one["type"] for one in done["results"]] == ["ack", "push"]
    assert await queen.queue(queue).wait(False).pop() == []
    assert data(await queen.queue(f"{queue}-next").partition("p").wait(False).pop()) == [2]


async def test_a_transaction_under_a_lost_lease_does_nothing(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    [message] = await queen.queue(queue).wait(False).pop()
    await queen.ack(message, "retry")

    with pytest.raises(Exception, match="Invalid or expired lease"):
        await queen.transaction().ack(message).queue(f"{queue}-next").push({"data": 2}).commit()

    assert await queen.queue(f"{queue}-next").wait(False).pop() == []


async def test_a_transaction_acks_for_a_group(queen: Queen, queue: str):
    await queen.queue(queue).push({"data": 1})
    [message] = await queen.queue(queue).group("g").subscription_mode("all").wait(False).pop()

    await queen.transaction().ack(message, "completed", {"consumer_group": "g"}).commit()

    assert await queen.queue(queue).group("g").wait(False).pop() == []


# -- Dead letters -------------------------------------------------------------------------------------------------


async def test_dead_letters_are_found_by_group_partition_and_time(queen: Queen, queue: str):
    for name in ("a", "b"):
        await queen.queue(queue).partition(name).push({"data": name})
    for message in await queen.queue(queue).group("g").partitions(9).batch(9).wait(False).pop():
        await queen.ack(message, "dlq", {"group": "g", "error": "no use"})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    everything = await queen.queue(queue).dlq("g").get()
    one = await queen.queue(queue).partition("b").dlq("g").limit(1).get()
    others = await queen.queue(queue).dlq("other").get()
    none = await queen.queue(queue).dlq("g").from_(later).get()

    assert sorted(data(everything["messages"])) == ["a", "b"]
    assert {message["errorMessage"] for message in everything["messages"]} == {"no use"}
    assert data(one["messages"]) == ["b"]
    assert (others["total"], none["total"]) == (0, 0)


# -- Groups -------------------------------------------------------------------------------------------------------


async def test_every_group_gets_every_message(queen: Queen, queue: str):
    await queen.queue(queue).push([{"data": 1}, {"data": 2}])

    found = [data(await queen.queue(queue).group(g).batch(9).wait(False).pop()) for g in ("a", "b")]

    assert found == [[1, 2], [1, 2]]


@pytest.mark.parametrize(("mode", "since"), [("new", None), (None, "now"), ("new-only", None)])
async def test_a_subscription_to_new_messages_gets_no_older_ones(queen: Queen, queue: str, mode: str, since: str):
    await queen.queue(queue).push({"data": "old"})

    def reader() -> Any:
        builder = queen.queue(queue).group("g").batch(9).wait(False)
        builder = builder.subscription_mode(mode) if mode else builder
        return builder.subscription_from(since) if since else builder

    first = await reader().pop()
    await queen.queue(queue).push({"data": "new"})

    assert (first, data(await reader().pop())) == ([], ["new"])


async def test_a_group_is_listed_moved_and_deleted(queen: Queen, queue: str):
    await queen.queue(queue).push([{"data": 1}, {"data": 2}])
    reader = queen.queue(queue).group("g").batch(9).wait(False)
    await reader.pop()

    [listed] = [one for one in await queen.admin.list_consumer_groups() if one["name"] == "g"]
    detail = await queen.admin.get_consumer_group("g")
    ended = await queen.admin.seek_consumer_group("g", queue, {"toEnd": True})
    nothing = await reader.pop()
    back = await queen.admin.seek_consumer_group("g", queue, {"timestamp": "2020-01-01T00:00:00Z"})
    again = data(await reader.pop())
    noted = await queen.update_consumer_group_timestamp("g", "2020-01-01T00:00:00Z")
    await queen.admin.delete_consumer_group_for_queue("g", queue)
    await queen.delete_consumer_group("g")
    lagging = await queen.admin.get_lagging_consumers(0)

    assert (listed["totalLag"], listed["members"], len(detail[queue]["partitions"])) == (2, 1, 1)
    assert (ended["partitionsUpdated"], back["partitionsUpdated"]) == (1, 1)
    assert (nothing, again, noted["success"]) == ([], [1, 2], True)
    assert "g" not in {one["name"] for one in lagging}


# -- Buffers ------------------------------------------------------------------------------------------------------


async def test_a_client_side_buffer_is_sent_when_it_is_full_old_or_flushed(queen: Queen, queue: str):
    def push(name: str, n: int, options: dict) -> Any:
        return queen.queue(f"{queue}-{name}").buffer(options).push({"data": n})

    for n in range(3):
        await push("full", n, {"message_count": 3, "time_millis": 60_000})
    await push("old", 1, {"message_count": 1000, "time_millis": 50})
    await push("flushed", 1, {"message_count": 1000, "time_millis": 60_000})
    buffered = queen.get_buffer_stats()
    await queen.flush_all_buffers()

    async def arrived(name: str) -> list[Any]:
        return data(await queen.queue(f"{queue}-{name}").batch(9).wait(True).timeout_millis(5000).pop())

    assert buffered["totalBufferedMessages"] >= 1
    assert [await arrived(name) for name in ("full", "old", "flushed")] == [[0, 1, 2], [1], [1]]


# -- Administration -----------------------------------------------------------------------------------------------


async def test_a_queue_is_made_with_options_listed_and_dropped(queen: Queen, queue: str):
    made = await queen.queue(queue).namespace("shop").task("mail").config({"lease_time": 7, "retry_limit": 9}).create()
    await queen.queue(queue).push({"data": 1})

    listed = await queen.admin.list_queues()
    one = await queen.admin.get_queue(queue)
    dropped = await queen.queue(queue).delete()

    assert (made["configured"], made["options"]["leaseTime"], made["options"]["retryLimit"]) == (True, 7, 9)
    assert queue in {found["name"] for found in listed["queues"]}
    assert one["name"] == queue
    assert dropped["deleted"] is True
    assert queue not in {found["name"] for found in (await queen.admin.list_queues())["queues"]}


async def test_the_calls_of_administrators_have_their_routes(queen: Queen, queue: str):
    await queen.queue(queue).push([{"data": 1}, {"data": 2}])
    [message] = await queen.queue(queue).wait(False).pop()
    where = message["partitionId"], message["transactionId"]
    admin = queen.admin

    overview, namespaces, tasks = await admin.get_overview(), await admin.get_namespaces(), await admin.get_tasks()
    messages, detail = await admin.list_messages(queue=queue), await admin.get_message(*where)
    status, queues = await admin.get_status(), await admin.get_queue_stats(limit=10)
    one, analytics = await admin.get_queue_detail(queue), await admin.get_analytics(interval="hour")
    partitions, names = await admin.get_partitions(queue=queue), await admin.get_trace_names()
    push, pop = await admin.get_maintenance_mode(), await admin.get_pop_maintenance_mode()
    refreshed = await admin.refresh_consumer_stats()

    assert overview["queues"] == 1
    assert namespaces is not None
    assert tasks is not None
    assert partitions is not None
    assert names is not None
    assert len(messages["messages"]) == 2
    assert detail["transactionId"] == where[1]
    assert status["messages"]["total"] == 2
    assert [found["name"] for found in queues["queues"]] == [queue]
    assert one["totals"]["processing"] == 1
    assert analytics["interval"] == "hour"
    assert (push["maintenanceMode"], pop["popMaintenanceMode"]) == (False, False)
    assert refreshed["success"] is True


async def test_a_key_of_an_operator_sees_figures_of_the_machine(server: str, tenant, worker):
    await eventually(lambda: worker.worker_id)
    async with client(server, await make_key(tenant, "admin")) as queen:
        health, metrics = await queen.admin.health(), await queen.admin.get_system_metrics()
        workers, postgres = await queen.admin.get_worker_metrics(), await queen.admin.get_postgres_stats()

    assert health["database"] == "connected"
    assert metrics["replicas"]
    assert workers["workers"]
    assert postgres["tables"]


async def test_a_key_of_another_tenant_sees_nothing_and_a_wrong_one_is_refused(queen: Queen, server: str, queue: str):
    await queen.queue(queue).push({"data": "ours"})
    other = await make_key(await in_thread(make_tenant), "admin")

    async with client(server, other) as stranger:
        popped = await stranger.queue(queue).wait(False).pop()
        listed = await stranger.admin.list_queues()
    async with client(server, "rk_000000000000_wrong") as liar:
        with pytest.raises(Exception, match="API key"):
            await liar.queue(queue).push({"data": "x"})

    assert popped == []
    assert data(await queen.queue(queue).wait(False).pop()) == ["ours"]
    assert "ours" not in str(listed)


async def test_a_message_that_kills_its_readers_does_not_delay_the_rest(queen: Queen, mq: Mq, queue: str):
    """Its reader dies with it, again and again: the lease lapses and nobody acks."""
    await queen.queue(queue).config({"retry_limit": 1, "retry_delay": 0}).create()
    await queen.queue(queue).push([{"data": "killer"}, {"data": "fine"}])
    seen: list[Any] = []
    for _ in range(6):
        messages = await queen.queue(queue).batch(1).wait(False).pop()
        seen += data(messages)
        if seen[-1:] == ["fine"]:
            break
        for message in messages:
            await mq.lapse(message["leaseId"])

    dead = await queen.queue(queue).dlq().get()

    assert seen[-1] == "fine"
    assert data(dead["messages"]) == ["killer"]
