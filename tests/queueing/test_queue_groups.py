"""Consumer groups over HTTP: lag, deletion, subscription and seek; other tenants see and change nothing."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from queueing.broker import long_polls, traffic
from tests.conftest import Api, eventually, make_key
from tests.queueing.mq import Mq, blocked, holding

GROUPS = "/api/v1/consumer-groups"
QUEUE_MODE = "__QUEUE_MODE__"


@pytest.fixture
async def admin(server: str, tenant) -> Mq:
    """A program of `tenant` whose key may do everything."""
    async with Api(server, await make_key(tenant, "admin")) as api:
        yield Mq(api, tenant.pk)


async def standing(mq: Mq, group: str, queue: str) -> dict:
    found = await mq.call("GET", GROUPS, status=200)
    return next(one for one in found if (one["name"], one["queueName"]) == (group, queue))


# -- Looking ------------------------------------------------------------------------------------------------


async def test_lag_is_what_a_group_has_not_acked_in_messages_and_in_seconds(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, 3, partition="a")
    await mq.push(queue, 4, partition="b")
    [first] = (await mq.pop(queue, "a", consumerGroup="g"))["messages"]
    await mq.ack(first)
    await mq.age(queue, 60)

    found = await standing(mq, "g", queue)

    assert (found["totalLag"], found["partitionsWithLag"], found["topics"]) == (3, 2, [queue])
    assert 60 <= found["maxTimeLag"] < 70


async def test_a_group_that_has_read_all_has_no_lag_and_readers_without_a_group_have_their_name(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.data(queue, autoAck=True)

    found = await standing(mq, QUEUE_MODE, queue)

    assert (found["totalLag"], found["maxTimeLag"], found["partitionsWithLag"]) == (0, 0, 0)
    assert (found["state"], found["subscriptionMode"]) == ("Stable", "all")


async def test_messages_that_retention_removed_are_no_lag(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, 3)
    await mq.pop(queue, consumerGroup="g")
    await remove_messages(mq, queue)

    found = await standing(mq, "g", queue)

    assert (found["totalLag"], found["partitionsWithLag"]) == (0, 0)


async def remove_messages(mq: Mq, queue: str) -> None:
    """As retention does."""
    await mq.sql(
        "WITH gone AS (DELETE FROM queueing_message m USING queueing_partition p, queueing_queue q"
        " WHERE p.id = m.partition_id AND q.id = p.queue_id AND q.tenant_id = %s AND q.name = %s RETURNING p.id)"
        " UPDATE queueing_partition p SET removed = p.removed + g.n"
        " FROM (SELECT id, count(*) AS n FROM gone GROUP BY 1) g WHERE g.id = p.id",
        mq.tenant_id,
        queue,
    )


async def test_a_slow_group_with_a_reader_is_lagging_and_one_without_is_dead(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="read")
    await mq.pop(queue, consumerGroup="left", subscriptionMode="all")
    await mq.sql("UPDATE queueing_message SET created_at = created_at - interval '10 minutes'")
    await mq.sql(
        "UPDATE queueing_consumer c SET lease_id = NULL, due_at = now() FROM queueing_group g"
        " WHERE g.id = c.group_id AND g.name = 'left'"
    )

    read, left = await standing(mq, "read", queue), await standing(mq, "left", queue)

    assert (read["state"], read["members"]) == ("Lagging", 1)
    assert (left["state"], left["members"]) == ("Dead", 0)


async def test_lagging_lists_groups_whose_oldest_message_has_waited_that_long(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="slow")
    await mq.age(queue, 100)
    await mq.push("other", 1)
    await mq.pop("other", consumerGroup="quick")

    over_a_minute = await mq.call("GET", f"{GROUPS}/lagging?minLagSeconds=60", status=200)
    over_an_hour = await mq.call("GET", f"{GROUPS}/lagging", status=200)
    asked_badly = await mq.call("GET", f"{GROUPS}/lagging?minLagSeconds=-1", status=422)

    assert [one["name"] for one in over_a_minute] == ["slow"]
    assert over_an_hour == []
    assert asked_badly["error"]


async def test_the_detail_of_a_group_has_the_reader_and_the_cursor_of_each_partition(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, partition="a")
    await mq.push(queue, 3, partition="b")
    popped = await mq.pop(queue, "a", consumerGroup="g")
    await mq.ack(popped["messages"][0])
    again = await mq.pop(queue, "a", consumerGroup="g")

    a, b = (await mq.call("GET", f"{GROUPS}/g", status=200))[queue]["partitions"]

    assert (a["partition"], a["offsetLag"], a["totalConsumed"]) == ("a", 1, 1)
    assert (a["leaseActive"], a["workerId"], a["partitionId"]) == (True, again["leaseId"], again["partitionId"])
    assert (b["partition"], b["offsetLag"], b["leaseActive"], b["workerId"]) == ("b", 1, False, None)
    assert b["timeLagSeconds"] > 0
    assert b["lastConsumedAt"] is None


async def test_unknown_groups_and_those_of_other_tenants_are_404(mq: Mq, foreign: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="g")

    body = await foreign.call("GET", f"{GROUPS}/g", status=404)
    listed = await foreign.call("GET", GROUPS, status=200)

    assert body["error"] == "Consumer group not found."
    assert listed == []


# -- Deletion ------------------------------------------------------------------------------------------------


async def test_a_deleted_group_joins_again_with_the_options_of_its_next_pop(mq: Mq, admin: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.data(queue, consumerGroup="g", autoAck=True)

    gone = await admin.call("DELETE", f"{GROUPS}/g", status=200)
    again = await mq.data(queue, consumerGroup="g", subscriptionMode="all")

    assert (gone["success"], gone["existed"], gone["partitionsDeleted"]) == (True, True, 1)
    assert again == [1]


async def test_deleting_a_group_ends_its_leases(mq: Mq, admin: Mq, queue: str):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue, consumerGroup="g"))["messages"]

    await admin.call("DELETE", f"{GROUPS}/g", status=200)
    verdict = await mq.ack(message)

    assert verdict["success"] is False


async def test_a_group_deleted_from_one_queue_stays_in_another(mq: Mq, admin: Mq, queue: str):
    for name in (queue, "other/with.slash"):
        await mq.push(name, 1)
        await mq.pop(name, consumerGroup="g")

    gone = await admin.call("DELETE", f"{GROUPS}/g/queues/other/with.slash", status=200)
    left = await mq.call("GET", f"{GROUPS}/g", status=200)

    assert gone["queues"] == ["other/with.slash"]
    assert list(left) == [queue]


async def test_a_group_deleted_with_its_subscription_kept_starts_again_at_its_first_position(
    mq: Mq, admin: Mq, queue: str
):
    await mq.push(queue, "before")
    await mq.pop(queue, consumerGroup="g", subscriptionMode="new")
    await mq.push(queue, "after")
    await mq.data(queue, consumerGroup="g", autoAck=True)

    await admin.call("DELETE", f"{GROUPS}/g?deleteMetadata=false", status=200)
    again = await mq.data(queue, consumerGroup="g", batch=10)

    assert again == ["after"]
    assert (await standing(mq, "g", queue))["subscriptionMode"] == "new"


async def test_deleting_a_group_requires_the_admin_scope_and_affects_no_other_tenant(
    mq: Mq, foreign: Mq, admin: Mq, queue: str
):
    for one in (mq, foreign):
        await one.push(queue, 1)
        await one.pop(queue, consumerGroup="g")

    await mq.call("DELETE", f"{GROUPS}/g", status=403)
    await admin.call("DELETE", f"{GROUPS}/g", status=200)
    twice = await admin.call("DELETE", f"{GROUPS}/g", status=200)

    assert twice["existed"] is False
    assert (await standing(foreign, "g", queue))["totalLag"] == 1


OTHER_PROCESS = """
import asyncio, sys
from registry.asgi import application
from queueing.broker.catalog import GroupSubscription
from queueing.broker.pop import Target, pop
from registry.data.loop import end_loop

