"""Retention: which messages and partitions are deleted, and which never are."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from queueing.broker import retention
from registry.data import database
from registry.data.chores import CHORES
from tests.queueing.mq import all_of, holding


async def left(mq, queue):
    """What is stored, and what the partition's own figure says of how many that are."""
    rows = await mq.sql(
        "SELECT p.last_seq - p.removed, (SELECT array_agg(convert_from(m.payload, 'utf8') ORDER BY m.seq)"
        " FROM queueing_message m WHERE m.partition_id = p.id)"
        " FROM queueing_partition p JOIN queueing_queue q ON q.id = p.queue_id WHERE q.tenant_id = %s AND q.name = %s",
        mq.tenant_id,
        queue,
    )
    for count, payloads in rows:
        assert count == len(payloads or [])
    return [payload for _, payloads in rows for payload in payloads or []]


async def test_old_messages_are_deleted_and_recent_ones_stay(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1, 2)
    await mq.age(queue, 100)
    await mq.push(queue, 3)

    removed = await retention.by_age()

    assert removed == 2
    assert await left(mq, queue) == ["3"]


@pytest.mark.parametrize("options", [{}, {"retention_seconds": 60}, {"retention_enabled": True}])
async def test_without_retention_nothing_is_deleted(mq, queue, options):
    await mq.configure(queue, **options)
    await mq.push(queue, 1)
    await mq.age(queue, 10**8)

    await retention.retain()

    assert await left(mq, queue) == ["1"]


async def test_expired_messages_are_deleted_though_retention_is_off(mq, queue):
    await mq.configure(queue, ttl_seconds=60)
    await mq.push(queue, 1)
    await mq.age(queue, 100)

    await retention.retain()

    assert await left(mq, queue) == []


async def test_all_old_messages_are_deleted_slice_by_slice(mq, queue, monkeypatch):
    monkeypatch.setattr(retention, "SLICE", 7)
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, *range(50))
    await mq.push(queue, *range(30), partition="other")
    await mq.age(queue, 100)

    removed = await retention.by_age()

    assert removed == 80
    assert await left(mq, queue) == []


async def test_messages_are_completed_once_the_slowest_group_has_acked_them(mq, queue):
    await mq.configure(queue, retention_enabled=True, completed_retention_seconds=60)
    await mq.push(queue, 1, 2, 3)
    await mq.data(queue, consumerGroup="fast", batch=3, autoAck=True)
    await mq.data(queue, consumerGroup="slow", batch=1, autoAck=True)
    await mq.age(queue, 100)

    removed = await retention.completed()

    assert removed == 1
    assert await left(mq, queue) == ["2", "3"]
    assert await mq.data(queue, consumerGroup="slow", batch=5) == [2, 3]


async def test_without_groups_no_message_is_completed(mq, queue):
    await mq.configure(queue, retention_enabled=True, completed_retention_seconds=60)
    await mq.push(queue, 1)
    await mq.age(queue, 100)

    assert await retention.completed() == 0


async def test_messages_that_waited_too_long_are_evicted_and_completed_ones_are_not(mq, queue):
    await mq.configure(queue, max_wait_seconds=60)
    await mq.push(queue, 1, 2)
    await mq.data(queue, autoAck=True)
    await mq.age(queue, 100)
    await mq.push(queue, 3)

    removed = await retention.evict()

    assert removed == 1
    assert await left(mq, queue) == ["1", "3"]
    assert await mq.data(queue, batch=5) == [3]


async def test_cursors_pass_deleted_messages_and_the_partition_is_not_due(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1, 2)
    await mq.data(queue, consumerGroup="g", autoAck=True)
    await mq.age(queue, 100)

    await retention.by_age()

    assert await mq.at_rest(queue)
    await mq.push(queue, 3)
    assert await mq.data(queue, consumerGroup="g") == [3]


async def test_leased_messages_stay_until_the_lease_ends(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1, 2)
    [message] = (await mq.pop(queue))["messages"]
    await mq.sql(
        "UPDATE queueing_message SET created_at = created_at - interval '100 s' WHERE tenant_id = %s", mq.tenant_id
    )

    while_leased = await retention.by_age()
    verdict = await mq.ack(message)
    afterwards = await retention.by_age()

    assert (while_leased, verdict["success"], afterwards) == (0, True, 2)


async def test_an_expired_lease_keeps_no_messages(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1)
    popped = await mq.pop(queue)
    await mq.lapse(popped["leaseId"])
    await mq.age(queue, 100)

    await retention.by_age()

    assert await left(mq, queue) == []
    assert await mq.at_rest(queue)


async def test_dead_letters_are_never_touched(mq, queue):
    await mq.configure(
        queue,
        retention_enabled=True,
        retention_seconds=1,
        completed_retention_seconds=1,
        ttl_seconds=1,
        max_wait_seconds=1,
    )
    await mq.push(queue, "dead")
    await mq.ack((await mq.pop(queue))["messages"][0], "dlq", error="no")
    await mq.age(queue, 10**8)
    await mq.sql("UPDATE queueing_deadmessage SET failed_at = '2000-01-01', created_at = '2000-01-01'")

    await retention.retain()
    await retention.tidy()

    assert await left(mq, queue) == []
    assert await mq.dead(queue) == [('"dead"', "no")]


