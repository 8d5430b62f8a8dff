"""Retention in the message queue: deletes messages by age, by completion and by waiting, dropped queues, old figures.

Each transaction deletes a slice of one partition under that partition's lock, for which pushes wait a few milliseconds.
Leased messages stay until the lease ends. Open dead letters are rows of their own and are never touched.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from queueing.broker import consumers
from registry.data import clock, database
from registry.data.chores import chore

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "retention.sql")

RETAIN_EVERY = 60  # seconds between evictions and removals by retention
TIDY_EVERY = 3600  # seconds between searches for partitions and figures that are old
SLICE = 1000  # rows per transaction
PAGE = 500  # partitions looked up at once
SLICES = 200  # per partition and run: a huge partition does not delay the others; the next run continues
END = 2**62  # larger than the number of any message
PARTITION_DAYS = 30  # for which an empty partition is kept after its last message
TRAFFIC_DAYS = 90
TRACE_DAYS = 30
ENDED_DAYS = 7  # for which a second replay of a dead letter is answered with "duplicate"


@chore("retain-messages", every=RETAIN_EVERY)
async def retain() -> None:
    """Delete messages by age, by completion and by waiting, and those of dropped queues."""
    await _logged("by age", by_age)
    await _logged("completed", completed)
    await _logged("evicted", evict)
    await _logged("of dropped queues", dropped)


@chore("tidy-queues", every=TIDY_EVERY)
async def tidy() -> None:
    """Delete empty partitions, and figures and traces that are old."""
    await _logged("empty partitions", empty_partitions)
    await _logged("old figures", old_figures)


async def _logged(what: str, work: Callable[[], Awaitable[int]]) -> None:
    if removed := await work():
        log.info("removed from the queues", extra={"what": what, "rows": removed})


async def by_age() -> int:
    """Delete messages older than the queue's retention or time to live, completed or not; returns their number."""
    return await _each("aged")


async def completed() -> int:
    """Delete messages that every group completed and that exceed the retention of completed messages; returns their number."""
    return await _each("completed", only_done=True)


async def evict() -> int:
    """Delete messages that have waited longer than the queue's maximum waiting time; returns their number."""
    return await _each("waited", only_waiting=True)


async def _each(statement: str, **which: bool) -> int:
    removed = after = 0
    while True:
        found = await database.fetch(SQL[statement], {"after": after, "limit": PAGE})
        for tenant_id, partition, age in found:
            removed += await _trim(tenant_id, partition, age, **which)
        if len(found) < PAGE:
            return removed
        after = found[-1][1]


async def _trim(tenant_id: int, partition: int, age: int, **which: bool) -> int:
    removed = 0
    for _ in range(SLICES):
        some = await database.retrying(lambda: _slice(tenant_id, partition, age, **which))
        removed += some
        if not some:
            break
    return removed


async def _slice(
    tenant_id: int, partition: int, age: int, *, only_done: bool = False, only_waiting: bool = False
) -> int:
    """Delete the next slice; returns the number of messages, 0 where none may be deleted now."""
    where: dict[str, Any] = {"tenant": tenant_id, "partition": partition, "age": age, "limit": SLICE, "after": 0}
    async with database.transaction() as conn:
        if await consumers.lock_partition(conn, tenant_id, partition) is None:
            return 0
        slowest = (await database.rows(conn, SQL["slowest_cursor"], where))[0][0]
        if only_done and slowest is None:
            return 0
        where["after"] = (slowest or 0) if only_waiting else 0
        where["through"] = slowest if only_done else END
        end = (await database.rows(conn, SQL["end_of_slice"], where))[0][0]
        if end is None:
            return 0
        where["through"] = end
        behind = (await database.rows(conn, SQL["count_behind"], where))[0][0]
        locked = await database.rows(conn, SQL["lock_behind"], where)
        if len(locked) < behind:
            return 0  # a pop or an ack is using a consumer; the next run tries again
        leased = [cursor for _, cursor, is_leased in locked if is_leased]
        where["through"] = end = min([end, *leased])
        removed: int = (await database.rows(conn, SQL["remove"], where))[0][0]
        groups = [group for group, cursor, is_leased in locked if not is_leased and cursor < end]
        if removed and groups:
            await database.rows(conn, SQL["skip_removed"], {**where, "groups": groups})
            await consumers.reschedule([(tenant_id, partition, group) for group in groups], conn)
        return removed


# -- Dropped queues and old figures -----------------------------------------------------------------------------------------


async def dropped() -> int:
    """Delete messages, dead letters and partitions of dropped queues; returns the number of messages."""
    removed = 0
    while found := await database.fetch(SQL["dropped"], {"limit": PAGE}):
        for tenant_id, partition in found:
            where = {"tenant": tenant_id, "partition": partition, "limit": SLICE}
            removed += await _slices("remove_slice", where)
            await _slices("remove_dead_letters", where)
            await database.fetch(SQL["remove_partition"], where)
    return removed


async def empty_partitions(*, days: int = PARTITION_DAYS) -> int:
    return await _slices("empty_partitions", {"days": days, "limit": PAGE})


async def old_figures() -> int:
    """Delete old traffic, traces and ended dead letters; returns the number of rows."""
    removed = 0
    for tenant_id, queue_id, exists in await database.fetch(SQL["traffic_queues"]):
        where = {"tenant": tenant_id, "queue": queue_id, "exists": exists, "days": TRAFFIC_DAYS, "limit": SLICE}
        removed += await _slices("remove_traffic", where)
    before = _first_id(clock.now() - timedelta(days=TRACE_DAYS))
    for (tenant_id,) in await database.fetch(SQL["tenants"]):
        removed += await _slices("remove_traces", {"tenant": tenant_id, "before": before, "limit": SLICE})
    return removed + await _slices("forget_ended", {"days": ENDED_DAYS, "limit": SLICE})


def _first_id(at: datetime) -> UUID:
    """The smallest UUID of version 7 from that moment on."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


async def _slices(statement: str, params: dict[str, Any]) -> int:
    removed = 0
    while rows := await database.fetch(SQL[statement], params):
        removed += len(rows)
        if len(rows) < params["limit"]:
            break
    return removed
