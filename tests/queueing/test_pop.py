"""Pops: the partition that has waited longest first, each group by itself, only due messages."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from queueing.broker import claim, sources
from queueing.broker.ids import new_id
from queueing.broker.sources import Target
from tests.conftest import eventually
from tests.depth import deep
from tests.queueing.mq import all_of, blocked, fresh_name, holding, payloads

# -- Leases ------------------------------------------------------------------------------------------------------


async def test_a_leased_partition_is_not_leased_again(mq, queue):
    await mq.push(queue, 1, 2)
    await mq.pop(queue)

    assert await mq.pop(queue) is None


async def test_an_expired_lease_is_taken_over_with_all_messages_that_were_not_acked(mq, queue):
    await mq.push(queue, 1, 2, 3)
    popped = await mq.pop(queue, batch=3)
    await mq.ack(popped["messages"][0])
    await mq.lapse(popped["leaseId"])

    assert await mq.data(queue, batch=3) == [2, 3]


async def test_a_pop_of_an_empty_queue_returns_204(mq, queue):
    await mq.push(queue, 1)
    answers = [await mq.pop(name) for name in (queue, queue, f"{queue}-unknown")]
    there = await mq.pop(queue, "nowhere")

    assert payloads(answers[0]) == [1]
    assert (answers[1:], there) == ([None, None], None)


async def test_one_of_many_readers_at_once_gets_each_partition(mq, queue):
    for n in range(10):
        await mq.push(queue, n, partition=str(n))

    found = await all_of(*(mq.data(queue) for _ in range(30)))

    assert sorted(n for data in found for n in data) == list(range(10))


ROUNDS = deep(10, 30)


async def test_concurrent_pops_by_queue_partition_and_namespace_never_get_the_same_message(mq):
    """All in one statement: the row's lock does not keep apart what one transaction does."""
    namespace, task = fresh_name("ns"), fresh_name("task")
    queue = f"{namespace}.{task}"
    seen = []

    for n in range(ROUNDS):
        await mq.push(queue, n)
        found = await all_of(
            *(mq.pop(queue) for _ in range(4)),
            *(mq.pop(queue, "Default") for _ in range(4)),
            *(mq.pop(namespace=namespace) for _ in range(4)),
            *(mq.pop(task=task) for _ in range(4)),
        )
        seen += [data for popped in found for data in payloads(popped)]
        await mq.ack_all([m for popped in found if popped for m in popped["messages"]])

    assert seen == list(range(ROUNDS))


async def test_with_auto_ack_a_message_is_completed_when_it_is_popped(mq, queue):
    await mq.push(queue, 1, 2)

    popped = await mq.pop(queue, batch=2, autoAck=True)

    assert (payloads(popped), popped["leaseId"]) == ([1, 2], "")
    assert await mq.at_rest(queue)


async def test_each_queue_has_its_own_lease_time(mq, queue):
    await mq.configure(queue, lease_seconds=7)
    await mq.push(queue, 1)
    await mq.pop(queue)

    [[left]] = await mq.sql(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM queueing_consumer WHERE lease_id IS NOT NULL"
        " AND tenant_id = %s",
        mq.tenant_id,
    )
    assert 5 < left <= 7


# -- Several partitions --------------------------------------------------------------------------------------------


async def test_the_batch_is_the_limit_of_all_partitions_together(mq, queue):
    for partition in "abc":
        await mq.push(queue, *(f"{partition}{n}" for n in range(4)), partition=partition)

    first = await mq.pop(queue, batch=6, partitions=3)
    second = await mq.pop(queue, batch=6, partitions=3)

    assert payloads(first) == ["a0", "a1", "a2", "a3", "b0", "b1"]
    assert first["partitionsClaimed"] == 2
    assert payloads(second) == ["c0", "c1", "c2", "c3"]


async def test_by_default_a_pop_leases_one_partition(mq, queue):
    for partition in "ab":
        await mq.push(queue, partition, partition=partition)

    assert [await mq.data(queue, batch=10) for _ in range(3)] == [["a"], ["b"], []]


async def test_a_pop_may_name_a_partition(mq, queue):
    for partition in ("a", "b/c"):
        await mq.push(queue, partition, partition=partition)

    assert await mq.data(queue, "b/c", batch=10) == ["b/c"]


# -- Whose turn it is ----------------------------------------------------------------------------------------------


async def test_of_a_thousand_partitions_the_longest_waiting_comes_first(mq, queue):
    await mq.push_items([{"queue": queue, "partition": f"p{n}", "payload": n} for n in range(1000)])
    await mq.sql(
        "UPDATE queueing_message m SET created_at = now() - p.id * 389 %% 1009 * interval '1 second'"
        " FROM queueing_partition p WHERE p.id = m.partition_id AND p.tenant_id = %s",
        mq.tenant_id,
    )
    await mq.data(queue, batch=1)  # the group joins
    await mq.sql(
        "UPDATE queueing_consumer c SET due_at = m.created_at, lease_id = NULL FROM queueing_message m"
        " WHERE m.partition_id = c.partition_id AND c.tenant_id = %s",
        mq.tenant_id,
    )
    rows = await mq.sql(
        "SELECT convert_from(payload, 'utf8')::int, created_at FROM queueing_message WHERE tenant_id = %s", mq.tenant_id
    )
    since = dict(rows)

    seen = [n for _ in range(10) for n in await mq.data(queue, batch=100, partitions=100)]

    assert len(set(seen)) == len(seen) == 1000
    assert [since[n] for n in seen] == sorted(since.values())