async def test_retention_does_not_wait_for_a_running_pop(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1)
    await mq.data(queue, consumerGroup="g")
    await mq.sql("UPDATE queueing_consumer SET lease_id = NULL WHERE tenant_id = %s", mq.tenant_id)
    await mq.age(queue, 100)

    async with holding("SELECT FROM queueing_consumer WHERE tenant_id = %s FOR UPDATE", mq.tenant_id):
        removed = await asyncio.wait_for(retention.by_age(), 5)

    assert removed == 0
    assert await retention.by_age() == 1


async def test_concurrent_pushes_are_all_kept(mq, queue, monkeypatch):
    monkeypatch.setattr(retention, "SLICE", 5)
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, *range(100))
    await mq.age(queue, 100)

    await all_of(retention.by_age(), *(mq.push(queue, n) for n in range(1000, 1030)))

    assert sorted(map(int, await left(mq, queue))) == list(range(1000, 1030))


async def test_retention_does_not_read_messages_that_stay(mq, queue):
    """The price of a look is one row per partition, however many messages there are that stay."""
    await mq.configure(queue, retention_enabled=True, retention_seconds=600)
    await mq.push(queue, *range(2000))
    plan = "EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) " + retention.SQL["aged"]

    [found] = (await database.fetch(plan, {"after": 0, "limit": 10}))[0][0]

    assert _rows_read(found["Plan"], "queueing_message") <= 1


def _rows_read(node, table):
    own = (
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        if node.get("Relation Name") == table
        else 0
    )
    return own + sum(_rows_read(child, table) for child in node.get("Plans", []))


# -- What is left over ---------------------------------------------------------------------------------------------


async def test_messages_and_dead_letters_of_a_dropped_queue_are_deleted(mq, queue):
    await mq.push(queue, *range(20))
    await mq.ack((await mq.pop(queue))["messages"][0], "dlq")
    await mq.push("other-" + queue, 1)
    await mq.sql(
        "UPDATE queueing_partition SET queue_id = NULL WHERE queue_id = (SELECT id FROM queueing_queue WHERE name = %s)",
        queue,
    )

    removed = await retention.dropped()

    assert removed == 20
    assert await mq.sql("SELECT count(*) FROM queueing_message WHERE tenant_id = %s", mq.tenant_id) == [(1,)]
    assert await mq.sql("SELECT count(*) FROM queueing_deadmessage WHERE tenant_id = %s", mq.tenant_id) == [(0,)]
    assert await mq.sql("SELECT count(*) FROM queueing_partition WHERE tenant_id = %s", mq.tenant_id) == [(1,)]


async def test_an_old_empty_partition_is_deleted_and_created_again_by_a_push(mq, queue):
    await mq.configure(queue, retention_enabled=True, retention_seconds=1)
    await mq.push(queue, 1)
    await mq.data(queue, autoAck=True)
    await mq.age(queue, 40 * 86_400)
    await retention.by_age()
    await mq.push(queue, "young", partition="young")

    removed = await retention.empty_partitions()
    await mq.push(queue, 2)

    assert removed == 1
    assert sorted(map(str, await mq.data(queue, batch=9, partitions=9))) == ["2", "young"]


async def test_an_old_partition_that_holds_messages_stays(mq, queue):
    await mq.push(queue, 1)
    await mq.age(queue, 400 * 86_400)

    assert await retention.empty_partitions() == 0


async def test_old_statistics_are_deleted(mq, queue):
    await mq.push(queue, 1)
    await mq.sql(
        "INSERT INTO queueing_traffic (tenant_id, queue_id, minute) SELECT %s, q.id, now() - d * interval '1 day'"
        " FROM queueing_queue q, unnest(ARRAY[1, 89, 91, 200]) d WHERE q.name = %s",
        mq.tenant_id,
        queue,
    )
    await mq.sql(
        "INSERT INTO queueing_traffic (tenant_id, queue_id, minute) VALUES (%s, 999999999, now())", mq.tenant_id
    )
    for days in (1, 29, 31):
        at = retention._first_id(datetime.now(UTC) - timedelta(days=days))
        await mq.sql(
            "INSERT INTO queueing_trace (id, tenant_id, partition_id, transaction_id, names, data)"
            " VALUES (%s, %s, 1, 't', '[]', '{}')",
            at,
            mq.tenant_id,
        )

    removed = await retention.old_figures()

    assert removed == 4
    assert await mq.sql("SELECT count(*) FROM queueing_trace WHERE tenant_id = %s", mq.tenant_id) == [(2,)]


async def test_cron_runs_the_chores_of_retention():
    assert {"retain-messages", "tidy-queues"} <= CHORES.keys()
