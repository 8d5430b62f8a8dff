"""Acknowledge messages. An ack is fenced by its lease and moves the group's cursor only forward.

A request whose acks are all `completed`, the usual case, shares one statement with others (ack_completed.py). Any other
request locks its consumers and decides what follows (ack_apply.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from queueing.broker import ack_apply, ack_completed, catalog, long_polls, traffic
from queueing.broker.ack_request import COMPLETED, DEAD, FAILED, RETRY, Ack, Acked, AckOutcome, CheckedAck, check
from registry.data import database
from registry.errors import Unavailable

_COUNTED = {
    COMPLETED: "completed",
    FAILED: "failed",
    RETRY: "failed",
    DEAD: "failed",
}  # of an ack that made no dead letter


async def ack(tenant_id: int, acks: Sequence[Ack]) -> list[Acked]:
    """Acknowledge messages; one answer per ack, in order. Raises Unavailable (503)."""
    results, checked = check(tenant_id, acks)
    if all(one.status == COMPLETED for one in checked):
        outcomes = await ack_completed.complete(tenant_id, checked) if checked else []
    else:
        outcomes = await _apply(tenant_id, checked)
    for outcome in outcomes:
        results[outcome.index].set(outcome)
    more = {one.index for one in outcomes if one.more}
    due = {one.partition for one in checked if one.index in more} if more else ()
    await name_and_wake(tenant_id, checked, results, due)
    _count(tenant_id, checked, results)
    return results


async def _apply(tenant_id: int, checked: Sequence[CheckedAck]) -> list[AckOutcome]:
    async def once() -> list[AckOutcome]:
        async with database.transaction() as conn:
            return await ack_apply.apply(conn, tenant_id, checked)

    # Not repeated, for the reason given in ack_completed.py.
    return await database.retrying(once, repeatable=False)


async def name_and_wake(
    tenant_id: int, checked: Sequence[CheckedAck], results: Sequence[Acked], due: Iterable[int]
) -> None:
    """Fill in the names of queues and partitions, and wake the long polls of the partitions `due`, which have messages to read
    now or after the delay of a retry. The acks are committed, so without the database the names are left out."""
    with suppress(Unavailable):
        named = await catalog.names_of(tenant_id, {one.consumer.partition for one in checked})
        for one in checked:
            if names := named.get(one.consumer.partition):
                result = results[one.index]
                result.queue_name, result.partition_name = names.queue, names.partition
        for partition in due:
            if names := named.get(partition):
                long_polls.wake(names.queue_id)


def _count(tenant_id: int, checked: Sequence[CheckedAck], results: Sequence[Acked]) -> None:
    """Add the successful acks to the queues' statistics."""
    done: Counter[tuple[int, str]] = Counter()  # by partition and outcome
    for one in checked:
        result = results[one.index]
        if result.success:
            done[one.consumer.partition, "buried" if result.dlq else _COUNTED[one.status]] += 1
    counts: dict[int, dict[str, int]] = {}
    for (partition, kind), count in done.items():
        if names := catalog.known_names(tenant_id, partition):
            mine = counts.setdefault(names.queue_id, {"ack_requests": 1, "completed": 0, "failed": 0, "buried": 0})
            mine[kind] += count
    for queue_id, mine in counts.items():
        traffic.count(tenant_id, queue_id, **mine)