@pytest.mark.parametrize("auto_ack", [True, False])
async def test_a_partition_that_is_pushed_to_all_the_time_does_not_starve_the_others(mq, queue, auto_ack):
    """Its row is locked whenever a reader is done with it, and nobody can look when it is due again."""
    await mq.push(queue, "hot", partition="hot")
    await mq.data(queue, autoAck=True)
    await mq.push(queue, *["hot"] * 5, partition="hot")
    await mq.push(queue, "cold", partition="cold")
    lock = "SELECT FROM queueing_partition WHERE tenant_id = %s AND name = 'hot' FOR UPDATE"

    async with holding(lock, mq.tenant_id):
        seen = []
        for _ in range(4):
            popped = await mq.pop(queue, batch=100, autoAck=auto_ack)
            seen += payloads(popped)
            if popped and not auto_ack:
                await mq.ack_all(popped["messages"])

    assert seen == ["hot"] * 5 + ["cold"]


async def test_of_a_namespace_the_queue_of_higher_priority_comes_first(mq):
    namespace = fresh_name("ns")
    for name, priority in (("low", 0), ("high", 9), ("middle", 5)):
        await mq.configure(f"{namespace}.{name}", priority=priority)
        await mq.push(f"{namespace}.{name}", f"{name}1", partition="1")
        await mq.push(f"{namespace}.{name}", f"{name}2", partition="2")

    seen = [(await mq.data(namespace=namespace))[0] for _ in range(6)]

    assert seen == ["high1", "high2", "middle1", "middle2", "low1", "low2"]


async def test_a_pop_by_task_covers_all_namespaces_or_one(mq):
    a, b, task = fresh_name("ns"), fresh_name("ns"), fresh_name("task")
    await mq.push(f"{a}.{task}", 1)
    await mq.push(f"{b}.{task}", 2)

    alone = await mq.pop(namespace=b, task=task)
    left = await mq.pop(task=task)

    assert (payloads(alone), alone["queue"]) == ([2], f"{b}.{task}")
    assert payloads(left) == [1]


async def test_a_pop_must_name_a_queue_a_namespace_or_a_task(mq):
    body = await mq.call("GET", "/api/v1/pop", status=400)

    assert "namespace or task" in body["error"]


# -- What is not due -------------------------------------------------------------------------------------------------


async def test_a_delayed_message_is_delivered_once_its_delay_is_over(mq, queue):
    await mq.configure(queue, delay_seconds=60)
    await mq.push(queue, 1)
    early = await mq.data(queue)

    await mq.age(queue, 61)

    assert (early, await mq.data(queue)) == ([], [1])


async def test_a_delay_applies_to_each_message_of_a_partition(mq, queue):
    await mq.configure(queue, delay_seconds=60)
    await mq.push(queue, 1)
    await mq.pop(queue)
    await mq.age(queue, 61)
    await mq.push(queue, 2)

    first = await mq.pop(queue, batch=10)
    await mq.ack_all(first["messages"])
    second = await mq.pop(queue, batch=10)
    await mq.age(queue, 61)

    assert (payloads(first), second, await mq.data(queue)) == ([1], None, [2])


async def test_a_window_hides_a_partition_until_it_has_received_nothing_for_that_long(mq, queue):
    await mq.configure(queue, window_seconds=60)
    await mq.push(queue, 1)
    await mq.age(queue, 59)
    await mq.push(queue, 2)
    busy = await mq.data(queue, batch=10)

    await mq.age(queue, 61)

    assert (busy, await mq.data(queue, batch=10)) == ([], [1, 2])


async def test_an_expired_message_is_not_delivered(mq, queue):
    await mq.configure(queue, ttl_seconds=60)
    await mq.push(queue, "old")
    await mq.age(queue, 61)
    await mq.push(queue, "new")

    popped = await mq.pop(queue, batch=10)
    await mq.ack_all(popped["messages"])

    assert payloads(popped) == ["new"]
    assert await mq.at_rest(queue)


async def test_a_partition_with_expired_messages_only_is_no_longer_due(mq, queue):
    await mq.configure(queue, ttl_seconds=60)
    await mq.push(queue, 1, 2)
    await mq.pop(queue, consumerGroup="g")
    await mq.age(queue, 400)

    assert await mq.pop(queue, consumerGroup="g") is None
    assert await mq.at_rest(queue)
    await mq.push(queue, 3)
    assert await mq.data(queue, consumerGroup="g") == [3]


