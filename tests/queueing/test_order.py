"""Each group receives every message of a partition in order and loses none, with any concurrency."""

import asyncio
import json
import random
from collections import defaultdict
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from queueing.broker import ack as acks
from queueing.broker import ack_apply, ack_request, groups, leases, pop, push, push_rows, push_write
from queueing.broker.ack_request import Ack
from queueing.broker.errors import UnknownGroup, UnknownQueue
from queueing.broker.push_rows import NewMessage
from queueing.broker.sources import Target
from registry.data import database
from tests.conftest import eventually
from tests.queueing.mq import all_of, blocked, holding, payloads

PARTITIONS = 6


# -- Idle and due: who rests while somebody pushes ----------------------------------------------------------------


async def test_a_message_pushed_while_the_last_ack_is_under_way_is_not_stuck(mq, queue):
    """The ack's transaction has put the consumer to rest and is not committed yet when the push comes."""
    await mq.push(queue, 1)
    popped = await mq.pop(queue)
    [message] = popped["messages"]
    async with database.transaction() as conn:
        _, checked = ack_request.check(mq.tenant_id, [ack_for(message)])
        await ack_apply.apply(conn, mq.tenant_id, checked)
        pushing = asyncio.create_task(mq.push(queue, 2))
        await eventually(blocked)
    await pushing

    assert await mq.data(queue) == [2]


async def test_a_message_whose_push_is_not_committed_when_the_ack_comes_is_not_stuck(mq, queue):
    """The other way round: the ack cannot see the message, and cannot have the partition to rest upon."""
    await mq.push(queue, 1)
    [message] = (await mq.pop(queue))["messages"]
    rows, _ = await push_rows.build(mq.tenant_id, "", [NewMessage(queue, b"2")], [0])
    async with database.transaction() as conn:
        await push_write.write(rows, conn)
        verdict = await mq.ack(message)
        meanwhile = await mq.data(queue)

    assert (verdict["leaseReleased"], meanwhile) == (True, [])
    assert await mq.data(queue) == [2]


async def test_a_message_pushed_while_a_group_joins_is_not_stuck(mq, queue):
    await mq.push(queue, 1)
    rows, _ = await push_rows.build(mq.tenant_id, "", [NewMessage(queue, b"2")], [0])
    async with database.transaction() as conn:
        await push_write.write(rows, conn)
        joining = asyncio.create_task(mq.data(queue, batch=10, consumerGroup="g", subscriptionMode="new"))
        await eventually(blocked)
    seen = await joining
    await mq.push(queue, 3)

    assert seen + await mq.data(queue, batch=10, consumerGroup="g") == [3]


async def test_two_groups_of_one_partition_become_due_independently(mq, queue):
    await mq.push(queue, 1)
    for group in "gh":
        await mq.data(queue, consumerGroup=group)
    await mq.push(queue, 2)
    rows = {row["group"]: row for row in await mq.consumers(queue)}
    for row in rows.values():
        await mq.lapse(str(row["lease"]))

    for group in "gh":
        popped = await mq.pop(queue, batch=10, consumerGroup=group)
        assert payloads(popped) == [1, 2]
        await mq.ack_all(popped["messages"])

    assert await mq.at_rest(queue)
    await mq.push(queue, 3)
    assert [await mq.data(queue, consumerGroup=group) for group in "gh"] == [[3], [3]]


def ack_for(message: dict, status: str = "completed") -> Ack:
    return Ack(message["transactionId"], message["partitionId"], status, message["leaseId"], message["consumerGroup"])


