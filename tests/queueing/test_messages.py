"""Messages are listed and shown, dead letters replayed once and purged, traces stored."""

from datetime import UTC, datetime, timedelta

import pytest
from queen import Queen

from tests.queueing.mq import all_of


async def listed(mq, **params):
    found = await mq.call("GET", "/api/v1/messages", params=params, status=200)
    return [(m["status"], m["transactionId"]) for m in found["messages"]]


async def letters(mq, **params):
    return await mq.call("GET", "/api/v1/dlq", params=params, status=200)


def path_of(message, more=""):
    partition = message.get("partitionId") or message["partition_id"]
    return f"/api/v1/messages/{partition}/{message.get('transactionId') or message['transaction_id']}{more}"


async def bury_one(mq, queue, payload=1, **fields):
    await mq.push(queue, payload)
    [message] = (await mq.pop(queue))["messages"]
    await mq.ack(message, "dlq", **fields)
    return message


# -- Messages ------------------------------------------------------------------------------------------------------


async def test_each_message_is_listed_with_its_state(mq, queue):
    await mq.push_items([{"queue": queue, "payload": n, "transactionId": str(n)} for n in range(5)])
    await mq.data(queue, autoAck=True)
    [dead, _] = (await mq.pop(queue, batch=2))["messages"]
    await mq.ack(dead, "dlq")

    found = await listed(mq, queue=queue)

    assert found == [
        ("pending", "4"), ("pending", "3"), ("processing", "2"), ("dead_letter", "1"), ("completed", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"queue": "n.a"}, ["a1", "a0"]),
        ({"ns": "n", "task": "b"}, ["b0"]),
        ({"namespace": "n", "partition": "p"}, ["b0"]),
        ({"status": "completed"}, ["a0"]),
        ({"limit": "1"}, ["b0"]),
        ({"limit": "1", "offset": "1"}, ["a1"]),
        ({"queue": "none"}, []),
    ],
)
async def test_filters_choose_messages(mq, filters, expected):
    await mq.push_items([{"queue": "n.a", "transactionId": name} for name in ("a0", "a1")])
    await mq.push_items([{"queue": "n.b", "partition": "p", "transactionId": "b0"}])
    await mq.data("n.a", autoAck=True)

    assert [name for _, name in await listed(mq, **filters)] == expected


async def test_the_last_hour_is_shown_unless_more_is_asked_for(mq, queue):
    await mq.push(queue, 1)
    await mq.age(queue, 7200)
    await mq.push(queue, 2)
    ago = datetime.now(UTC) - timedelta(hours=3)

    assert len(await listed(mq, queue=queue)) == 1
    assert len(await listed(mq, queue=queue, **{"from": ago.isoformat()})) == 2
    assert (
        len(await listed(mq, queue=queue, **{"from": ago.isoformat(), "to": (ago + timedelta(hours=2)).isoformat()}))
        == 1
    )


async def test_an_unknown_status_is_refused(mq):
    refused = await mq.call("GET", "/api/v1/messages", params={"status": "lost"}, status=400)

    assert "pending" in refused["error"]


async def test_a_message_is_shown_with_its_payload_queue_and_groups(mq, queue):
    await mq.push_items([{"queue": queue, "payload": {"n": 1}, "transactionId": "a/b c"}])
    [message] = (await mq.pop(queue, consumerGroup="g"))["messages"]

    found = await mq.call("GET", f"/api/v1/messages/{message['partitionId']}/a%2Fb%20c", status=200)

    assert (found["payload"], found["isEncrypted"], found["status"]) == ({"n": 1}, False, "processing")
    assert found["queueConfig"]["leaseTime"] == 300
    assert found["mode"] == {"hasQueueMode": False, "busGroupsCount": 1, "type": "bus"}
    assert [(g["name"], g["consumed"]) for g in found["consumerGroups"]] == [("g", False)]


# -- Dead letters ----------------------------------------------------------------------------------------------------


