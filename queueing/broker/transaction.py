"""Acks and pushes that happen together or not at all."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import ack as acks
from queueing.broker import catalog, long_polls, push, traffic
from queueing.broker.ack import Ack
from queueing.broker.catalog import SQL, Queue
from queueing.broker.names import partition_name, partition_number
from queueing.broker.push import Item
from registry.data import database

ANY_LEASE = str(UUID(int=0))


class Refused(Exception):
    """One operation cannot be done, so none is. The text goes to the caller."""


class Operation(msgspec.Struct, frozen=True):
    """Either messages to push or an ack."""

    items: tuple[Item, ...] = ()
    ack: Ack | None = None


async def commit(
    tenant_id: int, producer: str, operations: Sequence[Operation], required: Sequence[str]
) -> list[dict[str, Any]]:
    """Do all of it in one transaction; one result per item and ack. Raises Refused, Unavailable (503).

    `required`: leases that have to be alive; acks that name none are fenced by the one of these that covers them.
    """
    items = [item for operation in operations for item in operation.items]
    rows, queues = await push.columns(tenant_id, producer, items, range(len(items)))
    leases = _leases(required)

    wanted = [operation.ack for operation in operations if operation.ack]

    async def once() -> list[acks.Acked]:
        async with database.transaction() as conn:
            if items:
                await _push(conn, tenant_id, rows, items, queues)
            await _require(conn, tenant_id, leases)
            return await _ack(conn, tenant_id, wanted, leases)

    # Not repeated: when the answer to a commit is lost, a second try would find its own messages and refuse them.
    acked = await database.guarded(once)
    for queue in queues.values():
        count = sum(item.queue == queue.name for item in items)
        traffic.count(tenant_id, queue.id, push_requests=1, pushed=count)
        long_polls.wake(queue.id, count)
    checked = acks.check(tenant_id, [msgspec.structs.replace(one, lease_id=ANY_LEASE) for one in wanted])[1]
    await acks.name_and_tell(
        tenant_id, checked, acked, {one.partition for one in checked if acked[one.n].lease_released}
    )
    return _results(operations, rows, acked)


def _leases(required: Sequence[str]) -> list[UUID]:
    leases = [acks.parse_lease(text) for text in required]
    if None in leases:
        raise Refused(acks.NO_LEASE)
    return sorted({lease for lease in leases if lease})


async def _require(conn: AsyncConnection, tenant_id: int, leases: list[UUID]) -> None:
    if not leases:
        return
    alive = {row[0] for row in await database.rows(conn, SQL["alive_leases"], {"tenant": tenant_id, "leases": leases})}
    if len(alive) < len(leases):
        raise Refused(acks.NO_LEASE)


async def _push(
    conn: AsyncConnection, tenant_id: int, rows: push.Columns, items: Sequence[Item], queues: dict[str, Queue]
) -> None:
    limited = any(queue.max_size for queue in queues.values())
    room = await _hold(conn, tenant_id, queues) if limited else {}
    # Written before it is counted: one that happened already is told so, however full the queue is by now.
    refused = await push.write(rows, conn, counted=limited)
    for place, (_, reason) in sorted(refused.items()):
        if reason == "duplicate":
            raise Refused(f"duplicate transactionId {rows.transactions[place]!r} in {items[place].queue}")
        catalog.forget_queue(tenant_id, items[place].queue)
        catalog.forget_partition(tenant_id, queues[items[place].queue], items[place].partition)
        raise Refused(f"the queue {items[place].queue} was changed meanwhile; try again")
    for name, (most, left) in room.items():
        many = sum(item.queue == name for item in items)
        if many > most:
            raise Refused(f"the queue {name} takes at most {most} messages: {many} at once can never fit")
        if many > left:
            raise Refused(f"the queue {name} is full: at most {most} messages")


async def _hold(conn: AsyncConnection, tenant_id: int, queues: dict[str, Queue]) -> dict[str, tuple[int, int]]:
    """The maximum of each queue that has one, and how many more it takes, under its lock."""
    room = {}
    for name in sorted(queues):
        held = await database.rows(conn, SQL["hold_queue"], {"tenant": tenant_id, "name": name})
        if held and (most := held[0][1]):
            size = (await database.rows(conn, SQL["size"], {"tenant": tenant_id, "queue": queues[name].id}))[0][0]
            room[name] = (most, most - size)
    return room


async def _ack(conn: AsyncConnection, tenant_id: int, wanted: Sequence[Ack], leases: list[UUID]) -> list[acks.Acked]:
    fenced = await _fenced(conn, tenant_id, wanted, leases)
    results, checked = acks.check(tenant_id, fenced)
    for result in results:
        if result.error:
            raise Refused(result.error)
    for n, error, released, dead in await acks.settle(conn, tenant_id, fenced, checked, at_once=True):
        if error:
            raise Refused(error)
        acks.judge(results[n], None, released=released, dlq=dead)
    return results


async def _fenced(conn: AsyncConnection, tenant_id: int, wanted: Sequence[Ack], leases: list[UUID]) -> list[Ack]:
    """Acks without a lease get the required one that covers their partition."""
    bare = [(n, number) for n, one in enumerate(wanted) if not one.lease_id and (number := _number(tenant_id, one))]
    if not bare or not leases:
        return list(wanted)
    params = {
        "tenant": tenant_id,
        "partitions": [number for _, number in bare],
        "names": [wanted[n].group for n, _ in bare],
        "leases": leases,
    }
    found = {bare[n - 1][0]: lease for n, lease in await database.rows(conn, SQL["leases_of"], params)}
    return [msgspec.structs.replace(one, lease_id=str(found[n])) if n in found else one for n, one in enumerate(wanted)]


def _number(tenant_id: int, one: Ack) -> int | None:
    return partition_number(tenant_id, one.partition_id)


def _results(operations: Sequence[Operation], rows: push.Columns, acked: Sequence[acks.Acked]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    names = ["", *(partition_name(*place) for place in rows.where)]
    item = ack = 0
    for operation in operations:
        for one in operation.items:
            results.append(
                {
                    "index": len(results),
                    "type": "push",
                    "success": True,
                    "transactionId": rows.transactions[item],
                    "messageId": rows.labels[item],
                    "partitionId": names[rows.slots[item]],
                    "queueName": one.queue,
                }
            )
            item += 1
        if operation.ack:
            verdict = acked[ack]
            results.append(
                {
                    "index": len(results),
                    "type": "ack",
                    "success": True,
                    "transactionId": verdict.transaction_id,
                    "error": None,
                    "dlq": verdict.dlq,
                }
            )
            ack += 1
    return results
