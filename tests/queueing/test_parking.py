"""Long polls: they wait without a database connection and are woken at once."""

import asyncio
import os
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from queueing.broker import catalog, groups, long_polls, manage, next_due, pop, push_rows, push_write
from queueing.broker.push_rows import NewMessage
from queueing.broker.sources import Target
from registry.data import channels, database, identity
from tests.conftest import eventually
from tests.depth import deep
from tests.queueing.mq import ack_of, all_of, payloads

SOON = 10.0  # seconds, on a machine with other work; without a hint it takes RECHECK, which the tests set far beyond


@pytest.fixture
def only_hints(monkeypatch):
    """Nobody looks by himself within a test's time."""
    monkeypatch.setattr(long_polls, "RECHECK", 60.0)


@pytest.fixture
def quick_recheck(monkeypatch):
    """Who waits looks by himself five times as often as in the product."""
    monkeypatch.setattr(long_polls, "RECHECK", long_polls.RECHECK / 5)


@asynccontextmanager
async def parked(mq, queue: str, many: int = 1, **query):
    """So many long polls that have looked and wait."""
    before = long_polls.parked().count
    polls = [asyncio.create_task(mq.data(queue, wait=True, timeout=20_000, **query)) for _ in range(many)]
    await eventually(lambda: long_polls.parked().count == before + many)
    await eventually(all_asleep)
    try:
        yield polls
    finally:
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


def all_asleep() -> bool:
    now = database.statistics()
    return now["pool_available"] == now["pool_size"] and not now.get("requests_waiting")


async def made(mq, queue: str) -> None:
    """The queue, its partition Default, the group and its place."""
    await mq.push(queue, "made")
    await mq.data(queue, autoAck=True)


# -- Hints -------------------------------------------------------------------------------------------------------


async def test_a_push_wakes_a_parked_pop(mq, queue, only_hints):
    await made(mq, queue)
    async with parked(mq, queue) as [poll]:
        started = time.monotonic()
        await mq.push(queue, 1)

        assert await poll == [1]
        assert time.monotonic() - started < SOON


async def test_a_push_that_creates_its_queue_wakes_a_parked_pop(mq, queue, only_hints):
    async with parked(mq, queue) as [poll]:
        await mq.push(queue, 1, partition="new")

        async with asyncio.timeout(SOON):
            assert await poll == [1]


async def test_a_pop_parked_for_one_partition_is_woken_beside_other_parked_pops(mq, queue, only_hints):
    for partition in "ab":
        await mq.push(queue, 0, partition=partition)
        await mq.data(queue, partition, autoAck=True)
    async with parked(mq, queue, partition="a"), parked(mq, queue, partition="b") as [b]:
        await mq.push(queue, 1, partition="b")

        async with asyncio.timeout(SOON):
            assert await b == [1]


async def test_each_group_is_woken_and_of_each_as_many_as_there_are_messages(mq, queue, only_hints):
    await mq.push(queue, "made")
    for group in "gh":
        await mq.data(queue, consumerGroup=group, autoAck=True)
    async with (
        parked(mq, queue, 3, consumerGroup="g", autoAck=True) as g,
        parked(mq, queue, 3, consumerGroup="h", autoAck=True) as h,
    ):
        await mq.push_items([{"queue": queue, "payload": p, "partition": p} for p in ("a", "b")])

        async with asyncio.timeout(SOON):
            while sum(poll.done() for poll in (*g, *h)) < 4:
                await asyncio.sleep(0.005)
        found = [sorted(poll.result()[0] for poll in polls if poll.done()) for polls in (g, h)]

    assert found == [["a", "b"], ["a", "b"]]


