"""Dead letters: listed, replayed once, purged, and made by hand. Where readers' acks put them is bury.py."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, crypto, leases, long_polls, push, traffic
from queueing.broker.errors import UnknownDeadLetter, UnknownGroup, UnknownMessage
from queueing.broker.names import partition_name, partition_number
from queueing.broker.push import Item
from registry.data import database
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "dead_letters.sql")

SLICE = 1000  # rows per statement
TRIES = 4  # of a replay whose queue is changed at the same moment
MOVED, DUPLICATE = "moved", "duplicate"
BY_HAND = "moved here by hand"


class _Row(msgspec.Struct, frozen=True):
    id: int
    transaction_id: str
    partition: int
    queue: str
    partition_name: str
    group: str
    error: str
    attempts: int
    payload: bytes
    key_id: str | None
    trace_id: Any
    producer: str | None
    message_id: Any
    created_at: datetime
    failed_at: datetime


class DeadLetter(msgspec.Struct, rename="camel"):
    """A dead letter (queue contract section 1.3)."""

    id: str
    transaction_id: str
    partition_id: str
    queue: str
    partition: str
    consumer_group: str
    error_message: str
    retry_count: int
    data: msgspec.Raw | None
    is_encrypted: bool
    producer_sub: str | None
    trace_id: Any
    message_id: Any
    created_at: datetime
    failed_at: datetime
    data_error: str | None = None  # why there is no data


async def letters(tenant_id: int, filters: dict[str, Any], *, limit: int, offset: int) -> tuple[list[DeadLetter], int]:
    """Open dead letters, latest first, and how many there are. `filters`: queue, group, partition, from, to."""
    params = {"tenant": tenant_id, **filters, "limit": limit, "offset": offset}
    found = [_letter(tenant_id, _Row(*row)) for row in await database.fetch(SQL["dead_letters"], params)]
    total = (await database.fetch(SQL["how_many"], params))[0][0]
    return found, total


def _letter(tenant_id: int, row: _Row) -> DeadLetter:
    data, fault = None, None
    try:
        data = msgspec.Raw(_payload(tenant_id, row))
    except crypto.Undecipherable as error:
        fault = error.detail  # one that cannot be read must not hide the others
    return DeadLetter(
        id=str(row.id),
        transaction_id=row.transaction_id,
        partition_id=partition_name(tenant_id, row.partition),
        queue=row.queue,
        partition=row.partition_name,
        consumer_group=row.group,
        error_message=row.error,
        retry_count=row.attempts,
        data=data,
        is_encrypted=row.key_id is not None,
        producer_sub=row.producer,
        trace_id=row.trace_id,
        message_id=row.message_id,
        created_at=row.created_at,
        failed_at=row.failed_at,
        data_error=fault,
    )


def _payload(tenant_id: int, row: _Row) -> bytes:
    if row.key_id is None:
        return row.payload
    place = (tenant_id, row.queue, row.partition_name, row.transaction_id)
    return crypto.decrypt(row.payload, key_id=row.key_id, place=place)


# -- Replay ------------------------------------------------------------------------------------------------


class Replayed(msgspec.Struct, rename="camel"):
    """What became of a replay: moved, or duplicate where it was replayed before."""

    verdict: str
    id: str
    transaction_id: str
    queue: str
    partition: str
    success: bool = True


type Write = Callable[[AsyncConnection], Awaitable[str | None]]  # what a replay writes, in one transaction


async def _alone(write: Write) -> str | None:
    async def once() -> str | None:
        async with database.transaction() as conn:
            return await write(conn)

    return await database.retrying(once)


async def replay(
    tenant_id: int, number: str, *, transact: Callable[[Write], Awaitable[str | None]] = _alone
) -> Replayed:
    """Push a dead letter again, under the transaction id `dlq:<row id>`, once. Raises UnknownDeadLetter (404).

    `transact` runs what is written in a transaction of the caller's choice.
    """
    # More digits than any row id has are no id of ours.
    id = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    for _ in range(TRIES):
        rows = await database.fetch(SQL["dead_letter"], {"tenant": tenant_id, "id": id})
        if not rows:
            raise UnknownDeadLetter
        row = _Row(*rows[0])
        item = Item(row.queue, _payload(tenant_id, row), row.partition_name, f"dlq:{row.id}", row.trace_id)
        if verdict := await _move(tenant_id, row, item, transact):
            return Replayed(verdict, str(row.id), item.transaction_id, row.queue, row.partition_name)
    raise Unavailable("the queue was changed again and again meanwhile; try again")


async def _move(
    tenant_id: int, row: _Row, item: Item, transact: Callable[[Write], Awaitable[str | None]]
) -> str | None:
    """One try; None where the queue was changed under it."""
    columns, queues = await push.columns(tenant_id, row.producer or "", [item], [0], fresh=True)
    (_, partition) = next(iter(columns.where))
    queue = queues[item.queue]

    async def write(conn: AsyncConnection) -> str | None:
        if not await database.rows(conn, SQL["hold_open"], {"tenant": tenant_id, "id": row.id}):
            # Somebody replayed it, or it was purged; then no message bears its name.
            where = {"tenant": tenant_id, "partition": partition, "transaction": item.transaction_id}
            if await database.rows(conn, SQL["there"], where):
                return DUPLICATE
            raise UnknownDeadLetter
        refused = await push.write(columns, conn, counted=True)
        _, reason = refused.get(0, (None, ""))
        if reason not in ("", "duplicate"):
            return None
        await database.rows(conn, SQL["end"], {"tenant": tenant_id, "id": row.id})
        return DUPLICATE if reason else MOVED

    verdict = await transact(write)
    if verdict == MOVED:
        traffic.count(tenant_id, queue.id, push_requests=1, pushed=1)
        long_polls.wake(queue.id)
    return verdict


async def retry(tenant_id: int, partition_id: str, transaction_id: str) -> Replayed:
    """`replay`, by the message that is dead. Raises UnknownDeadLetter (404)."""
    number = partition_number(tenant_id, partition_id)
    params = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    rows = await database.fetch(SQL["oldest_of_message"], params) if number is not None else []
    if not rows:
        raise UnknownDeadLetter
    return await replay(tenant_id, str(rows[0][0]))


# -- Purge, and by hand ------------------------------------------------------------------------------------


async def purge(tenant_id: int, queue: str, group: str = "") -> int:
    """Forget a queue's open dead letters, their payloads too as soon as their groups are past them; how many."""
    params = {"tenant": tenant_id, "queue": queue, "group": group, "limit": SLICE}
    purged = 0
    while some := (await database.fetch(SQL["purge"], params))[0][0]:
        purged += some
    return purged


