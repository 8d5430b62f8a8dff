"""Administration of queues: configure, clear and drop them, and delete single messages. browse.py lists them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from queueing.broker import catalog, consumers, long_polls, options
from queueing.broker.errors import BadRequest, UnknownMessage, UnknownQueue
from queueing.broker.ids import partition_number, public_partition_id
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
    """Set these options, and with `replace` all others to their defaults; creates the queue. Raises BadRequest (400).

    A changed delay, window or ttl also applies to messages that wait already.
    """
    values = options.parse(wanted)
    values = {**(options.defaults() if replace else dict.fromkeys(options.COLUMNS)), **values}  # type: ignore[dict-item]
    params = {"tenant": tenant_id, "name": name, "namespace": namespace, "task": task, **values}
    await _make(tenant_id, name)
    rows = await database.fetch(SQL["configure"], params)
    if not rows:
        raise Unavailable("the queue is being dropped at this very moment; try again")
    queue_id, visibility_changed, namespace, task, columns = rows[0]
    catalog.forget_queue(tenant_id, name)
    queue = await _make(tenant_id, name)
    numbers = await catalog.partitions(tenant_id, queue, [DEFAULT_PARTITION])
    if visibility_changed:
        await _reschedule_queue(tenant_id, queue_id)
        long_polls.wake(queue_id, SLICE)
    partition_id = public_partition_id(tenant_id, numbers[DEFAULT_PARTITION]) if numbers else ""
    named = options.named(json.loads(columns))
    return Configured(str(queue_id), partition_id, name, namespace or "", task or "", named)


async def _make(tenant_id: int, name: str) -> catalog.QueueSettings:
    try:
        return await catalog.find_or_create(tenant_id, name, fresh=True)
    except LookupError:
        raise Unavailable("the queue is being dropped at this very moment; try again") from None


async def _reschedule_queue(tenant_id: int, queue_id: int) -> None:
    """Compute again when the queue's waiting messages become visible, page by page."""
    after = (0, 0)
    while True:
        params = {"tenant": tenant_id, "queue": queue_id, "partition": after[0], "group": after[1], "limit": SLICE}
        found = await database.fetch(SQL["waiting_consumers"], params)
        if not found:
            return
        await reschedule(tenant_id, [(p, g) for p, g in found])
        after = found[-1]  # type: ignore[assignment]


async def reschedule(tenant_id: int, keys: Sequence[tuple[int, int]]) -> None:
    """Compute again when consumers, by partition and group, are due."""
    params = {"tenant": tenant_id, "partitions": [p for p, _ in keys], "groups": [g for _, g in keys]}

    async def once() -> None:
        async with database.transaction() as conn:
            await database.rows(conn, SQL["make_due"], params)
            await consumers.reschedule([(tenant_id, p, g) for p, g in keys], conn)

    await database.retrying(once)


async def drop(tenant_id: int, name: str) -> bool:
    """Drop a queue with its messages and dead letters. Returns whether it existed.

    Partitions are taken out in slices, and the queue is deleted with the last one: an interrupted call can be repeated. A
    periodic task deletes the messages later.
    """
    existed = False
    while (left := await database.retrying(lambda: _drop_slice(tenant_id, name))) is not None:
        existed = True
        if not left:
            break
    catalog.forget_queue(tenant_id, name)
    return existed


async def _drop_slice(tenant_id: int, name: str) -> bool | None:
    """Take the next partitions out of a queue. Returns whether more are left, None where there is no such queue."""
    async with database.transaction() as conn:
        locked = await database.rows(conn, catalog.SQL["lock_queue"], {"tenant": tenant_id, "name": name})
        if not locked:
            return None
        where: dict[str, Any] = {"tenant": tenant_id, "queue": locked[0][0], "partition": "", "limit": SLICE}
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
    """Delete all messages of a queue or one of its partitions; returns their number. Dead letters stay. Raises UnknownQueue (404)."""
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
        # All cursors move to the end first, then messages are deleted in slices: what is pushed meanwhile stays.
        async with database.transaction() as conn:
            last = await consumers.lock_partition(conn, tenant_id, partition)
            await database.rows(conn, SQL["clear_consumers"], where)
            await database.rows(conn, SQL["mark_idle"], where)
            return last or 0

    through = await database.retrying(begin)
    deleted = 0
    while some := await _delete(SQL["clear_messages"], {**where, "through": through, "limit": SLICE}):
        deleted += some
    return deleted


async def _delete(statement: str, params: dict[str, Any]) -> int:
    """Delete messages of one partition and add their number to it."""

    async def once() -> int:
        async with database.transaction() as conn:
            await consumers.lock_partition(conn, params["tenant"], params["partition"])
            count = len(await database.rows(conn, statement, params))
            if count:
                await database.rows(conn, SQL["add_removed"], {**params, "count": count})
            return count

    return await database.retrying(once)


async def delete(tenant_id: int, partition_id: str, transaction_id: str) -> None:
    """Delete one message; an ack of it then fails with `Message not found`. Raises UnknownMessage (404)."""
    number = partition_number(tenant_id, partition_id)
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    found = await database.fetch(SQL["message_to_delete"], where) if number is not None else []
    if not found or not await _delete(SQL["delete_message"], {**where, "seq": found[0][0]}):
        raise UnknownMessage


def mode(text: str | None) -> bool:
    """Whether `mode` is `replace`. Raises BadRequest (400)."""
    if text not in (None, "merge", "replace"):
        raise BadRequest("mode wants merge or replace")
    return text == "replace"
