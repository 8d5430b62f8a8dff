"""The message queue while the database fails or restarts: correct errors, no loss, order, nothing half done."""

import asyncio
import os
import random
from collections import defaultdict
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest

from queueing.broker import ack as acks
from queueing.broker import catalog, claim, consumers, long_polls, pop, push, traffic
from queueing.broker.ack_request import Ack
from queueing.broker.push_rows import NewMessage
from queueing.broker.sources import Target
from registry.data import database
from registry.errors import Unavailable
from tests.conftest import all_connections_are_back, eventually
from tests.depth import deep
from tests.factories import in_thread
from tests.queueing.mq import ack_of, all_of, blocked, holding, payloads
from tests.servers import cut_all, own_server

# -- Away ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database_away(monkeypatch):
    """Once called, every statement fails as it does without a server."""

    async def refused(*_args, **_options):
        raise psycopg.OperationalError("connection refused")

    def leave() -> None:
        monkeypatch.setattr(database, "rows", refused)

    return leave


async def test_without_the_database_pop_ack_extend_and_transaction_return_503_with_retry_after(
    mq, queue, database_away
):
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]
    database_away()

    calls = [
        ("GET", f"/api/v1/pop/queue/{queue}", None),
        ("GET", f"/api/v1/pop/queue/{queue}?wait=true&timeout=5000", None),
        ("POST", "/api/v1/ack", ack_of(message)),
        ("POST", "/api/v1/ack", ack_of(message, "failed")),
        ("POST", "/api/v1/ack/batch", {"acknowledgments": [ack_of(message)]}),
        ("POST", "/api/v1/transaction", {"operations": [{"type": "ack", **ack_of(message)}]}),
        ("POST", f"/api/v1/lease/{message['leaseId']}/extend", {}),
    ]
    for method, path, body in calls:
        async with mq.api.session.request(method, path, json=body) as response:
            answer = await response.json()
            assert response.status == 503, (path, answer)
            assert int(response.headers["Retry-After"]) > 0
            assert response.content_type == "application/problem+json"
            assert answer["error"] == answer["detail"]