async def make(tenant_id: int, partition_id: str, transaction_id: str, *, group: str = "", error: str = "") -> int:
    """Give a message up for `group`, or every group that has not done it; for how many. Raises UnknownMessage (404)."""
    number = partition_number(tenant_id, partition_id)
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id, "group": group}

    async def once() -> int:
        async with database.transaction() as conn:
            # The partition first, as pushes do: then its readers' places.
            await database.rows(conn, SQL["hold_partition"], where)
            found = await database.rows(
                conn, catalog.SQL["places"], {**where, "partitions": [number], "transactions": [transaction_id]}
            )
            if not found:
                raise UnknownMessage
            place = {**where, "seq": found[0][1]}
            held = await database.rows(conn, SQL["hold_behind"], place)
            if not held:
                raise UnknownGroup("no consumer group has this message still to read")
            groups = [row[0] for row in held]
            dead = [leases.Dead(number or 0, g, place["seq"], error or BY_HAND, tries) for g, tries, _ in held]
            await leases.bury(conn, tenant_id, dead)
            await database.rows(conn, SQL["mark_buried"], {**place, "groups": groups})
            resting = [g for g, _, leased in held if not leased]
            numbers = {"tenants": [tenant_id] * len(resting), "partitions": [number] * len(resting), "groups": resting}
            await database.rows(conn, catalog.SQL["rest"], numbers)
            return len(groups)

    if number is None:
        raise UnknownMessage
    return await database.retrying(once)
