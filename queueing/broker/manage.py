"""Queues are configured, emptied and dropped here, and single messages deleted. What is in them browse.py tells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from queueing.broker import catalog, long_polls, options
from queueing.broker.errors import BadRequest, UnknownMessage, UnknownQueue
from queueing.broker.names import partition_name, partition_number
from registry.data import database
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "manage.sql")

SLICE = 1000  # rows per statement
DEFAULT_PARTITION = "Default"


class Configured(msgspec.Struct, rename="camel"):
    """A queue and all its options (queue contract section 1.2)."""

    queue_id: str
    partition_id: str
    queue: str
    namespace: str
    task: str
    options: dict[str, Any]
    configured: bool = True


async def configure(
    tenant_id: int,
    name: str,
    wanted: dict[str, Any],
    *,
    namespace: str | None = None,
    task: str | None = None,
    replace: bool = False,
) -> Configured:
    """Set these options, and with `replace` all others to their defaults; makes the queue. Raises BadRequest (400).

    What already waits follows at once: a delay, window or ttl that changed counts for it too.
    """
    values = options.parse(wanted)
    values = {**(options.defaults() if replace else dict.fromkeys(options.COLUMNS)), **values}  # type: ignore[dict-item]
    params = {"tenant": tenant_id, "name": name, "namespace": namespace, "task": task, **values}
    await _make(tenant_id, name)
    rows = await database.fetch(SQL["configure"], params)
    if not rows:
        raise Unavailable("the queue is being dropped at this very moment; try again")
    queue_id, moved, namespace, task, columns = rows[0]
    catalog.forget_queue(tenant_id, name)
    queue = await _make(tenant_id, name)
    numbers = await catalog.partitions(tenant_id, queue, [DEFAULT_PARTITION])
    if moved:
        await _look_again(tenant_id, queue_id)
        long_polls.wake(queue_id, SLICE)
    partition_id = partition_name(tenant_id, numbers[DEFAULT_PARTITION]) if numbers else ""
    named = options.named(json.loads(columns))
    return Configured(str(queue_id), partition_id, name, namespace or "", task or "", named)


async def _make(tenant_id: int, name: str) -> catalog.Queue:
    try:
        return await catalog.find_or_make(tenant_id, name, fresh=True)
    except LookupError:
        raise Unavailable("the queue is being dropped at this very moment; try again") from None


async def _look_again(tenant_id: int, queue_id: int) -> None:
    """Decide anew when what waits may be read."""
    after = (0, 0)
    while True:
        params = {"tenant": tenant_id, "queue": queue_id, "partition": after[0], "group": after[1], "limit": SLICE}
        found = await database.fetch(SQL["waiting_consumers"], params)
        if not found:
            return
        await look_again(tenant_id, [(p, g) for p, g in found])
        after = found[-1]  # type: ignore[assignment]


async def look_again(tenant_id: int, consumers: Sequence[tuple[int, int]]) -> None:
    params = {"tenant": tenant_id, "partitions": [p for p, _ in consumers], "groups": [g for _, g in consumers]}

    async def once() -> None:
        async with database.transaction() as conn:
            await database.rows(conn, SQL["look_again"], params)
            await database.rows(conn, catalog.SQL["rest"], {**params, "tenants": [tenant_id] * len(consumers)})

    await database.retrying(once)


async def drop(tenant_id: int, name: str) -> bool:
    """Drop a queue with all that is in it, dead letters too; whether there was one.

    Its partitions leave it in slices, and the queue goes with the last: a call that was cut off is followed by another.
    Messages go in slices, later.
    """
    existed = False
    while (left := await database.retrying(lambda: _drop_slice(tenant_id, name))) is not None:
        existed = True
        if not left:
            break
    catalog.forget_queue(tenant_id, name)
    return existed


async def _drop_slice(tenant_id: int, name: str) -> bool | None:
    """Take the next partitions out of a queue; whether more are left, None where there is no such queue."""
    async with database.transaction() as conn:
        held = await database.rows(conn, catalog.SQL["hold_queue"], {"tenant": tenant_id, "name": name})
        if not held:
            return None
        where: dict[str, Any] = {"tenant": tenant_id, "queue": held[0][0], "partition": "", "limit": SLICE}
        rows = await database.rows(conn, SQL["partitions_of"], where)
        numbers = {"tenant": tenant_id, "partitions": [row[0] for row in rows]}
        await database.rows(conn, SQL["drop_partitions"], numbers)
        await database.rows(conn, SQL["drop_consumers"], numbers)
        if len(rows) == SLICE:
            return True
        await database.rows(conn, SQL["drop_groups"], where)
        await database.rows(conn, SQL["drop_queue"], where)
        return False


async def clear(tenant_id: int, name: str, partition: str = "") -> int:
    """Delete all messages of a queue or one of its partitions; how many. Dead letters stay. Raises UnknownQueue (404)."""
    queue = await catalog.find(tenant_id, name, fresh=True)
    if queue is None:
        raise UnknownQueue
    where = {"tenant": tenant_id, "queue": queue.id, "partition": partition, "limit": None}
    found = await database.fetch(SQL["partitions_of"], where)
    if partition and not found:
        raise UnknownQueue("Partition not found")
    return sum([await _clear(tenant_id, number) for (number,) in found])


async def _clear(tenant_id: int, partition: int) -> int:
    where = {"tenant": tenant_id, "partition": partition}

    async def begin() -> int:
        # First no reader has anything to read, then it goes in slices: what is pushed meanwhile stays.
        async with database.transaction() as conn:
            rows = await database.rows(conn, SQL["end_of_partition"], where)
            await database.rows(conn, SQL["clear_consumers"], where)
            await database.rows(conn, SQL["rest_idle"], where)
            return rows[0][0] if rows else 0

    through = await database.retrying(begin)
    deleted = 0
    while some := await _delete(SQL["clear_messages"], {**where, "through": through, "limit": SLICE}):
        deleted += some
    return deleted


async def _delete(statement: str, params: dict[str, Any]) -> int:
    """Delete messages of one partition and write down how many."""

    async def once() -> int:
        async with database.transaction() as conn:
            await database.rows(conn, SQL["end_of_partition"], params)
            count = len(await database.rows(conn, statement, params))
            if count:
                await database.rows(conn, SQL["removed"], {**params, "count": count})
            return count

    return await database.retrying(once)


async def delete(tenant_id: int, partition_id: str, transaction_id: str) -> None:
    """Delete one message; who leased it is told that it is gone. Raises UnknownMessage (404)."""
    number = partition_number(tenant_id, partition_id)
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    found = await database.fetch(SQL["message_to_delete"], where) if number is not None else []
    if not found or not await _delete(SQL["delete_message"], {**where, "seq": found[0][0]}):
        raise UnknownMessage


def mode(text: str | None) -> bool:
    """Whether `mode` asks to replace. Raises BadRequest (400)."""
    if text not in (None, "merge", "replace"):
        raise BadRequest("mode wants merge or replace")
    return text == "replace"