@pytest.mark.parametrize("status", ["completed", "dlq"])
async def test_a_committed_ack_is_confirmed_even_if_the_name_of_its_queue_cannot_be_read(
    mq, queue, monkeypatch, status
):
    await mq.push(queue, 1, partition="a")
    await mq.push(queue, 2, partition="b")
    [alone, among] = (await mq.pop(queue, batch=2, partitions=2))["messages"]
    real = database.rows

    async def nameless(conn, sql, params=(), **options):
        if sql == catalog.SQL["name_partitions"]:
            raise psycopg.OperationalError("connection refused")
        return await real(conn, sql, params, **options)

    monkeypatch.setattr(database, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(database, "rows", nameless)
    catalog._names._items.clear()
    verdict = await mq.ack(alone, status)
    answer = await mq.transact({"type": "ack", **ack_of(among, status)})

    assert (verdict["success"], verdict["queueName"], verdict["partitionName"]) == (True, None, None)
    assert answer["success"]
    assert await mq.at_rest(queue)


# -- Another tenant's trouble --------------------------------------------------------------------------------------


async def test_locked_rows_of_one_tenant_delay_no_other(mq, foreign, queue):
    for one in (mq, foreign):
        await one.push(queue, 1)
    [held] = (await mq.pop(queue))["messages"]

    async with holding("SELECT FROM queueing_partition WHERE tenant_id = %s FOR UPDATE", mq.tenant_id) as conn:
        await database.rows(conn, "SELECT FROM queueing_consumer WHERE tenant_id = %s FOR UPDATE", (mq.tenant_id,))
        stuck = [asyncio.create_task(mq.push(queue, 2)), asyncio.create_task(mq.ack(held))]
        await eventually(lambda: blocked(2))
        async with asyncio.timeout(5):
            [pushed] = await foreign.push(queue, 2)
            [message] = (await foreign.pop(queue))["messages"]
            verdict = await foreign.ack(message)
        waited = not any(task.done() for task in stuck)
    await asyncio.gather(*stuck)

    assert (pushed["status"], message["data"], verdict["success"]) == ("queued", 1, True)
    assert waited


async def test_a_slow_pop_of_one_tenant_delays_no_other(mq, foreign, queue, monkeypatch):
    """A claim waits for no row: this one is held up on its way to the database."""
    for one in (mq, foreign):
        await one.push(queue, 1)
    real, there, go_on = claim.write_batch, asyncio.Event(), asyncio.Event()

    async def held_up(requests):
        if requests[0].sources[0].tenant_id == mq.tenant_id:
            there.set()
            await go_on.wait()
        return await real(requests)

    monkeypatch.setattr(claim, "write_batch", held_up)
    stuck = asyncio.create_task(mq.data(queue))
    await eventually(there.is_set)
    async with asyncio.timeout(5):
        found = await foreign.data(queue)
    go_on.set()

    assert (found, await stuck) == ([1], [1])


# -- Cut off -------------------------------------------------------------------------------------------------------


class Traffic:
    """Pushers and readers that go on through any trouble, and what they know for certain."""

    def __init__(self, tenant_id: int, queue: str) -> None:
        self.tenant_id, self.queue = tenant_id, queue
        self.accepted: set[int] = set()
        self.seen: dict[str, list[int]] = defaultdict(list)  # first sight of each message, by partition
        self.troubles = 0
        self.stop = asyncio.Event()

    async def produce(self, base: int) -> None:
        """One pusher, one partition: its numbers are in order there. What was refused is said again, as clients do."""
        number = base
        while not self.stop.is_set():
            number += 1
            item = NewMessage(self.queue, b"%d" % number, partition=str(base), transaction_id=f"t{number}")
            while True:
                try:
                    [verdict] = await push.push(self.tenant_id, "", [item])
                    assert verdict.status in ("queued", "duplicate")
                    self.accepted.add(number)
                    break
                except Unavailable:
                    self.troubles += 1
                    await asyncio.sleep(0.02)

    async def consume(self) -> None:
        while not self.stop.is_set():
            await self.read_once(wait=0.5)

    async def read_once(self, wait: float = 0) -> int:
        try:
            found = await pop.pop(self.tenant_id, Target(queue=self.queue), size=20, partitions=2, wait=wait)
            for message in found.messages:
                number = int(bytes(message.data))
                if number not in self.seen[message.partition]:
                    self.seen[message.partition].append(number)
            wanted = [Ack(m.transaction_id, m.partition_id, lease_id=m.lease_id) for m in found.messages]
            await acks.ack(self.tenant_id, wanted)
            return len(found.messages)
        except Unavailable:
            self.troubles += 1
            await asyncio.sleep(0.02)
            return 1

    @asynccontextmanager
    async def under_way(self):
        async with asyncio.TaskGroup() as group:
            for base in range(0, 4 * 10**6, 10**6):
                group.create_task(self.produce(base))
            for _ in range(4):
                group.create_task(self.consume())
            try:
                yield
            finally:
                self.stop.set()

    async def read_all(self) -> None:
        """Leases of readers whose answers were lost end; what is left is read."""
        await database.fetch(
            "UPDATE queueing_consumer SET due_at = now() WHERE tenant_id = %s AND lease_id IS NOT NULL",
            [self.tenant_id],
        )
        async with asyncio.timeout(20):
            while await self.read_once():
                pass

    def check(self) -> None:
        everything = {number for numbers in self.seen.values() for number in numbers}
        assert self.accepted <= everything
        for numbers in self.seen.values():
            assert numbers == sorted(numbers)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


async def test_sessions_cut_under_load_lose_nothing_and_keep_the_order(mq, queue):
    load = Traffic(mq.tenant_id, queue)

    async with load.under_way():
        for _ in range(deep(2, 4)):
            before = len(load.accepted)
            await eventually(lambda before=before: len(load.accepted) > before + 40)
            await in_thread(cut_all)
        before = len(load.accepted)
        await eventually(lambda: len(load.accepted) > before + 40)
    await load.read_all()

    load.check()
    assert await mq.at_rest(queue)
    await eventually(all_connections_are_back)


async def test_a_server_restarted_at_once_under_load_loses_nothing_and_keeps_the_order(settings, monkeypatch):
    """`immediate`, as a power cut: PostgreSQL recovers from its log what it has promised."""
    settings.DB_POOL_TIMEOUT = 3
    async with own_server() as server:
        [(tenant_id,)] = await database.fetch(
            "INSERT INTO registry_tenant (slug, name, currency, status, mode, open, settings)"
            " VALUES ('elsewhere', '', 'BRL', 'active', 'sandbox', false, '{}') RETURNING id"
        )
        load = Traffic(tenant_id, "q")
        async with load.under_way():
            await eventually(lambda: len(load.accepted) > 100)
            with monkeypatch.context() as patch:
                patch.delenv("DATABASE_URL")
                os.kill(server.pid(), 3)  # SIGQUIT: PostgreSQL's immediate shutdown
                await asyncio.to_thread(server.see_gone)
                await eventually(lambda: load.troubles)
                before = len(load.accepted)
                await asyncio.to_thread(server.start)
            await eventually(lambda: len(load.accepted) > before + 100, within=20)
        await load.read_all()
        load.check()
        await traffic.counts.close()
        await eventually(all_connections_are_back)


# -- Clients that hang up ------------------------------------------------------------------------------------------


async def test_clients_that_hang_up_at_any_moment_leave_nothing_half_done(mq, queue):
    """Pushes, pops, acks and long polls, each cancelled somewhere on its way."""
    dice = random.Random(5)
    await push.push(mq.tenant_id, "", [NewMessage(queue, b"0", partition=str(n)) for n in range(20)])
    target = Target(queue=queue)
    files = len(os.listdir("/proc/self/fd"))
    hands: list = []

    async def pushing() -> None:
        await push.push(
            mq.tenant_id, "", [NewMessage(queue, b"1", partition=str(dice.randrange(20))) for _ in range(3)]
        )

    async def popping() -> None:
        hands.extend((await pop.pop(mq.tenant_id, target, size=3)).messages)

    async def acking() -> None:
        if hands:
            m = hands.pop()
            status = dice.choice(["completed", "failed", "dlq"])
            await acks.ack(mq.tenant_id, [Ack(m.transaction_id, m.partition_id, status, m.lease_id)])

    async def waiting() -> None:
        await pop.pop(mq.tenant_id, Target(queue=queue, partition="nowhere"), wait=20)

    async def hang_up() -> None:
        task = asyncio.ensure_future(dice.choice([pushing, popping, acking, waiting])())
        for _ in range(dice.randrange(30)):
            await asyncio.sleep(0)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() / 50)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    for _ in range(deep(15, 50)):
        await all_of(*(hang_up() for _ in range(100)))
    await eventually(lambda: long_polls.parked().count == 0 and not claim.releasing.get().running)
    await eventually(all_connections_are_back)
    numbers = await mq.sql(
        "SELECT p.last_seq, count(m.seq), max(m.seq) FROM queueing_partition p LEFT JOIN queueing_message m"
        " ON m.partition_id = p.id WHERE p.tenant_id = %s GROUP BY p.id, p.last_seq",
        mq.tenant_id,
    )
    known = {m.lease_id for m in hands}
    leased = await mq.sql("SELECT lease_id::text FROM queueing_consumer WHERE lease_id IS NOT NULL")

    assert all(last == many == highest for last, many, highest in numbers)
    # What a reader holds whose ack was hung up on is in neither: it may be done or not. Beyond that no lease is left.
    assert len({lease for (lease,) in leased} - known) <= 20
    assert len(os.listdir("/proc/self/fd")) < files + 40


