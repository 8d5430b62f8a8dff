"""Pushes: numbered under the lock of the partition, once per transaction id, each with a result of its own."""

import asyncio
import threading
from uuid import UUID, uuid4

import pytest

from queueing.broker import catalog, push_rows, push_write
from queueing.broker import push as pushes
from queueing.broker.push_rows import NewMessage
from registry.data import database
from registry.data.loop import end_loop
from tests.conftest import eventually
from tests.queueing.mq import all_of, blocked, holding, payloads

# -- What is answered ------------------------------------------------------------------------------------------


async def test_each_message_gets_an_answer_in_the_order_of_its_request(mq, queue):
    trace = str(uuid4())
    items = [
        {"queue": queue, "payload": {"n": 1}, "transactionId": "first", "traceId": trace},
        {"queue": f"{queue}.other", "payload": 2, "partition": "p"},
    ]

    first, second = await mq.push_items(items)

    assert first == {
        "index": 0,
        "transaction_id": "first",
        "status": "queued",
        "message_id": first["message_id"],
        "partition_id": first["partition_id"],
        "trace_id": trace,
        "queueName": queue,
    }
    assert UUID(first["message_id"]).version == 7
    assert (second["index"], second["status"], second["trace_id"]) == (1, "queued", None)
    assert second["transaction_id"] == second["message_id"]


async def test_an_empty_push_is_no_error(mq):
    assert await mq.push_items([]) == []


async def test_a_message_is_read_as_it_was_pushed(mq, queue):
    [pushed] = await mq.push_items([{"queue": queue, "payload": {"a": [1, None, "é"]}, "transactionId": "t"}])

    popped = await mq.pop(queue)

    [message] = popped["messages"]
    assert message["data"] == {"a": [1, None, "é"]}
    assert (message["id"], message["transactionId"]) == (pushed["message_id"], "t")
    assert (message["partitionId"], message["partition"]) == (pushed["partition_id"], "Default")
    assert popped["leaseId"] == message["leaseId"]
    assert message["createdAt"].endswith("Z")


async def test_the_sender_of_a_message_is_set_by_the_server(mq, queue):
    await mq.push_items([{"queue": queue, "payload": 1, "producerSub": "somebody else"}])

    [message] = (await mq.pop(queue))["messages"]

    assert message["producerSub"] not in ("", None, "somebody else")


async def test_queues_get_namespace_and_task_from_their_names(mq, queue):
    await mq.push(f"{queue}.billing.eu", 1)

    [found] = await mq.sql("SELECT namespace, task FROM queueing_queue WHERE name = %s", f"{queue}.billing.eu")

    assert found == (queue, "billing")


# -- Order ----------------------------------------------------------------------------------------------------


async def test_a_message_that_is_committed_late_is_never_skipped(mq, queue):
    """Two pushers of one partition, the first with its transaction open: the second waits for it, and so keeps behind."""
    await mq.push(queue, "made")
    [message] = (await mq.pop(queue))["messages"]
    await mq.ack(message)
    early, _ = await push_rows.build(mq.tenant_id, "", [NewMessage(queue, b'"early"')], [0])

    async with database.transaction() as conn:
        await push_write.write(early, conn)
        late = asyncio.create_task(mq.push(queue, "late"))
        await eventually(blocked)
        seen_meanwhile = await mq.data(queue, batch=10)
    await late
    seen = await mq.data(queue, batch=10)

    assert seen_meanwhile == []
    assert seen == ["early", "late"]


async def test_numbers_of_a_partition_have_no_gaps_and_its_times_never_decrease(mq, queue):
    await all_of(*(mq.push(queue, *range(n, n + 3)) for n in range(0, 60, 3)))

    rows = await mq.sql(
        "SELECT m.seq, m.created_at FROM queueing_message m WHERE m.tenant_id = %s ORDER BY m.seq", mq.tenant_id
    )

    assert [seq for seq, _ in rows] == list(range(1, 61))
    assert [at for _, at in rows] == sorted(at for _, at in rows)


async def test_messages_of_one_request_keep_their_order(mq, queue):
    await mq.push(queue, *range(50))

    assert await mq.data(queue, batch=100) == list(range(50))