async def test_a_released_lease_wakes_the_next_parked_pop(mq, queue, only_hints):
    """Its reader asks for a retry: the partition is free again, and its messages are to be had."""
    await mq.configure(queue, retry_delay_ms=0)
    await mq.push(queue, 1)
    for status in ("retry", "failed"):
        [message] = (await mq.pop(queue))["messages"]
        async with parked(mq, queue, autoAck=status == "failed") as [poll]:
            await mq.ack(message, status)

            async with asyncio.timeout(SOON):
                assert await poll == [1]
        if status == "retry":
            await mq.sql(
                "UPDATE queueing_consumer SET due_at = now(), lease_id = NULL WHERE tenant_id = %s", mq.tenant_id
            )


async def test_an_ack_in_a_partition_with_more_messages_wakes_the_next_parked_pop(mq, queue, only_hints):
    await mq.push(queue, 1, 2)
    [one] = (await mq.pop(queue))["messages"]
    async with parked(mq, queue) as [poll]:
        await mq.ack(one)

        async with asyncio.timeout(SOON):
            assert await poll == [2]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("way", ["ack", "transaction"])
async def test_releasing_a_partition_with_more_messages_wakes_parked_pops_also_where_the_name_of_its_queue_is_not_cached(
    mq, queue, only_hints, way, known
):
    await mq.push(queue, 1, 2)
    [one] = (await mq.pop(queue))["messages"]
    async with parked(mq, queue) as [poll]:
        if not known:
            catalog._names._items.clear()
        if way == "ack":
            await mq.ack(one)
        else:
            await mq.transact({"type": "ack", **ack_of(one)})

        async with asyncio.timeout(SOON):
            assert await poll == [2]


# -- What becomes due by itself -----------------------------------------------------------------------------------


async def test_a_parked_pop_gets_a_delayed_message_once_its_delay_is_over(mq, queue, only_hints):
    await mq.configure(queue, delay_seconds=1)
    async with parked(mq, queue) as [poll]:
        pushed_at = time.monotonic()
        await mq.push(queue, 1)

        assert await poll == [1]
        assert 0.9 < time.monotonic() - pushed_at < 1 + SOON


async def test_a_parked_pop_gets_a_failed_message_once_its_retry_delay_is_over(mq, queue, only_hints):
    await mq.configure(queue, retry_delay_ms=300)
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]
    async with parked(mq, queue) as [poll]:
        failed_at = time.monotonic()
        await mq.ack(one, "failed")

        assert await poll == [1]
        assert 0.25 < time.monotonic() - failed_at < 0.3 + SOON


async def test_a_message_that_becomes_due_while_the_next_due_time_is_read_is_not_missed(
    mq, queue, only_hints, monkeypatch
):
    await mq.configure(queue, retry_delay_ms=150)
    await mq.push(queue, 1)
    [one] = (await mq.pop(queue))["messages"]
    asks = next_due._ask

    async def slowly(*about):
        await asyncio.sleep(0.3)
        return await asks(*about)

    monkeypatch.setattr(next_due, "_ask", slowly)
    await mq.ack(one, "failed")
    started = time.monotonic()

    assert await mq.data(queue, wait=True, timeout=20_000) == [1]
    assert time.monotonic() - started < SOON


async def test_a_pop_parked_for_one_partition_does_not_spin_while_another_is_due(mq, queue, only_hints, monkeypatch):
    await made(mq, queue)
    await mq.push(queue, 1, partition="other")
    looks, look = 0, pop._claim_messages

    async def counted(*about):
        nonlocal looks
        looks += 1
        return await look(*about)

    monkeypatch.setattr(pop, "_claim_messages", counted)
    started = time.monotonic()
    async with asyncio.timeout(10), parked(mq, f"{queue}/partition/Default"):
        for _ in range(4):  # as if somebody pushed there all the time, without a word
            await mq.sql("UPDATE queueing_consumer SET due_at = now() WHERE due_at < now()")
            await asyncio.sleep(0.1)

    assert looks < 30 * (time.monotonic() - started)