# -- Stress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_ack", [False, True])
async def test_with_many_pushers_and_readers_everything_arrives_once_in_order_and_all_comes_to_rest(
    mq, queue, auto_ack
):
    each, pushers = 60, 6
    seen: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    done = asyncio.Event()

    async def produce(who: int) -> None:
        dice = random.Random(who)
        for n in range(each):
            items = [NewMessage(queue, b"[%d,%d]" % (who, n), partition=str(dice.randrange(PARTITIONS)))]
            [verdict] = await push.push(mq.tenant_id, "", items)
            assert verdict.status == "queued"

    async def consume(reader: int) -> None:
        while not done.is_set() or await push_left(mq, queue):
            found = await pop.pop(mq.tenant_id, Target(queue=queue), size=7, partitions=2, auto_ack=auto_ack, wait=0.2)
            for message in found.messages:
                # Without a lease nothing keeps two readers of a partition apart: each for himself sees it in order.
                seen[message.partition, reader if auto_ack else 0].append(tuple(json.loads(bytes(message.data))))
            if found.messages and not auto_ack:
                wanted = [Ack(m.transaction_id, m.partition_id, lease_id=m.lease_id) for m in found.messages]
                verdicts = await acks.ack(mq.tenant_id, wanted)
                assert all(v.success for v in verdicts)

    async def produce_all() -> None:
        await all_of(*(produce(who) for who in range(pushers)))
        done.set()

    async with asyncio.timeout(60):
        await all_of(produce_all(), *(consume(reader) for reader in range(8)))

    total = [message for messages in seen.values() for message in messages]
    assert len(total) == len(set(total)) == each * pushers
    for messages in seen.values():
        for who in range(pushers):
            mine = [n for w, n in messages if w == who]
            assert mine == sorted(mine)
    assert await mq.pop(queue) is None
    assert await mq.at_rest(queue)


async def push_left(mq, queue: str) -> bool:
    return any(row["cursor"] < row["last"] for row in await mq.consumers(queue))


# -- Any schedule ---------------------------------------------------------------------------------------------------


class Model:
    """What a queue has to do, one group and all its partitions in memory, beside the real one."""

    def __init__(self, mq, queue: str, dice: random.Random) -> None:
        self.mq, self.queue, self.dice = mq, queue, dice
        self.pushed: dict[str, list[int]] = defaultdict(list)
        self.number = 0
        self.statuses = ["completed"] * 4 + ["failed", "retry", "dlq"]
        self.done: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.dead: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.hands: list[tuple[str, str, list]] = []  # group, partition, messages of leases that may be alive
        self.stale: list[tuple[str, str, list]] = []

    async def push(self) -> None:
        items = []
        for _ in range(self.dice.randint(1, 4)):
            partition = str(self.dice.randrange(3))
            self.number += 1
            self.pushed[partition].append(self.number)
            items.append(NewMessage(self.queue, b"%d" % self.number, partition=partition))
        await push.push(self.mq.tenant_id, "", items)

    async def pop(self) -> None:
        group = self.dice.choice("gh")
        found = await pop.pop(
            self.mq.tenant_id,
            Target(queue=self.queue, group=group),
            size=self.dice.randint(1, 6),
            partitions=self.dice.randint(1, 3),
        )
        by_partition = defaultdict(list)
        for message in found.messages:
            by_partition[message.partition].append(message)
        for partition, messages in by_partition.items():
            held = [p for g, p, _ in self.hands if g == group]
            assert partition not in held, "handed out while somebody has it"
            numbers = [int(bytes(m.data)) for m in messages]
            assert numbers == self.waiting(group, partition)[: len(numbers)]
            self.hands.append((group, partition, messages))

    def waiting(self, group: str, partition: str) -> list[int]:
        gone = self.done[group, partition] | self.dead[group, partition]
        return [n for n in self.pushed[partition] if n not in gone]

    async def ack(self) -> None:
        if not self.hands:
            return
        group, partition, messages = self.hands.pop(self.dice.randrange(len(self.hands)))
        many = self.dice.randint(1, len(messages))
        said = [self.dice.choice(self.statuses) for _ in range(many)]
        wanted = [
            Ack(m.transaction_id, m.partition_id, status, m.lease_id, group)
            for m, status in zip(messages, said, strict=False)
        ]
        verdicts = await acks.ack(self.mq.tenant_id, wanted)
        tried_again = False
        for message, status, verdict in zip(messages, said, verdicts, strict=False):
            number = int(bytes(message.data))
            assert verdict.success != (tried_again and status == "completed")
            if verdict.dlq:
                self.dead[group, partition].add(number)
            elif status == "completed" and verdict.success:
                self.done[group, partition] |= {n for n in self.pushed[partition] if n <= number}
                self.done[group, partition] -= self.dead[group, partition]
            else:
                tried_again = True
        released = verdicts[-1].lease_released
        if released:
            self.stale.append((group, partition, messages))
        else:
            self.hands.append((group, partition, messages[many:] or messages))

    async def lapse(self) -> None:
        if self.hands:
            hand = self.hands.pop(self.dice.randrange(len(self.hands)))
            await self.mq.lapse(hand[2][0].lease_id)
            gone = [h for h in self.hands if h[2][0].lease_id == hand[2][0].lease_id]
            self.hands = [h for h in self.hands if h not in gone]
            self.stale += [hand, *gone]

    async def ack_late(self) -> None:
        if self.stale:
            group, _, messages = self.dice.choice(self.stale)
            status = self.dice.choice(["completed", "failed", "dlq"])
            message = self.dice.choice(messages)
            [verdict] = await acks.ack(
                self.mq.tenant_id, [Ack(message.transaction_id, message.partition_id, status, message.lease_id, group)]
            )
            assert not verdict.success, "a lease that was lost counts for nothing"

    async def give_back(self) -> None:
        if self.hands:
            hand = self.hands.pop(self.dice.randrange(len(self.hands)))
            await leases.release(self.mq.tenant_id, hand[2][0].lease_id)
            gone = [h for h in self.hands if h[2][0].lease_id == hand[2][0].lease_id]
            self.hands = [h for h in self.hands if h not in gone]
            self.stale += [hand, *gone]

    async def seek(self) -> None:
        """The group goes back to the beginning or ahead to the end, and nobody holds anything any more."""
        group, back = self.dice.choice("gh"), self.dice.random() < 0.7
        since = datetime(2020, 1, 1, tzinfo=UTC) if back else None
        try:
            await groups.seek(self.mq.tenant_id, group, self.queue, since=since)
        except (UnknownGroup, UnknownQueue):
            return
        for partition, numbers in self.pushed.items():
            self.done[group, partition] = set() if back else set(numbers)
        self.stale += [hand for hand in self.hands if hand[0] == group]
        self.hands = [hand for hand in self.hands if hand[0] != group]

    async def finish(self) -> None:
        """All leases end; read and done in order, until nothing is left."""
        while self.hands:
            await self.lapse()
        for group in "gh":
            while True:
                found = await pop.pop(self.mq.tenant_id, Target(queue=self.queue, group=group), size=100)
                if not found.messages:
                    break
                partition = found.messages[0].partition
                numbers = [int(bytes(m.data)) for m in found.messages]
                assert numbers == self.waiting(group, partition)[: len(numbers)]
                wanted = [
                    Ack(m.transaction_id, m.partition_id, lease_id=m.lease_id, group=group) for m in found.messages
                ]
                assert all(v.success for v in await acks.ack(self.mq.tenant_id, wanted))
                self.done[group, partition] |= set(numbers)


