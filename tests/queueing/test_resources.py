"""Queues as resources: figures without counting rows; emptied, dropped, and single messages deleted."""

from tests.conftest import eventually
from tests.queueing.mq import all_of


async def get(mq, path, status=200, **params):
    return await mq.call("GET", f"/api/v1/resources/{path}", params=params, status=status)


async def stats(mq, queue):
    return (await get(mq, f"queues/{queue}"))["totals"]


async def test_every_message_is_pending_processing_or_completed(mq, queue):
    await mq.push(queue, *range(10))
    await mq.data(queue, batch=2, autoAck=True)
    await mq.pop(queue, batch=3)

    [listed] = (await get(mq, "queues"))["queues"]

    assert await stats(mq, queue) == {
        "total": 10, "completed": 2, "processing": 3, "pending": 5, "failed": 0, "deadLetter": 0,
    }  # fmt: skip
    assert listed["messages"] == {
        "total": 10,
        "completed": 2,
        "processing": 3,
        "pending": 5,
        "failed": 0,
        "deadLetter": 0,
    }
    assert (listed["name"], listed["partitions"]) == (queue, 1)


async def test_a_queue_nobody_reads_is_all_pending(mq, queue):
    await mq.push(queue, 1, 2)

    assert (await stats(mq, queue))["pending"] == 2


async def test_a_message_is_completed_once_the_slowest_group_has_done_it(mq, queue):
    await mq.push(queue, 1, 2, 3)
    await mq.data(queue, consumerGroup="fast", batch=3, autoAck=True)
    await mq.data(queue, consumerGroup="slow", batch=1, autoAck=True)

    found = await stats(mq, queue)

    assert (found["completed"], found["pending"]) == (1, 2)


async def test_failures_and_dead_letters_are_counted_separately(mq, queue):
    await mq.push(queue, 1, 2)
    await mq.ack((await mq.pop(queue))["messages"][0], "dlq")
    await mq.ack((await mq.pop(queue))["messages"][0], "failed")

    found = await stats(mq, queue)

    assert (found["deadLetter"], found["failed"], found["pending"], found["completed"]) == (1, 1, 1, 1)


async def test_a_lapsed_lease_is_pending_again(mq, queue):
    await mq.push(queue, 1)
    popped = await mq.pop(queue)

    await mq.lapse(popped["leaseId"])

    assert (await stats(mq, queue))["pending"] == 1


async def test_partitions_show_their_oldest_and_newest_message(mq, queue):
    await mq.push(queue, 1, partition="a")
    await mq.age(queue, 100)
    await mq.push(queue, 2, partition="a")
    await mq.push(queue, 3, partition="b/c")

    first, second = (await get(mq, f"queues/{queue}"))["partitions"]

    assert (first["name"], first["stats"]["total"], second["name"]) == ("a", 2, "b/c")
    assert first["oldestMessage"] < first["newestMessage"]
    assert second["oldestMessage"] == second["newestMessage"]


async def test_namespaces_tasks_partitions_and_the_overview(mq):
    await mq.push("shop.mail", 1)
    await mq.push("shop.bill", 2, 3)
    await mq.push("farm.mail", 4, partition="p")

    spaces = (await get(mq, "namespaces"))["namespaces"]
    tasks = (await get(mq, "tasks"))["tasks"]
    partitions = (await get(mq, "partitions", namespace="shop"))["partitions"]
    overview = await get(mq, "overview")

    assert [(s["namespace"], s["queues"], s["messages"]["total"]) for s in spaces] == [("farm", 1, 1), ("shop", 2, 3)]
    assert [(t["task"], t["queues"]) for t in tasks] == [("bill", 1), ("mail", 2)]
    assert [(p["queue"], p["name"]) for p in partitions] == [("shop.bill", "Default"), ("shop.mail", "Default")]
    assert (overview["queues"], overview["partitions"], overview["messages"]["pending"]) == (3, 3, 4)
    assert overview["lag"]["offset"]["max"] == 2


async def test_depth_is_counted_per_group(mq, queue):
    await mq.push(queue, 1, 2, 3)
    await mq.push(queue, 4, partition="p")
    await mq.data(queue, "Default", consumerGroup="g", batch=3, autoAck=True)

    mine = await get(mq, f"queues/{queue}/depth", group="g")
    nobodys = await get(mq, f"queues/{queue}/depth")

    assert (mine["pending"], mine["partitionsPending"], mine["partitions"]) == (1, 1, 2)
    assert nobodys["pending"] == nobodys["effectivePending"] == 4


