"""Dead letters: list, replay once, purge, and create by hand. Acks create them in ack_apply.py, poison messages in poison.py."""

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, consumers, crypto, long_polls, push_rows, push_write, traffic
from queueing.broker.errors import UnknownDeadLetter, UnknownGroup, UnknownMessage
from queueing.broker.ids import partition_number, public_partition_id
from queueing.broker.push_rows import NewMessage
from registry.data import database
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "dead_letters.sql")

SLICE = 1000  # rows per statement
TRIES = 4  # for a replay whose queue is changed at the same time
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


class QueueDeadLetter(msgspec.Struct, rename="camel"):
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


async def listed(
    tenant_id: int, filters: dict[str, Any], *, limit: int, offset: int
) -> tuple[list[QueueDeadLetter], int]:
    """Open dead letters, latest first, and their total number. `filters`: queue, group, partition, from, to."""
    params = {"tenant": tenant_id, **filters, "limit": limit, "offset": offset}
    found = [_dead_letter(tenant_id, _Row(*row)) for row in await database.fetch(SQL["dead_letters"], params)]
    total = (await database.fetch(SQL["how_many"], params))[0][0]
    return found, total


def _dead_letter(tenant_id: int, row: _Row) -> QueueDeadLetter:
    data, fault = None, None
    try:
        data = msgspec.Raw(_payload(tenant_id, row))
    except crypto.Undecipherable as error:
        fault = error.detail  # an unreadable one must not hide the others
    return QueueDeadLetter(
        id=str(row.id),
        transaction_id=row.transaction_id,
        partition_id=public_partition_id(tenant_id, row.partition),
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
    """Result of a replay: `moved`, or `duplicate` where the dead letter was replayed before."""

    verdict: str
    id: str
    transaction_id: str
    queue: str
    partition: str
    success: bool = True


async def replay(tenant_id: int, number: str) -> Replayed:
    """Push a dead letter again, under the transaction id `dlq:<row id>`, once. Raises UnknownDeadLetter (404)."""
    # A row id has fewer than 19 digits.
    id = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    for _ in range(TRIES):
        found = await ready(tenant_id, id)
        if verdict := await _replay(tenant_id, found):
            row = found.row
            return Replayed(verdict, str(id), found.message.transaction_id, row.queue, row.partition_name)
    raise Unavailable("the queue was changed again and again meanwhile; try again")


async def _replay(tenant_id: int, found: "Ready") -> str | None:
    async def once() -> str | None:
        async with database.transaction() as conn:
            return await write(conn, tenant_id, found)

    verdict = await database.retrying(once)
    if verdict == MOVED:
        tell(tenant_id, found)
    return verdict


class Ready(msgspec.Struct, frozen=True):
    """A dead letter with everything that its replay writes."""

    row: _Row
    message: NewMessage
    rows: push_rows.PushRows
    partition: int
    queue: int


async def ready(tenant_id: int, id: int) -> Ready:
    """Prepare a replay, before its transaction. Raises UnknownDeadLetter (404)."""
    rows = await database.fetch(SQL["dead_letter"], {"tenant": tenant_id, "id": id})
    if not rows:
        raise UnknownDeadLetter
    row = _Row(*rows[0])
    message = NewMessage(row.queue, _payload(tenant_id, row), row.partition_name, f"dlq:{row.id}", row.trace_id)
    pushed, queues = await push_rows.build(tenant_id, row.producer or "", [message], [0], fresh=True)
    (_, partition) = next(iter(pushed.partitions))
    return Ready(row, message, pushed, partition, queues[message.queue].id)


async def write(conn: AsyncConnection, tenant_id: int, found: Ready) -> str | None:
    """MOVED, DUPLICATE, or None where the queue was changed since `ready`. Raises UnknownDeadLetter (404)."""
    mine = {"tenant": tenant_id, "id": found.row.id}
    if not await database.rows(conn, SQL["lock_open"], mine):
        # It was replayed, or purged; only after a replay is there a message with its transaction id.
        where = {"tenant": tenant_id, "partition": found.partition, "transaction": found.message.transaction_id}
        if await database.rows(conn, catalog.SQL["find_message"], where):
            return DUPLICATE
        raise UnknownDeadLetter
    rejected = await push_write.write(found.rows, conn, counted=True)
    _, reason = rejected.get(0, (None, ""))
    if reason not in ("", "duplicate"):
        return None
    await database.rows(conn, SQL["end"], mine)
    return DUPLICATE if reason else MOVED


def tell(tenant_id: int, found: Ready) -> None:
    """Count a committed replay and wake the queue's readers."""
    traffic.count(tenant_id, found.queue, push_requests=1, pushed=1)
    long_polls.wake(found.queue)


async def retry(tenant_id: int, partition_id: str, transaction_id: str) -> Replayed:
    """Replay a message's dead letter. Raises UnknownDeadLetter (404)."""
    number = partition_number(tenant_id, partition_id)
    params = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    rows = await database.fetch(SQL["oldest_of_message"], params) if number is not None else []
    if not rows:
        raise UnknownDeadLetter
    return await replay(tenant_id, str(rows[0][0]))


# -- Purge, and create by hand ------------------------------------------------------------------------------------


async def purge(tenant_id: int, queue: str, group: str = "") -> int:
    """End a queue's open dead letters and return their number. Rows are deleted once their group's cursor has passed them."""
    params = {"tenant": tenant_id, "queue": queue, "group": group, "limit": SLICE}
    purged = 0
    while some := (await database.fetch(SQL["purge"], params))[0][0]:
        purged += some
    return purged


async def make(tenant_id: int, partition_id: str, transaction_id: str, *, group: str = "", error: str = "") -> int:
    """Make a message a dead letter of `group`, or of every group that has not completed it; returns the number of groups.

    Raises UnknownMessage, UnknownGroup (404).
    """
    number = partition_number(tenant_id, partition_id)
    if number is None:
        raise UnknownMessage
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id, "group": group}

    async def once() -> int:
        async with database.transaction() as conn:
            await consumers.lock_partition(conn, tenant_id, number)
            message = {**where, "partitions": [number], "transactions": [transaction_id]}
            found = await database.rows(conn, catalog.SQL["message_numbers"], message)
            if not found:
                raise UnknownMessage
            seq = found[0][1]
            locked = await database.rows(conn, SQL["lock_behind"], {**where, "seq": seq})
            if not locked:
                raise UnknownGroup("no consumer group has this message still to read")
            groups = [row[0] for row in locked]
            dead = [consumers.NewDeadLetter(number, g, seq, error or BY_HAND, attempts) for g, attempts, _ in locked]
            await consumers.add_dead_letters(conn, tenant_id, dead)
            await database.rows(conn, SQL["mark_buried"], {**where, "seq": seq, "groups": groups})
            await consumers.reschedule([(tenant_id, number, g) for g, _, leased in locked if not leased], conn)
            return len(groups)

    return await database.retrying(once)
