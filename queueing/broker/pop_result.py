"""Answer to a pop: claimed rows decrypted, and turned into messages as their reader gets them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from queueing.broker import crypto, poison, traffic
from queueing.broker.claim import Claim, ClaimedRow
from queueing.broker.ids import public_partition_id
from registry.data import clock


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message as its reader gets it (queue contract section 1.1)."""

    id: UUID
    transaction_id: str
    trace_id: UUID | None
    data: msgspec.Raw
    producer_sub: str | None
    created_at: datetime
    partition_id: str
    partition: str
    lease_id: str
    consumer_group: str
    queue: str


class Popped(msgspec.Struct, frozen=True):
    """What one pop got; without messages, nothing was due."""

    lease_id: UUID | None
    partitions: int = 0
    messages: list[Message] = []


async def decrypted(claim: Claim, rows: Sequence[ClaimedRow]) -> Sequence[ClaimedRow]:
    """Rows with their payloads decrypted. Raises Undecipherable where none of them can be.

    A payload that cannot be decrypted postpones its partition and does not affect others.
    """
    if all(row.key_id is None for row in rows):
        return rows
    queues = {source.queue.id: source.queue.name for source in claim.sources}
    plain: list[ClaimedRow] = []
    bad: list[tuple[ClaimedRow, crypto.Undecipherable]] = []
    for row in rows:
        if row.key_id is not None:
            place = (row.tenant_id, queues[row.queue_id], row.partition, row.transaction_id)
            try:
                payload = crypto.decrypt(row.payload, key_id=row.key_id, place=place)
            except crypto.Undecipherable as error:
                bad.append((row, error))
                continue
            row = msgspec.structs.replace(row, payload=payload, key_id=None)
        plain.append(row)
    if not bad:
        return plain
    await poison.postpone_undecryptable([(row, error.detail) for row, error in bad], claim.lease)
    if claim.lease:  # to keep the order, no other message of such a partition is delivered
        postponed = {row.partition_id for row, _ in bad}
        plain = [row for row in plain if row.partition_id not in postponed]
    if not plain:
        raise bad[0][1]
    return plain


def popped(claim: Claim, group: str, rows: Sequence[ClaimedRow]) -> Popped:
    """The answer; also adds the messages to the queues' statistics."""
    queues = {source.queue.id: source.queue.name for source in claim.sources}
    lease = str(claim.lease) if claim.lease else ""
    ids: dict[int, str] = {}
    messages = []
    for row in rows:
        id = ids.get(row.partition_id)
        if id is None:
            id = ids[row.partition_id] = public_partition_id(row.tenant_id, row.partition_id)
        messages.append(
            Message(
                row.id,
                row.transaction_id,
                row.trace_id,
                msgspec.Raw(row.payload),
                row.producer,
                row.created_at,
                id,
                row.partition,
                lease,
                group,
                queues[row.queue_id],
            )
        )
    _count(rows, completed=claim.lease is None)
    return Popped(claim.lease, len(ids), messages)


def _count(rows: Sequence[ClaimedRow], *, completed: bool) -> None:
    now = clock.now()
    by_queue: dict[int, list[ClaimedRow]] = {}
    for row in rows:
        by_queue.setdefault(row.queue_id, []).append(row)
    for queue_id, mine in by_queue.items():
        # The first and last row are enough for the lag: partitions are ordered by age, and the messages of one push share a time.
        oldest = max(0, round((now - min(mine[0].created_at, mine[-1].created_at)).total_seconds() * 1000))
        newest = max(0, round((now - max(mine[0].created_at, mine[-1].created_at)).total_seconds() * 1000))
        traffic.count(
            mine[0].tenant_id,
            queue_id,
            max_lag_ms=oldest,
            pop_requests=1,
            popped=len(mine),
            completed=len(mine) if completed else 0,
            lag_ms=(oldest + newest) // 2 * len(mine),
        )