async def test_a_pop_that_is_cancelled_at_any_step_keeps_no_lease(mq, queue):
    """A little later each time: before, in and after the statement."""
    await mq.push(queue, 1)
    await mq.data(queue, autoAck=True)
    await mq.push(queue, 2)

    async def free() -> bool:
        [row] = await mq.consumers(queue)
        return row["lease"] is None

    for step in range(0, 120, deep(3, 1)):
        task = asyncio.ensure_future(pop.pop(mq.tenant_id, Target(queue=queue)))
        await asyncio.sleep(step / 10_000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            found = await task
            wanted = [Ack(m.transaction_id, m.partition_id, "retry", m.lease_id) for m in found.messages]
            await acks.ack(mq.tenant_id, wanted)
        await claim._batchers.get().of(mq.tenant_id).finish()
        await eventually(lambda: not claim.releasing.get().running)
        await eventually(free)  # it may be given back only after the loop's next round

    assert payloads(await mq.pop(queue)) == [2]
    [row] = await mq.consumers(queue)
    assert row["attempt"] == 0


async def test_a_pop_that_is_cancelled_while_it_reschedules_another_partition_keeps_no_lease(mq, queue, monkeypatch):
    """It has a message in hand, and found a partition where all had expired."""
    await mq.configure(queue, ttl_seconds=60)
    await mq.push(queue, "expired", partition="a")
    await mq.pop(queue, "b")
    await mq.age(queue, 61)
    await mq.push(queue, "fresh", partition="b")
    there = asyncio.Event()

    async def never_done(_consumers) -> None:
        there.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(consumers, "reschedule", never_done)
        task = asyncio.ensure_future(pop.pop(mq.tenant_id, Target(queue=queue), size=5, partitions=2))
        await there.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: not claim.releasing.get().running)

    assert {row["lease"] for row in await mq.consumers(queue)} == {None}
    assert await mq.data(queue) == ["fresh"]