# -- Once per transaction id ------------------------------------------------------------------------------------


async def test_a_duplicate_transaction_id_returns_the_first_message(mq, queue):
    item = {"queue": queue, "payload": 1, "transactionId": "t"}
    [first] = await mq.push_items([item])

    [second] = await mq.push_items([{**item, "payload": 2}])

    assert second == {
        "index": 0,
        "transaction_id": "t",
        "status": "duplicate",
        "message_id": first["message_id"],
        "queueName": queue,
    }
    assert await mq.data(queue, batch=10) == [1]


async def test_within_one_request_the_first_message_of_a_transaction_id_is_stored(mq, queue):
    item = {"queue": queue, "transactionId": "t"}

    verdicts = await mq.push_items([{**item, "payload": n} for n in range(3)])

    assert [v["status"] for v in verdicts] == ["queued", "duplicate", "duplicate"]
    assert len({v["message_id"] for v in verdicts}) == 1
    assert await mq.data(queue, batch=10) == [0]


async def test_another_partition_may_have_the_same_transaction_id(mq, queue):
    verdicts = await mq.push_items([{"queue": queue, "partition": p, "transactionId": "t"} for p in ("a", "b")])

    assert [v["status"] for v in verdicts] == ["queued", "queued"]


async def test_of_eight_concurrent_duplicates_through_two_loops_one_is_stored_and_the_others_return_it(mq, queue):
    """The loops are two processes as far as the database can see: each has its pool and its batches."""
    await mq.push(queue, "made")
    [[number]] = await mq.sql("SELECT max(id) FROM queueing_partition WHERE tenant_id = %s", mq.tenant_id)
    item = NewMessage(queue, b"1", transaction_id="t")

    async with holding("SELECT FROM queueing_partition WHERE id = %s FOR UPDATE", number):
        there = in_another_loop(mq.tenant_id, [item] * 4)
        here = [asyncio.create_task(pushes.push(mq.tenant_id, "", [item])) for _ in range(4)]
        await eventually(lambda: blocked(2))
    verdicts = [v for found in [*await asyncio.gather(*here), *await there] for v in found]

    assert sorted(v.status for v in verdicts) == ["duplicate"] * 7 + ["queued"]
    assert len({v.message_id for v in verdicts}) == 1