@pytest.mark.parametrize("seed", range(6))
async def test_any_schedule_of_pushes_pops_acks_failures_silences_and_seeks_keeps_order_and_loses_nothing(
    mq, queue, seed
):
    await mq.configure(queue, retry_delay_ms=0, retry_limit=1000)
    model = Model(mq, queue, random.Random(seed))
    if seed % 2:  # a seek brings dead letters back: with them the model would have to know more than the queue does
        model.statuses = ["completed"] * 4 + ["failed", "retry"]
    steps = (
        [model.seek] * (seed % 2)
        + [model.push] * 4
        + [model.pop] * 6
        + [model.ack] * 6
        + [model.lapse, model.ack_late, model.give_back]
    )

    for _ in range(150):
        await model.dice.choice(steps)()
    await model.finish()

    for group in "gh":
        for partition in model.pushed:
            assert model.waiting(group, partition) == [], (group, partition)
    dead = await mq.sql("SELECT count(*) FROM queueing_deadmessage WHERE tenant_id = %s", mq.tenant_id)
    assert dead[0][0] == sum(len(numbers) for numbers in model.dead.values())
    assert await mq.at_rest(queue)


async def test_an_ack_that_waits_for_a_seek_is_refused_afterwards(mq, queue):
    """A seek takes the leases away; whoever had one is too late, however close."""
    await mq.push(queue, 1, 2)
    [one] = (await mq.pop(queue))["messages"]
    seek = "UPDATE queueing_consumer SET lease_id = NULL, cursor = 0, due_at = now() WHERE tenant_id = %s AND lease_id <> %s"
    async with holding(seek, mq.tenant_id, uuid4()):
        late = asyncio.create_task(mq.ack(one))
        await eventually(blocked)

    assert (await late)["error"] == "Invalid or expired lease"
    assert await mq.data(queue, batch=10) == [1, 2]