async def main():
    tenant, queue = int(sys.argv[1]), sys.argv[2]
    for _ in sys.stdin:
        found = await pop(tenant, Target(queue=queue, group="g"), auto_ack=True)
        print([bytes(message.data) for message in found.messages], flush=True)
    await end_loop()

asyncio.run(main())
"""


async def test_a_process_that_has_a_deleted_group_in_its_cache_joins_it_again(mq: Mq, admin: Mq, queue: str):
    await mq.push(queue, 1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, str(mq.tenant_id), queue,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=await environment(),
    )  # fmt: skip
    try:
        first = await tell(process)
        await admin.call("DELETE", f"{GROUPS}/g", status=200)
        again = await tell(process)
    finally:
        process.stdin.close()
        await process.wait()

    assert (first, again) == ("[b'1']", "[b'1']")


async def tell(process) -> str:
    process.stdin.write(b"\n")
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def environment() -> dict[str, str]:
    """Ours, with the test database for the one it was made beside."""
    import os

    from django.conf import settings

    name = settings.DATABASES["default"]["NAME"]
    return {**os.environ, "DATABASE_URL": os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{name}"}


# -- Seek ------------------------------------------------------------------------------------------------------


async def test_a_seek_to_the_end_skips_waiting_messages_and_releases_leases(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, partition="a")
    await mq.push(queue, 3, partition="b")
    [held] = (await mq.pop(queue, "a", consumerGroup="g"))["messages"]

    answer = await mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"toEnd": True}, status=200)
    left = await mq.pop(queue, consumerGroup="g", batch=10, partitions=10)
    verdict = await mq.ack(held)
    await mq.push(queue, "new", partition="a")

    assert (answer["seekToEnd"], answer["partitionsUpdated"], answer["targetTimestamp"]) == (True, 2, None)
    assert left is None
    assert verdict["success"] is False
    assert await mq.data(queue, consumerGroup="g", batch=10) == ["new"]


async def test_a_seek_to_a_time_delivers_messages_from_that_time_on_again(mq: Mq, queue: str):
    await mq.push(queue, "old")
    await mq.age(queue, 3600)
    await mq.push(queue, "young")
    await mq.data(queue, consumerGroup="g", batch=10, autoAck=True)
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()

    answer = await mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"timestamp": since}, status=200)

    assert (answer["seekToEnd"], answer["partitionsUpdated"]) == (False, 1)
    assert await mq.data(queue, consumerGroup="g", batch=10) == ["young"]


async def test_a_seek_moves_no_other_group(mq: Mq, queue: str):
    await mq.push(queue, 1)

    await mq.pop(queue, consumerGroup="moved")
    await mq.call("POST", f"{GROUPS}/moved/queues/{queue}/seek", json={"toEnd": True}, status=200)

    assert await mq.data(queue, consumerGroup="other") == [1]
    assert await mq.data(queue, consumerGroup="moved") == []


async def test_a_seek_in_one_partition_leaves_the_others(mq: Mq, queue: str):
    await mq.push(queue, "a", partition="a")
    await mq.push(queue, "b", partition="b/c")
    await mq.call("GET", f"/api/v1/pop/queue/{queue}/partition/none?consumerGroup=g", status=204)
    path = f"{GROUPS}/g/queues/{queue}/partitions"

    one = await mq.call("POST", f"{path}/b/c/seek", status=200)
    none = await mq.call("POST", f"{path}/nowhere/seek", status=200)

    assert (one["seekToEnd"], one["partitionsUpdated"], none["partitionsUpdated"]) == (True, 1, 0)
    assert await mq.data(queue, consumerGroup="g", batch=10, partitions=10) == ["a"]


async def test_a_seek_back_wakes_parked_pops(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.data(queue, consumerGroup="g", autoAck=True)
    waiting = asyncio.create_task(mq.data(queue, consumerGroup="g", wait=True, timeout=20_000))
    await eventually(lambda: parked() == 1)

    await mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"timestamp": "2020-01-01T00:00:00Z"}, status=200)

    assert await waiting == [1]


def parked() -> int:

    return long_polls.parked().count


async def test_a_seek_back_delivers_replayed_dead_letters_again(mq: Mq, queue: str):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue, consumerGroup="g"))["messages"]
    await mq.ack(message, "dlq")
    await mq.sql("UPDATE queueing_deadmessage SET ended_at = now()")

    await mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"timestamp": "2020-01-01T00:00:00Z"}, status=200)
    [again] = (await mq.pop(queue, consumerGroup="g"))["messages"]
    await mq.ack(again, "dlq")

    open_ones = await mq.sql("SELECT count(*) FROM queueing_deadmessage WHERE ended_at IS NULL")
    assert open_ones == [(1,)]


async def test_a_seek_waits_for_a_running_push_and_skips_nothing_after_it(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="g")
    [[partition]] = await mq.sql(
        "SELECT p.id FROM queueing_partition p JOIN queueing_queue q ON q.id = p.queue_id WHERE q.name = %s", queue
    )

    async with holding("SELECT FROM queueing_partition WHERE id = %s FOR UPDATE", partition):
        seeking = asyncio.create_task(
            mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"toEnd": True}, status=200)
        )
        await eventually(blocked)
    await seeking
    await mq.push(queue, "later")

    assert await mq.data(queue, consumerGroup="g") == ["later"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "wants either toEnd or timestamp"),
        ({"toEnd": True, "timestamp": "2026-01-01"}, "wants either toEnd or timestamp"),
        ({"timestamp": "yesterday"}, "timestamp wants an ISO 8601 time such as 2026-01-02T03:04:05Z"),
        ({"toEnd": "yes"}, "Expected `bool`, got `str` - at `$.toEnd`"),
    ],
)
async def test_an_invalid_seek_is_400(mq: Mq, queue: str, body: dict, error: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="g")

    answer = await mq.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json=body, status=400)

    assert answer["error"] == error


async def test_a_seek_of_an_unknown_queue_or_group_is_404(mq: Mq, foreign: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="g")

    no_queue = await foreign.call("POST", f"{GROUPS}/g/queues/{queue}/seek", json={"toEnd": True}, status=404)
    no_group = await mq.call("POST", f"{GROUPS}/x/queues/{queue}/seek", json={"toEnd": True}, status=404)

    assert (no_queue["error"], no_group["error"]) == ("Queue not found.", "Consumer group not found.")
    assert (await standing(mq, "g", queue))["members"] == 1


async def test_a_group_that_joins_after_all_messages_were_deleted_receives_the_next_one(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await remove_messages(mq, queue)

    nothing = await mq.data(queue, consumerGroup="late")
    await mq.push(queue, 2)

    assert nothing == []
    assert await mq.data(queue, consumerGroup="late") == [2]


# -- Subscription -----------------------------------------------------------------------------------------------


async def test_a_saved_subscription_applies_when_the_group_joins_again(mq: Mq, admin: Mq, queue: str):
    await mq.push(queue, "old")
    await mq.age(queue, 3600)
    await mq.push(queue, "young")
    await mq.data(queue, consumerGroup="g", batch=10, autoAck=True)
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()

    noted = await mq.call("POST", f"{GROUPS}/g/subscription", json={"subscriptionTimestamp": since}, status=200)
    unmoved = await mq.data(queue, consumerGroup="g", batch=10)
    await admin.call("DELETE", f"{GROUPS}/g/queues/{queue}?deleteMetadata=false", status=200)

    assert (noted["success"], noted["rowsUpdated"], unmoved) == (True, 1, [])
    assert await mq.data(queue, consumerGroup="g", batch=10) == ["young"]
    assert (await standing(mq, "g", queue))["subscriptionMode"] == "timestamp"


@pytest.mark.parametrize(
    ("group", "body", "status"),
    [
        ("g", {"subscriptionTimestamp": "soon"}, 400),
        ("g", {}, 400),
        ("nobody", {"subscriptionTimestamp": "2026-01-01T00:00:00Z"}, 404),
        (QUEUE_MODE, {"subscriptionTimestamp": "2026-01-01T00:00:00Z"}, 400),
    ],
)
async def test_a_subscription_that_cannot_be_saved_is_explained(
    mq: Mq, queue: str, group: str, body: dict, status: int
):
    await mq.push(queue, 1)
    await mq.pop(queue, consumerGroup="g")

    answer = await mq.call("POST", f"{GROUPS}/{group}/subscription", json=body, status=status)

    assert answer["error"]


async def test_a_refresh_writes_the_current_counts(mq: Mq, admin: Mq, queue: str, monkeypatch):
    monkeypatch.setattr(traffic, "FLUSH_EVERY", 600)
    await mq.push(queue, 1, 2)

    await mq.call("POST", "/api/v1/stats/refresh", json={}, status=403)
    await admin.call("POST", "/api/v1/stats/refresh", json={}, status=200)

    assert await mq.sql("SELECT pushed FROM queueing_traffic WHERE tenant_id = %s", mq.tenant_id) == [(2,)]