def in_another_loop(tenant_id: int, items: list[NewMessage]) -> "asyncio.Future[list]":
    """Each item pushed by itself, all at once, in a thread with a loop of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list] = loop.create_future()

    async def push_all() -> list:
        try:
            return await asyncio.gather(*(pushes.push(tenant_id, "", [item]) for item in items))
        finally:
            await end_loop()

    def run() -> None:
        try:
            found = asyncio.run(push_all())
        except Exception as error:
            loop.call_soon_threadsafe(future.set_exception, error)
        else:
            loop.call_soon_threadsafe(future.set_result, found)

    threading.Thread(target=run).start()
    return future


async def test_partitions_of_concurrent_pushes_are_created_together(mq, queue, monkeypatch):
    """One by one each would wait until those before it had held the queue's row and committed."""
    await mq.push(queue, "made")
    made, real = [], catalog._create_partitions

    async def counted(tenant_id, wanted, names):
        made.append(len(names))
        await real(tenant_id, wanted, names)

    monkeypatch.setattr(catalog, "_create_partitions", counted)
    async with holding("SELECT FROM queueing_queue WHERE tenant_id = %s FOR UPDATE", mq.tenant_id):
        first = asyncio.create_task(mq.push(queue, 0, partition="p0"))
        await eventually(blocked)
        others = [
            asyncio.create_task(pushes.push(mq.tenant_id, "", [NewMessage(queue, b"1", f"p{n % 20}")]))
            for n in range(40)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(first, *others)

    assert made == [1, 19]
    assert len([n for n in range(20) if await mq.data(queue, f"p{n}", batch=10)]) == 20


# -- A bad one among good ones -----------------------------------------------------------------------------------


async def test_only_the_message_that_the_database_refuses_fails_in_a_shared_statement(mq, queue):
    """A trace id that is no UUID never gets this far by HTTP; whatever else might, is its sender's trouble only."""
    await mq.push(queue, "made")
    bad = NewMessage(queue, b"0", transaction_id="x" * 300)  # longer than the column: views refuse it long before

    async with holding("SELECT FROM queueing_partition WHERE tenant_id = %s FOR UPDATE", mq.tenant_id):
        first = asyncio.create_task(pushes.push(mq.tenant_id, "", [NewMessage(queue, b"1")]))
        await eventually(blocked)
        shared = [asyncio.create_task(pushes.push(mq.tenant_id, "", [item])) for item in (NewMessage(queue, b"2"), bad)]
        await asyncio.sleep(0)
    good, failed = await asyncio.gather(*shared, return_exceptions=True)
    await first

    assert [v.status for v in good] == ["queued"]
    assert isinstance(failed, Exception)
    assert await mq.data(queue, batch=10) == ["made", 1, 2]


async def test_a_push_creates_a_queue_again_that_was_dropped_meanwhile(mq, queue):
    await mq.push(queue, "old")
    await mq.sql("UPDATE queueing_partition SET queue_id = NULL WHERE tenant_id = %s", mq.tenant_id)
    for table in ("consumer", "group", "queue"):
        await mq.sql(f"DELETE FROM queueing_{table} WHERE tenant_id = %s", mq.tenant_id)

    [verdict] = await mq.push(queue, "new")

    assert verdict["status"] == "queued"
    assert await mq.data(queue, batch=10) == ["new"]


# -- A maximum ---------------------------------------------------------------------------------------------------


async def test_a_maximum_holds_exactly_under_twenty_pushers_at_once(mq, queue):
    await mq.configure(queue, max_size=17)

    verdicts = [v for found in await all_of(*(mq.push(queue, n, n) for n in range(20))) for v in found]

    assert sorted(v["status"] for v in verdicts) == ["failed"] * 23 + ["queued"] * 17
    assert {v["error"] for v in verdicts if v["status"] == "failed"} == {"the queue is full"}
    assert len(await mq.data(queue, batch=100)) == 17


async def test_a_maximum_counts_waiting_messages_and_not_completed_ones(mq, queue):
    await mq.configure(queue, max_size=2)
    await mq.push(queue, 1, 2)
    popped = await mq.pop(queue, batch=10)

    [while_leased] = await mq.push(queue, 3)
    await mq.ack_all(popped["messages"])
    [when_done] = await mq.push(queue, 3)

    assert (while_leased["status"], when_done["status"]) == ("failed", "queued")


async def test_a_duplicate_needs_no_room(mq, queue):
    await mq.configure(queue, max_size=1)
    item = {"queue": queue, "payload": 1, "transactionId": "t"}
    [first] = await mq.push_items([item])

    [again, other] = await mq.push_items([item, {"queue": queue, "payload": 2}])

    assert (again["status"], again["message_id"]) == ("duplicate", first["message_id"])
    assert other["status"] == "failed"


async def test_a_maximum_that_was_just_set_applies_at_once(mq, queue):
    """This process still remembers the queue without one."""
    await mq.push(queue, 1)
    await mq.configure(queue, max_size=2)

    verdicts = await mq.push(queue, 2, 3)

    assert [v["status"] for v in verdicts] == ["queued", "failed"]


async def test_a_maximum_that_was_just_lowered_applies_at_once(mq, queue):
    await mq.configure(queue, max_size=3)
    await mq.push(queue, 1)
    await mq.configure(queue, max_size=1)

    [verdict] = await mq.push(queue, 2)

    assert verdict["status"] == "failed"


# -- At rest -----------------------------------------------------------------------------------------------------


async def test_encryption_that_was_just_enabled_applies_at_once(mq, queue, monkeypatch):
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"k1": bytes(32)}, setting=push_rows.crypto.SETTING)
    )
    await mq.push(queue, "plain")
    await mq.configure(queue, encrypted=True)

    await mq.push(queue, "secret")

    rows = await mq.sql("SELECT payload, key_id FROM queueing_message WHERE tenant_id = %s ORDER BY seq", mq.tenant_id)
    assert [key for _, key in rows] == [None, "k1"]
    assert b"secret" not in rows[1][0]
    assert payloads(await mq.pop(queue, batch=10)) == ["plain", "secret"]