async def test_a_parked_pop_takes_over_an_expired_lease(mq, queue, only_hints):
    await mq.push(queue, 1)
    popped = await mq.pop(queue)
    await mq.sql(
        "UPDATE queueing_consumer SET due_at = now() + interval '0.4 seconds' WHERE lease_id = %s", popped["leaseId"]
    )
    started = time.monotonic()

    assert await mq.data(queue, wait=True, timeout=5000) == [1]
    assert time.monotonic() - started < 0.4 + SOON


# -- Without hints --------------------------------------------------------------------------------------------------


async def test_without_redis_a_message_of_another_process_is_found_by_the_next_recheck(mq, queue, quick_recheck):
    """No hint at all: the row is there, as another process's push leaves it when Redis is away."""
    await made(mq, queue)
    async with parked(mq, queue) as [poll]:
        started = time.monotonic()
        await push_without_a_word(mq, queue)

        assert await poll == [1]
        assert time.monotonic() - started < long_polls.RECHECK + SOON


async def push_without_a_word(mq, queue: str) -> None:
    rows, _ = await push_rows.build(mq.tenant_id, "", [NewMessage(queue, b"1")], [0])
    await push_write.write(rows)


async def test_without_redis_pushes_are_accepted_and_wake_parked_pops_of_their_own_process(
    mq, queue, only_hints, monkeypatch
):
    class Away:
        async def group_send(self, *_args):
            raise ConnectionError

    await made(mq, queue)
    async with parked(mq, queue) as [poll]:
        monkeypatch.setattr(channels, "get_channel_layer", Away)
        await mq.push(queue, 1)

        async with asyncio.timeout(SOON):
            assert await poll == [1]


async def test_a_push_in_another_process_wakes_parked_pops_of_this_one(mq, queue, only_hints):
    await made(mq, queue)
    async with other_process(mq.tenant_id, queue) as tell_to_push, parked(mq, queue) as [poll]:
        started = time.monotonic()
        await tell_to_push()

        assert await poll == [1]
        assert time.monotonic() - started < 2  # its own first connection included


OTHER = """
import asyncio, sys, os, django
from django.conf import settings
django.setup()
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from registry.data import database
from registry.data.loop import end_loop
from queueing.broker import push, push_rows

async def main():
    await database.fetch("SELECT 1")
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await push.push(int(sys.argv[2]), "", [push_rows.NewMessage(sys.argv[3], b"1")])
    await asyncio.sleep(0.2)
    await end_loop()

asyncio.run(main())
"""


@asynccontextmanager
async def other_process(tenant_id: int, queue: str):
    """A second process that pushes when it is told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OTHER,
        settings.DATABASES["default"]["NAME"],
        str(tenant_id),
        queue,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "REGISTRY_ID": identity.name()},
    )
    while (line := await process.stdout.readline()) and line != b"ready\n":
        pass
    assert line, "it did not start"

    async def tell() -> None:
        process.stdin.write(b"now\n")
        await process.stdin.drain()

    try:
        yield tell
    finally:
        if process.returncode is None:
            process.stdin.write_eof()
        await process.wait()


@pytest.mark.parametrize("what", ["group", "queue"])
async def test_a_pop_parked_for_what_another_process_dropped_gets_messages_of_its_replacement(
    mq, queue, what, quick_recheck
):
    async with parked(mq, queue, consumerGroup="g") as [poll]:
        with unheard():
            if what == "group":
                await groups.delete(mq.tenant_id, "g")
            else:
                await manage.drop(mq.tenant_id, queue)
        await mq.push(queue, 1)

        async with asyncio.timeout(long_polls.RECHECK + SOON):
            assert await poll == [1]


@contextmanager
def unheard():
    """What is done here is done by another process, and Redis is away: ours is told nothing and remembers what it knew."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((catalog, "forget_queue"), (catalog, "forget_group"), (long_polls, "wake")):
            patch.setattr(module, name, lambda *_: None)
        yield


# -- Many, and none ---------------------------------------------------------------------------------------------------