async def test_a_queue_of_another_tenant_is_not_found(mq, foreign, queue):
    await foreign.push(queue, 1)

    assert (await get(mq, f"queues/{queue}", status=404))["error"] == "Queue not found."
    await get(mq, f"queues/{queue}/depth", status=404)
    assert (await get(mq, "queues"))["queues"] == []
    assert (await get(mq, "overview"))["messages"]["total"] == 0


# -- Deleting ----------------------------------------------------------------------------------------------------


async def test_a_dropped_queue_loses_its_groups_and_starts_empty_when_it_is_created_again(admin, queue):
    await admin.push(queue, 1, 2)
    await admin.pop(queue)

    dropped = await admin.call("DELETE", f"/api/v1/resources/queues/{queue}", status=200)
    again = await admin.call("DELETE", f"/api/v1/resources/queues/{queue}", status=200)
    await get(admin, f"queues/{queue}", status=404)
    [pushed] = await admin.push(queue, 3)

    assert (dropped["existed"], again["existed"]) == (True, False)
    assert pushed["status"] == "queued"
    assert await eventually(lambda: admin.data(queue, batch=9)) == [3]


async def test_only_an_administrators_key_drops_and_empties(mq, queue):
    await mq.push(queue, 1)

    await mq.call("DELETE", f"/api/v1/resources/queues/{queue}", status=403)
    await mq.call("DELETE", f"/api/v1/queues/{queue}/clear", status=403)

    assert (await stats(mq, queue))["total"] == 1


async def test_a_queue_of_another_tenant_is_neither_dropped_nor_emptied(admin, foreign, queue):
    await foreign.push(queue, 1)

    dropped = await admin.call("DELETE", f"/api/v1/resources/queues/{queue}", status=200)
    await admin.call("DELETE", f"/api/v1/queues/{queue}/clear", status=404)

    assert dropped["existed"] is False
    assert await foreign.data(queue) == [1]


async def test_pushes_while_a_queue_is_dropped_are_in_the_new_one_or_in_the_old(admin, queue):
    await admin.push(queue, "first")
    delete = admin.call("DELETE", f"/api/v1/resources/queues/{queue}", status=200)

    *pushed, _ = await all_of(*(admin.push(queue, n) for n in range(40)), delete)
    stored = await admin.sql("SELECT count(*) FROM queueing_message WHERE tenant_id = %s", admin.tenant_id)

    assert {item["status"] for [item] in pushed} == {"queued"}
    assert stored == [(41,)]


async def test_an_emptied_queue_keeps_its_readers_and_takes_new_messages(admin, queue):
    await admin.push(queue, 1, 2)
    await admin.push(queue, 3, partition="p")
    await admin.data(queue, consumerGroup="g", autoAck=True)

    one = await admin.call("DELETE", f"/api/v1/queues/{queue}/clear", params={"partition": "p"}, status=200)
    rest = await admin.call("DELETE", f"/api/v1/queues/{queue}/clear", status=200)
    at_rest = await admin.at_rest(queue)
    total = (await stats(admin, queue))["total"]
    await admin.push(queue, 4)

    assert (one["deleted"], rest["deleted"], at_rest, total) == (1, 2, True, 0)
    assert await admin.data(queue, consumerGroup="g", batch=9) == [4]


async def test_a_deleted_message_is_not_delivered_and_the_figures_know(mq, queue):
    await mq.push(queue, 1, 2, 3)
    [_, middle, _] = (await mq.pop(queue, batch=3, consumerGroup="look"))["messages"]
    path = f"/api/v1/messages/{middle['partitionId']}/{middle['transactionId']}"

    await mq.call("DELETE", path, status=200)
    await mq.call("DELETE", path, status=404)

    assert await mq.data(queue, batch=9) == [1, 3]
    assert (await stats(mq, queue))["total"] == 2


async def test_messages_are_deleted_while_others_push(mq, queue):
    before = await mq.push(queue, *range(20))
    paths = [f"/api/v1/messages/{m['partition_id']}/{m['transaction_id']}" for m in before]

    await all_of(*(mq.call("DELETE", p, status=200) for p in paths), *(mq.push(queue, n) for n in range(100, 120)))

    assert sorted(await mq.data(queue, batch=99)) == list(range(100, 120))
    assert (await stats(mq, queue))["total"] == 20


async def test_messages_of_another_tenant_are_neither_shown_nor_deleted(mq, foreign, queue):
    [pushed] = await foreign.push(queue, 1)
    path = f"/api/v1/messages/{pushed['partition_id']}/{pushed['transaction_id']}"

    await mq.call("GET", path, status=404)
    await mq.call("DELETE", path, status=404)

    assert await foreign.data(queue) == [1]