async def test_without_a_key_pushes_to_an_encrypted_queue_are_refused(mq, queue):
    await mq.configure(queue, encrypted=True)

    body = await mq.call("POST", "/api/v1/push", json={"items": [{"queue": queue, "payload": 1}]}, status=500)

    assert "QUEUE_ENCRYPTION_KEYS" in body["error"]
    assert await mq.sql("SELECT FROM queueing_message WHERE tenant_id = %s", mq.tenant_id) == []


@pytest.mark.parametrize("moved", ["partition_id", "transaction_id"])
async def test_a_ciphertext_moved_elsewhere_is_not_readable_there(mq, queue, monkeypatch, moved):
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"k1": bytes(32)}, setting=push_rows.crypto.SETTING)
    )
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, "secret", partition="a")
    await mq.push(queue, "other", partition="b")
    if moved == "transaction_id":
        await mq.sql("UPDATE queueing_message SET transaction_id = 'x' || seq WHERE tenant_id = %s", mq.tenant_id)
    else:
        await mq.sql(
            "UPDATE queueing_message m SET payload = o.payload FROM queueing_message o"
            " WHERE o.tenant_id = m.tenant_id AND o.partition_id <> m.partition_id AND m.tenant_id = %s",
            mq.tenant_id,
        )

    body = await mq.call("GET", f"/api/v1/pop/queue/{queue}", status=500)

    assert "changed at rest" in body["error"]
    assert {row["lease"] for row in await mq.consumers(queue)} == {None}


async def test_a_message_that_cannot_be_decrypted_delays_no_other_partition(mq, queue, monkeypatch):
    """A key that was taken away too early: its partition waits, uncounted, until the key is back."""
    old, new = bytes(32), b"k" * 32
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"old": old}, setting=push_rows.crypto.SETTING)
    )
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, "locked", partition="a")
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"new": new}, setting=push_rows.crypto.SETTING)
    )
    await mq.push(queue, "open", partition="b")

    both = await mq.pop(queue, batch=10, partitions=2)
    nothing = await mq.pop(queue)
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"new": new, "old": old}, setting=push_rows.crypto.SETTING)
    )
    await mq.wake_retries(queue)
    later = await mq.pop(queue)

    assert (payloads(both), nothing, payloads(later)) == (["open"], None, ["locked"])
    assert {row["attempt"] for row in await mq.consumers(queue)} == {0}


async def test_with_auto_ack_a_message_that_cannot_be_decrypted_becomes_a_dead_letter(mq, queue, monkeypatch):
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"old": bytes(32)}, setting=push_rows.crypto.SETTING)
    )
    await mq.configure(queue, encrypted=True)
    await mq.push(queue, "locked")
    monkeypatch.setattr(
        push_rows.crypto, "_cipher", push_rows.crypto.Cipher({"new": b"k" * 32}, setting=push_rows.crypto.SETTING)
    )
    await mq.push(queue, "open")

    seen = await mq.data(queue, batch=10, autoAck=True)

    kept = await mq.sql("SELECT key_id, error FROM queueing_deadmessage WHERE tenant_id = %s", mq.tenant_id)
    assert seen == ["open"]
    assert [(key, "'old' is not among" in error) for key, error in kept] == [("old", True)]


@pytest.mark.parametrize(
    "id", ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "undefined", "null"]
)
async def test_a_transaction_id_such_as_null_is_refused_because_a_second_message_with_it_would_be_lost(mq, queue, id):
    item = {"queue": queue, "payload": 1, "transactionId": id}

    push = await mq.call("POST", "/api/v1/push", json={"items": [item]}, status=422)
    both = {"operations": [{"type": "push", "items": [item]}]}
    transaction = await mq.call("POST", "/api/v1/transaction", json=both, status=422)

    assert [said["errors"][0]["field"] for said in (push, transaction)] == ["transactionId"] * 2
    assert "stands for no id" in push["error"]