async def test_a_long_poll_returns_204_after_its_timeout(mq, queue):
    started = time.monotonic()

    assert await mq.pop(queue, wait=True, timeout=200) is None
    assert 0.19 < time.monotonic() - started < 2


WAITING = deep(300, 1000)  # far more than there are connections


async def test_many_parked_pops_use_no_connection_and_each_gets_its_message(mq, queue, only_hints):
    await made(mq, queue)
    polls_parked = long_polls.parked()
    target = Target(queue=queue)
    polls = [asyncio.create_task(pop.pop(mq.tenant_id, target, auto_ack=True, wait=60)) for _ in range(WAITING)]
    await eventually(lambda: polls_parked.count == WAITING)
    await eventually(all_asleep)
    connections = database.statistics()

    await mq.push_items([{"queue": queue, "payload": n, "partition": f"p{n}"} for n in range(WAITING)])
    async with asyncio.timeout(20):
        found = await asyncio.gather(*polls)

    assert connections["pool_available"] == connections["pool_size"]
    assert sorted(int(bytes(m.data)) for one in found for m in one.messages) == list(range(WAITING))
    assert polls_parked.count == 0


# -- Who hangs up -------------------------------------------------------------------------------------------------------


async def test_a_client_that_disconnects_leaves_no_parked_long_poll(mq, queue):
    async with parked(mq, queue, 5):
        pass

    await eventually(lambda: long_polls.parked().count == 0)


async def test_messages_leased_for_a_client_that_hung_up_go_to_the_next_pop_at_once(mq, queue):
    """The claim is held up in the database while its client goes away."""
    await made(mq, queue)
    lock = "LOCK TABLE queueing_consumer IN ACCESS EXCLUSIVE MODE"
    await mq.push(queue, 1)
    async with database.transaction() as conn:
        await database.rows(conn, lock)
        gone = asyncio.create_task(mq.data(queue, wait=True, timeout=20_000))
        await eventually(waiting_for_the_table)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await eventually(lambda: long_polls.parked().count == 0)

    assert await mq.data(queue, wait=True, timeout=5000) == [1]
    [row] = await mq.consumers(queue)
    assert row["attempt"] == 0


async def waiting_for_the_table() -> bool:
    rows = await database.fetch(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'queueing_consumer'::regclass"
    )
    return rows[0][0] > 0


async def test_five_hundred_clients_that_hang_up_at_any_moment_leave_no_lease_and_no_parked_pop(mq, queue, monkeypatch):
    """A lease stays only where its answer was complete before the client hung up: the client may have received it."""
    await mq.push_items([{"queue": queue, "payload": n, "partition": f"p{n % 20}"} for n in range(200)])
    await mq.data(queue, "nowhere")
    files = len(os.listdir("/proc/self/fd"))
    answered, deliver = set(), pop._deliver

    async def delivering(claim, *about):
        if result := await deliver(claim, *about):
            answered.add(claim.lease)
        return result

    monkeypatch.setattr(pop, "_deliver", delivering)

    async def hang_up(n: int) -> None:
        work = asyncio.create_task(
            mq.pop(queue, wait=True, timeout=20_000, batch=3) if n % 2 else mq.push(queue, n, partition=f"p{n % 20}")
        )
        await asyncio.sleep(n % 29 / 1000)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    for start in range(0, 500, 50):
        await all_of(*(hang_up(n) for n in range(start, start + 50)))
    await eventually(lambda: long_polls.parked().count == 0)
    await eventually(all_asleep)

    assert len(os.listdir("/proc/self/fd")) < files + 60
    held = await database.fetch("SELECT lease_id FROM queueing_consumer WHERE lease_id IS NOT NULL")
    assert {lease for (lease,) in held} <= answered
    await mq.push(queue, "more", partition="new")
    assert "more" in payloads(await mq.pop(queue, wait=True, timeout=2000, partitions=100, batch=500))
