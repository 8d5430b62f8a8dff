"""Push messages: many requests share one commit. Each message gets its own result, in the order of its request."""

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec

from queueing.broker import catalog, long_polls, push_rows, push_write, traffic
from queueing.broker.ids import public_partition_id
from queueing.broker.push_rows import NewMessage, PushRows
from queueing.broker.push_write import Rejection

TRY_AGAIN = "the queue was changed again and again meanwhile; try again"
TRIES = 4  # for a message whose queue is dropped or changed at the same time


class Pushed(msgspec.Struct, rename="camel"):
    """The answer for one message (queue contract section 1.1)."""

    index: int
    transaction_id: str = msgspec.field(name="transaction_id")
    status: str  # queued, duplicate, failed
    message_id: str | msgspec.UnsetType = msgspec.field(name="message_id", default=msgspec.UNSET)
    partition_id: str | msgspec.UnsetType = msgspec.field(name="partition_id", default=msgspec.UNSET)
    trace_id: UUID | msgspec.UnsetType | None = msgspec.field(name="trace_id", default=msgspec.UNSET)
    queue_name: str = ""
    error: str | msgspec.UnsetType = msgspec.UNSET


async def push(
    tenant_id: int, producer: str, messages: Sequence[NewMessage], *, given: list[str] | None = None
) -> list[Pushed]:
    """Store messages durably, in order. Raises Unavailable (503), crypto.NoKey (500).

    `given` receives the transaction ids given to messages without one. A caller that pushes again after an error must use
    them, for the error may have come after the commit.
    """
    results: list[Pushed | None] = [None] * len(messages)
    open_indexes = list(range(len(messages)))
    for attempt in range(TRIES):
        open_indexes = await _try(tenant_id, producer, messages, open_indexes, results, given, fresh=attempt > 0)
        if not open_indexes:
            break
    for index in open_indexes:
        results[index] = _failed(index, messages[index], TRY_AGAIN)
    return results  # type: ignore[return-value]  # none is left out


async def _try(
    tenant_id: int,
    producer: str,
    messages: Sequence[NewMessage],
    indexes: list[int],
    results: list[Pushed | None],
    given: list[str] | None,
    *,
    fresh: bool,
) -> list[int]:
    """Push the messages at `indexes` once; returns the indexes that must be tried again."""
    rows, queues = await push_rows.build(tenant_id, producer, messages, indexes, fresh=fresh)
    if given is not None:
        for place, index in enumerate(indexes):
            given[index] = rows.transactions[place]
    if any(queue.max_size for queue in queues.values()):
        names = [messages[index].queue for index in indexes]
        rejected = await push_write.write_counted(tenant_id, rows, names, queues.values())
    else:
        rejected = await push_write.write_grouped(tenant_id, rows)
    again = _fill(results, messages, indexes, rows, rejected)
    pushed = (messages[place] for place in indexes if (one := results[place]) is not None and one.status == "queued")
    for id, count in Counter(queues[message.queue].id for message in pushed).items():
        traffic.count(tenant_id, id, push_requests=1, pushed=count)
        long_polls.wake(id, count)
    for index in again:
        catalog.forget_partition(tenant_id, queues[messages[index].queue], messages[index].partition)
    return again


def _fill(
    results: list[Pushed | None],
    messages: Sequence[NewMessage],
    indexes: Sequence[int],
    rows: PushRows,
    rejected: dict[int, Rejection],
) -> list[int]:
    """Set the results of these messages; returns the indexes that must be tried again."""
    again = []
    partition_ids = ["", *(public_partition_id(*partition) for partition in rows.partitions)]
    for place, index in enumerate(indexes):
        message = messages[index]
        transaction_id = rows.transactions[place]
        original, reason = rejected.get(place, (None, ""))
        # A duplicate of its own id: the connection was lost after the commit, and the statement was repeated.
        if not reason or (original and original.bytes == rows.ids[place]):
            id, partition_id = rows.id_texts[place], partition_ids[rows.slots[place]]
            results[index] = Pushed(index, transaction_id, "queued", id, partition_id, message.trace_id, message.queue)
        elif reason == "duplicate":
            results[index] = Pushed(index, transaction_id, "duplicate", str(original), queue_name=message.queue)
        elif reason == "full":
            results[index] = _failed(index, message, "the queue is full")
        else:
            again.append(index)
    return again


def _failed(index: int, message: NewMessage, error: str) -> Pushed:
    return Pushed(index, message.transaction_id, "failed", queue_name=message.queue, error=error)