async def test_failures_of_an_expired_message_do_not_count_for_the_next_one(mq, queue):
    await mq.configure(queue, ttl_seconds=60, retry_limit=1, retry_delay_ms=0)
    await mq.push(queue, "old")
    [old] = (await mq.pop(queue))["messages"]
    await mq.ack(old, "failed")
    await mq.age(queue, 61)
    assert await mq.pop(queue) is None
    await mq.push(queue, "new")

    [new] = (await mq.pop(queue))["messages"]
    verdict = await mq.ack(new, "failed")

    assert not verdict["dlq"]


# -- Groups ----------------------------------------------------------------------------------------------------------


async def test_each_group_receives_all_messages_at_its_own_pace(mq, queue):
    await mq.push(queue, 1, 2, 3)
    a = await mq.pop(queue, batch=2, consumerGroup="a")
    await mq.ack_all(a["messages"])

    b = await mq.data(queue, batch=10, consumerGroup="b")

    assert payloads(a) == [1, 2]
    assert b == [1, 2, 3]
    assert await mq.data(queue, batch=10, consumerGroup="a") == [3]
    assert await mq.data(queue, batch=10) == [1, 2, 3]


async def test_groups_in_mode_new_start_at_their_join_time(mq, queue):
    await mq.push(queue, "old")
    for mode in ({"subscriptionMode": "new"}, {"subscriptionMode": "new-only"}, {"subscriptionFrom": "now"}):
        group = "-".join(mode.values())
        before = await mq.data(queue, consumerGroup=group, **mode)
        [pushed] = await mq.push(queue, group)
        after = await mq.data(queue, batch=10, consumerGroup=group)
        assert (before, after) == ([], [group]), pushed


async def test_a_group_may_begin_at_a_time(mq, queue):
    await mq.push(queue, "old")
    await mq.age(queue, 3600)
    await mq.push(queue, "new")
    since = datetime.now(UTC) - timedelta(minutes=30)

    seen = await mq.data(queue, batch=10, consumerGroup="g", subscriptionFrom=since.isoformat())
    none = await mq.data(
        queue, batch=10, consumerGroup="h", subscriptionFrom=(since + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    )

    assert (seen, none) == (["new"], [])


async def test_the_start_of_a_group_is_fixed_when_it_joins(mq, queue):
    await mq.push(queue, 1)
    await mq.data(queue, consumerGroup="g", subscriptionMode="new")

    assert await mq.data(queue, consumerGroup="g", subscriptionMode="all") == []


@pytest.mark.parametrize("mode", ["all", "from_beginning"])
async def test_a_group_may_begin_with_everything_that_is_there(mq, queue, mode, settings):
    settings.DEFAULT_SUBSCRIPTION_MODE = "new"
    await mq.push(queue, 1, 2)

    assert await mq.data(queue, batch=10, consumerGroup="g", subscriptionMode=mode) == [1, 2]


async def test_readers_without_a_group_receive_all_messages_whatever_start_they_request(mq, queue):
    await mq.push(queue, 1)

    assert await mq.data(queue, subscriptionMode="new") == [1]


async def test_a_partition_made_after_a_group_joined_is_read_from_its_beginning(mq, queue):
    await mq.push(queue, 1, partition="a")
    await mq.data(queue, consumerGroup="g", subscriptionMode="new")

    await mq.push(queue, 2, partition="b")

    assert await mq.data(queue, consumerGroup="g") == [2]


async def test_a_group_that_joins_while_a_partition_is_created_has_a_cursor_in_it(mq, queue):
    await mq.push(queue, 0, partition="made")
    hold = "SELECT FROM queueing_queue WHERE tenant_id = %s FOR UPDATE"
    async with holding(hold, mq.tenant_id):
        pushing = [asyncio.create_task(mq.push(queue, n, partition=f"p{n}")) for n in range(3)]
        joining = [asyncio.create_task(mq.pop(queue, consumerGroup=f"g{n}", batch=1)) for n in range(3)]
        await eventually(lambda: blocked(4))
    await asyncio.gather(*pushing, *joining)

    rows = await mq.consumers(queue)

    assert {(r["partition"], r["group"]) for r in rows} == {
        (p, f"g{n}") for p in ("made", "p0", "p1", "p2") for n in range(3)
    }


async def test_a_pop_of_many_partitions_that_fills_its_batch_from_one_leaves_the_others_to_concurrent_pops(mq, queue):
    await mq.push_items([{"queue": queue, "payload": n, "partition": f"p{n}"} for n in range(5)])
    found, _ = await sources.find(mq.tenant_id, Target(queue=queue), create=False)

    claimed = await claim.write_batch([claim.Claim(found, 1, partitions, new_id()) for partitions in (100, 1)])

    assert [len(rows) for rows in claimed] == [1, 1]


# -- Tenants -----------------------------------------------------------------------------------------------------------


async def test_a_queue_of_the_same_name_is_another_one_for_another_tenant(mq, foreign, queue):
    await mq.push(queue, "mine")

    nothing = await foreign.pop(queue)
    await foreign.push(queue, "theirs")

    assert nothing is None
    assert (await foreign.data(queue, batch=10), await mq.data(queue, batch=10)) == (["theirs"], ["mine"])
