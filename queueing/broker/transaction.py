"""Transactions: pushes and acks that happen together or not at all."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import ack as acks
from queueing.broker import ack_apply, catalog, long_polls, push_rows, push_write, traffic
from queueing.broker.ack_request import NO_LEASE, Ack, Acked, check
from queueing.broker.catalog import SQL, QueueSettings
from queueing.broker.ids import partition_number, public_partition_id
from queueing.broker.leases import parse_lease
from queueing.broker.push_rows import NewMessage, PushRows
from registry.data import database

ANY_LEASE = str(UUID(int=0))


class OperationRefused(Exception):
    """One operation cannot be done, so none is. The caller gets the text."""


class Operation(msgspec.Struct, frozen=True):
    """Either messages to push or an ack."""

    items: tuple[NewMessage, ...] = ()
    ack: Ack | None = None


async def commit(
    tenant_id: int, producer: str, operations: Sequence[Operation], required: Sequence[str]
) -> list[dict[str, Any]]:
    """Do all operations in one transaction; one result per message and ack. Raises OperationRefused, Unavailable (503).

    `required`: leases that must be alive. An ack without a lease is fenced by the required lease that covers its partition.
    """
    messages = [message for operation in operations for message in operation.items]
    rows, queues = await push_rows.build(tenant_id, producer, messages, range(len(messages)))
    leases = _parse_leases(required)
    wanted = [operation.ack for operation in operations if operation.ack]

    async def once() -> list[Acked]:
        async with database.transaction() as conn:
            if messages:
                await _push(conn, tenant_id, rows, messages, queues)
            await _require(conn, tenant_id, leases)
            return await _ack(conn, tenant_id, wanted, leases)

    # Not repeated: if the answer to the commit was lost, a second try would refuse its own messages as duplicates.
    acked = await database.faults_as_unavailable(once)
    for queue in queues.values():
        count = sum(message.queue == queue.name for message in messages)
        traffic.count(tenant_id, queue.id, push_requests=1, pushed=count)
        long_polls.wake(queue.id, count)
    checked = check(tenant_id, [msgspec.structs.replace(one, lease_id=ANY_LEASE) for one in wanted])[1]
    released = {one.partition for one in checked if acked[one.index].lease_released}
    await acks.name_and_wake(tenant_id, checked, acked, released)
    return _results(operations, rows, acked)


def _parse_leases(required: Sequence[str]) -> list[UUID]:
    leases = [parse_lease(text) for text in required]
    if None in leases:
        raise OperationRefused(NO_LEASE)
    return sorted({lease for lease in leases if lease})


async def _require(conn: AsyncConnection, tenant_id: int, leases: list[UUID]) -> None:
    if not leases:
        return
    rows = await database.rows(conn, SQL["lock_live_leases"], {"tenant": tenant_id, "leases": leases})
    if len({row[0] for row in rows}) < len(leases):
        raise OperationRefused(NO_LEASE)


async def _push(
    conn: AsyncConnection,
    tenant_id: int,
    rows: PushRows,
    messages: Sequence[NewMessage],
    queues: dict[str, QueueSettings],
) -> None:
    limited = any(queue.max_size for queue in queues.values())
    room = await push_write.lock_and_measure(conn, tenant_id, queues.values()) if limited else {}
    # Written before the size is checked: a duplicate is reported as such, however full the queue is by now.
    rejected = await push_write.write(rows, conn, counted=limited)
    for index, (_, reason) in sorted(rejected.items()):
        message = messages[index]
        if reason == "duplicate":
            raise OperationRefused(f"duplicate transactionId {rows.transactions[index]!r} in {message.queue}")
        catalog.forget_queue(tenant_id, message.queue)
        catalog.forget_partition(tenant_id, queues[message.queue], message.partition)
        raise OperationRefused(f"the queue {message.queue} was changed meanwhile; try again")
    for name, (most, left) in room.items():
        count = sum(message.queue == name for message in messages)
        if count > most:
            raise OperationRefused(f"the queue {name} takes at most {most} messages: {count} at once can never fit")
        if count > left:
            raise OperationRefused(f"the queue {name} is full: at most {most} messages")


async def _ack(conn: AsyncConnection, tenant_id: int, wanted: Sequence[Ack], leases: list[UUID]) -> list[Acked]:
    results, checked = check(tenant_id, await _with_leases(conn, tenant_id, wanted, leases))
    for result in results:
        if result.error:
            raise OperationRefused(result.error)
    for outcome in await ack_apply.apply(conn, tenant_id, checked, at_once=True):
        if outcome.error:
            raise OperationRefused(outcome.error)
        results[outcome.index].set(outcome)
    return results


async def _with_leases(conn: AsyncConnection, tenant_id: int, wanted: Sequence[Ack], leases: list[UUID]) -> list[Ack]:
    """The acks; those without a lease get the required lease that covers their partition."""
    numbers = {n: partition_number(tenant_id, one.partition_id) for n, one in enumerate(wanted) if not one.lease_id}
    bare = [(index, number) for index, number in numbers.items() if number]
    if not bare or not leases:
        return list(wanted)
    params = {
        "tenant": tenant_id,
        "partitions": [number for _, number in bare],
        "names": [wanted[index].group for index, _ in bare],
        "leases": leases,
    }
    found = {bare[n - 1][0]: lease for n, lease in await database.rows(conn, SQL["leases_of"], params)}
    return [msgspec.structs.replace(one, lease_id=str(found[n])) if n in found else one for n, one in enumerate(wanted)]


def _results(operations: Sequence[Operation], rows: PushRows, acked: Sequence[Acked]) -> list[dict[str, Any]]:
    partition_ids = ["", *(public_partition_id(*partition) for partition in rows.partitions)]
    pushed, answers = iter(range(len(rows))), iter(acked)
    results: list[dict[str, Any]] = []
    for operation in operations:
        for message, row in zip(operation.items, pushed, strict=False):
            pushed_as = {
                "transactionId": rows.transactions[row],
                "messageId": rows.id_texts[row],
                "partitionId": partition_ids[rows.slots[row]],
                "queueName": message.queue,
            }
            results.append({"index": len(results), "type": "push", "success": True, **pushed_as})
        if operation.ack:
            one = next(answers)
            outcome = {"transactionId": one.transaction_id, "error": None, "dlq": one.dlq}
            results.append({"index": len(results), "type": "ack", "success": True, **outcome})
    return results
