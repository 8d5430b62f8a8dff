"""Statements of a push: group commit of many requests, and counted inserts for queues with a maximum size."""

from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from queueing.broker.catalog import SQL, Queue
from queueing.broker.push_rows import PushRows
from registry.data import database, db_breaker
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop

MAX_ROWS = 2000  # messages per statement

# The existing message's id where the reason is 'duplicate'; other reasons: 'changed', 'gone', 'full'.
type Rejection = tuple[UUID | None, str]


async def write(rows: PushRows, conn: AsyncConnection | None = None, *, counted: bool = False) -> dict[int, Rejection]:
    """Insert rows. Returns the rejected ones by index. `counted`: the caller has checked the maximum under the queue's lock."""
    params = rows.parameters(counted=counted)
    found = await (database.fetch(SQL["push"], params) if conn is None else database.rows(conn, SQL["push"], params))
    return {number - 1: (original, reason) for number, original, reason in found}


async def write_grouped(tenant_id: int, rows: PushRows) -> dict[int, Rejection]:
    """`write` in one commit with the requests of the same moment."""
    return await _batchers.get().of(tenant_id).submit(rows)


async def _write_batch(requests: Sequence[PushRows]) -> list[dict[int, Rejection]]:
    if len(requests) == 1:
        return [await db_breaker.attempt(lambda: write(requests[0]), patient=True)]
    together = PushRows()
    for request in requests:
        together.extend(request)
    rejected = await db_breaker.attempt(lambda: write(together), patient=True)
    if not rejected:
        return [rejected] * len(requests)
    results, start = [], 0
    for request in requests:
        end = start + len(request)
        results.append({index - start: one for index, one in rejected.items() if start <= index < end})
        start = end
    return results


def _batcher() -> Batcher[PushRows, dict[int, Rejection]]:
    return Batcher(_write_batch, max_rows=MAX_ROWS, weigh=len)


_batchers: PerLoop[Family[PushRows, dict[int, Rejection]]] = PerLoop(lambda: Family(_batcher), close=Family.finish)


# -- Queues with a maximum size ------------------------------------------------------------------------------


class Room(NamedTuple):
    """Maximum size of a queue, and how many more messages it takes now."""

    most: int
    left: int


async def lock_and_measure(conn: AsyncConnection, tenant_id: int, queues: Collection[Queue]) -> dict[str, Room]:
    """Lock these queues, by name, and measure those with a maximum size. Nobody else can exceed it until the commit."""
    room = {}
    for queue in sorted(queues, key=lambda one: one.name):
        locked = await database.rows(conn, SQL["lock_queue"], {"tenant": tenant_id, "name": queue.name})
        if locked and (most := locked[0][1]):  # the maximum as it is now, not as it was cached
            params = {"tenant": tenant_id, "queue": queue.id}
            room[queue.name] = Room(most, most - (await database.rows(conn, SQL["size"], params))[0][0])
    return room


async def write_counted(
    tenant_id: int, rows: PushRows, names: Sequence[str], queues: Collection[Queue]
) -> dict[int, Rejection]:
    """`write` what fits into queues with a maximum size; the rest is rejected as 'full'. `names`: each row's queue."""

    async def once() -> dict[int, Rejection]:
        async with database.transaction() as conn:
            room = await lock_and_measure(conn, tenant_id, queues)
            return await _write_what_fits(conn, rows, names, {name: one.left for name, one in room.items()})

    return await db_breaker.attempt(lambda: database.retrying(once), patient=True)


async def _write_what_fits(
    conn: AsyncConnection, rows: PushRows, names: Sequence[str], left: dict[str, int]
) -> dict[int, Rejection]:
    """Insert one row after the other, because a duplicate takes no room."""
    rejected: dict[int, Rejection] = {}
    for index, name in enumerate(names):
        one = rows.only(index)
        if left.get(name, 1) <= 0:
            tenant_id, partition = list(rows.partitions)[rows.slots[index] - 1]
            params = {"tenant": tenant_id, "partition": partition, "transaction": rows.transactions[index]}
            known = await database.rows(conn, SQL["find_message"], params)
            rejected[index] = (known[0][0], "duplicate") if known else (None, "full")
            continue
        found = await write(one, conn, counted=True)
        if 0 in found:
            rejected[index] = found[0]
        elif name in left:
            left[name] -= 1
    return rejected