async def test_dead_letters_are_listed_with_filters_and_a_total(mq, queue):
    for group in ("g", "h"):
        for partition in ("p", "r"):
            await mq.push(queue, group + partition, partition=partition)
    for group in ("g", "h"):
        for message in (await mq.pop(queue, consumerGroup=group, partitions=5, batch=9))["messages"]:
            await mq.ack(message, "dlq", error="no")
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    assert (await letters(mq))["total"] == (await letters(mq, queue=queue))["total"] == 8
    assert (await letters(mq, consumerGroup="g"))["total"] == 4
    assert (await letters(mq, consumerGroup="g", partition="p"))["total"] == 2
    assert (await letters(mq, **{"from": future}))["total"] == 0
    assert (await letters(mq, to=future, limit="3"))["pagination"] == {"limit": 3, "offset": 0, "total": 8}
    assert len((await letters(mq, limit="3", offset="6"))["messages"]) == 2
    assert {m["errorMessage"] for m in (await letters(mq))["messages"]} == {"no"}


async def test_the_client_of_the_contract_reads_dead_letters(server, key, mq, queue):
    await bury_one(mq, queue, {"a": 1})

    async with Queen({"urls": [server], "bearer_token": key}) as client:
        found = await client.queue(queue).dlq().get()

    assert (found["total"], found["messages"][0]["data"]) == (1, {"a": 1})


async def test_a_dead_letter_is_replayed_once_under_eight_calls_at_once(admin, queue):
    await bury_one(admin, queue, {"n": 2**60 + 1})
    [letter] = (await letters(admin))["messages"]
    path = f"/api/v1/dlq/{letter['id']}/replay"

    verdicts = await all_of(*(admin.call("POST", path, status=200) for _ in range(8)))

    assert sorted(v["verdict"] for v in verdicts) == ["duplicate"] * 7 + ["moved"]
    assert (await letters(admin))["total"] == 0
    [again] = (await admin.pop(queue, batch=9))["messages"]
    assert (again["data"], again["transactionId"]) == ({"n": 2**60 + 1}, f"dlq:{letter['id']}")


async def test_a_replay_keeps_partition_trace_and_sender(admin, queue):
    trace = "0190b5a8-0000-7000-8000-000000000001"
    await admin.push_items([{"queue": queue, "partition": "p", "traceId": trace}])
    [message] = (await admin.pop(queue))["messages"]
    await admin.ack(message, "dlq")
    [letter] = (await letters(admin))["messages"]

    await admin.call("POST", f"/api/v1/dlq/{letter['id']}/replay", status=200)

    [again] = (await admin.pop(queue))["messages"]
    assert [again[n] for n in ("partition", "traceId", "producerSub")] == ["p", trace, message["producerSub"]]


async def test_purged_or_foreign_dead_letters_cannot_be_replayed(admin, foreign, queue):
    await bury_one(foreign, queue)
    await bury_one(admin, queue)
    [theirs] = (await letters(foreign))["messages"]
    [mine] = (await letters(admin))["messages"]
    await admin.call("DELETE", "/api/v1/dlq", params={"queue": queue}, status=200)

    for id in (theirs["id"], mine["id"], "0", "x", "9" * 30):
        await admin.call("POST", f"/api/v1/dlq/{id}/replay", status=404)

    assert (await letters(foreign))["total"] == 1


async def test_a_message_is_retried_by_its_id(admin, queue):
    message = await bury_one(admin, queue)

    done = await admin.call("POST", path_of(message, "/retry"), status=200)
    twice = await admin.call("POST", path_of(message, "/retry"), status=200)

    assert (done["verdict"], twice["verdict"]) == ("moved", "duplicate")
    assert await admin.data(queue) == [1]


async def test_a_message_that_is_not_dead_is_not_retried(admin, queue):
    [pushed] = await admin.push(queue, 1)

    await admin.call("POST", path_of(pushed, "/retry"), status=404)

    assert await admin.data(queue, batch=9) == [1]


async def test_a_message_is_made_a_dead_letter_by_hand(admin, queue):
    first, _ = await admin.push(queue, 1, 2)
    await admin.data(queue, consumerGroup="g", batch=9)
    await admin.sql(
        "UPDATE queueing_consumer SET lease_id = NULL, due_at = now() WHERE tenant_id = %s", admin.tenant_id
    )

    done = await admin.call("POST", path_of(first, "/dlq"), json={"error": "not ours"}, status=200)

    assert done["consumerGroups"] == 1
    assert await admin.dead(queue, "g") == [("1", "not ours")]
    assert await admin.data(queue, consumerGroup="g", batch=9) == [2]


async def test_after_its_last_message_became_a_dead_letter_by_hand_a_partition_is_not_due(admin, queue):
    [only] = await admin.push(queue, 1)
    await admin.pop(queue)
    await admin.sql(
        "UPDATE queueing_consumer SET lease_id = NULL, due_at = now() WHERE tenant_id = %s", admin.tenant_id
    )

    await admin.call("POST", path_of(only, "/dlq"), json={}, status=200)

    assert await admin.at_rest(queue)
    await admin.push(queue, 2)
    assert await admin.data(queue) == [2]


async def test_a_message_of_a_queue_without_groups_cannot_become_a_dead_letter(admin, queue):
    [only] = await admin.push(queue, 1)

    await admin.call("POST", path_of(only, "/dlq"), json={}, status=404)


async def test_a_purge_keeps_messages_before_the_cursor_from_being_delivered_again(admin, queue):
    """2 is dead while 1 is still in hand: its row is what keeps 2 from being delivered again."""
    await admin.push(queue, 1, 2, 3)
    popped = await admin.pop(queue, batch=2)
    await admin.ack(popped["messages"][1], "dlq")

    purged = await admin.call("DELETE", "/api/v1/dlq", params={"queue": queue}, status=200)
    await admin.lapse(popped["leaseId"])

    assert (purged["purged"], (await letters(admin))["total"]) == (1, 0)
    assert await admin.data(queue, batch=9) == [1, 3]


async def test_a_purge_deletes_dead_letters_behind_the_cursor_and_requires_a_queue(admin, queue):
    await bury_one(admin, queue)
    await bury_one(admin, "other" + queue)

    await admin.call("DELETE", "/api/v1/dlq", status=400)
    await admin.call("DELETE", "/api/v1/dlq", params={"queue": queue}, status=200)

    assert await admin.sql("SELECT count(*) FROM queueing_deadmessage WHERE tenant_id = %s", admin.tenant_id) == [(1,)]


async def test_a_key_without_admin_neither_replays_nor_purges(mq, queue):
    message = await bury_one(mq, queue)
    [letter] = (await letters(mq))["messages"]

    await mq.call("POST", f"/api/v1/dlq/{letter['id']}/replay", status=403)
    await mq.call("POST", path_of(message, "/retry"), status=403)
    await mq.call("POST", path_of(message, "/dlq"), status=403)
    await mq.call("DELETE", "/api/v1/dlq", params={"queue": queue}, status=403)

    assert (await letters(mq))["total"] == 1


# -- Traces ----------------------------------------------------------------------------------------------------------


async def test_traces_are_listed_by_message_and_by_name(mq, queue):
    [pushed] = await mq.push(queue, 1)
    where = {"transactionId": pushed["transaction_id"], "partitionId": pushed["partition_id"]}
    for n, names in enumerate([["a", "b/c"], "a", None]):
        await mq.call("POST", "/api/v1/traces", json={**where, "data": {"n": n}, "traceNames": names}, status=201)

    of_message = await mq.call("GET", f"/api/v1/traces/{where['partitionId']}/{where['transactionId']}", status=200)
    named = await mq.call("GET", "/api/v1/traces/by-name/a", params={"limit": 1}, status=200)
    slashed = await mq.call("GET", "/api/v1/traces/by-name/b%2Fc", status=200)
    names = await mq.call("GET", "/api/v1/traces/names", status=200)

    assert [t["data"]["n"] for t in of_message["traces"]] == [0, 1, 2]
    assert ([t["data"]["n"] for t in named["traces"]], named["total"]) == ([1], 2)
    assert [t["data"]["n"] for t in slashed["traces"]] == [0]
    assert [(n["traceName"], n["traceCount"]) for n in names["traceNames"]] == [("a", 2), ("b/c", 1)]


async def test_traces_of_another_tenants_message_are_neither_written_nor_read(mq, foreign, queue):
    [pushed] = await foreign.push(queue, 1)
    where = {"transactionId": pushed["transaction_id"], "partitionId": pushed["partition_id"]}
    await foreign.call("POST", "/api/v1/traces", json={**where, "data": 1, "traceNames": "a"}, status=201)

    await mq.call("POST", "/api/v1/traces", json={**where, "data": 1}, status=404)

    assert (await mq.call("GET", f"/api/v1/traces/{where['partitionId']}/{where['transactionId']}"))["traces"] == []
    assert (await mq.call("GET", "/api/v1/traces/by-name/a"))["total"] == 0
    assert (await mq.call("GET", "/api/v1/traces/names"))["total"] == 0
