"""Administration of consumer groups: lag, deletion, subscription, seek. A pop creates a group in catalog.py."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, long_polls
from queueing.broker.catalog import GroupSubscription
from queueing.broker.errors import UnknownGroup, UnknownQueue
from queueing.broker.ids import public_partition_id
from queueing.models.broker import Group
from registry.data import clock, database

SQL = database.statements(Path(__file__).parent / "sql" / "groups.sql")

LAGGING = timedelta(
    minutes=5
)  # lag above which a group is `Lagging`; `Dead` where nothing was consumed in that time either


class GroupStatus(msgspec.Struct, frozen=True, rename="camel"):
    """Lag of a group in one queue, in messages and in seconds (queue contract section 1.4)."""

    name: str
    topics: list[str]
    queue_name: str
    members: int  # live leases
    partitions_with_lag: int
    total_lag: int
    max_time_lag: float
    state: str
    subscription_mode: str
    subscription_timestamp: datetime | None
    subscription_created_at: datetime


class PartitionProgress(msgspec.Struct, frozen=True, rename="camel"):
    """Progress of a group in one partition."""

    partition: str
    partition_id: str
    worker_id: str | None  # the live lease
    last_consumed_at: datetime | None
    total_consumed: int
    offset_lag: int
    time_lag_seconds: float
    lease_active: bool


# -- Reading -------------------------------------------------------------------------------------------------


async def standings(tenant_id: int, *, least_lag: float = 0) -> list[GroupStatus]:
    """The lag of every group in every queue, of those with a lag of at least `least_lag` seconds."""
    rows = await database.fetch(SQL["groups"], {"tenant": tenant_id})
    found = [_standing(*row) for row in rows]
    return [one for one in found if one.max_time_lag >= least_lag]


def _standing(
    group: str, queue: str, mode: str, since: datetime | None, created_at: datetime, members: int, partitions: int,
    lag: int, seconds: float, consumed_at: datetime | None,
) -> GroupStatus:  # fmt: skip
    slow = seconds > LAGGING.total_seconds()
    seen = members or (consumed_at and clock.now() - consumed_at < LAGGING)
    return GroupStatus(
        name=group,
        topics=[queue],
        queue_name=queue,
        members=members,
        partitions_with_lag=partitions,
        total_lag=lag,
        max_time_lag=round(seconds, 3),
        state="Stable" if not slow else "Lagging" if seen else "Dead",
        subscription_mode=mode,
        subscription_timestamp=since,
        subscription_created_at=created_at,
    )


async def progress(tenant_id: int, group: str, *, limit: int, offset: int = 0) -> dict[str, list[PartitionProgress]]:
    """The group's progress in each partition, by queue. Raises UnknownGroup (404)."""
    found: dict[str, list[PartitionProgress]] = {queue: [] for queue in await _queues(tenant_id, group)}
    params = {"tenant": tenant_id, "group": group, "limit": limit, "offset": offset}
    for queue, name, number, lease, consumed_at, consumed, lag, seconds in await database.fetch(
        SQL["group_partitions"], params
    ):
        found.setdefault(queue, []).append(
            PartitionProgress(
                partition=name,
                partition_id=public_partition_id(tenant_id, number),
                worker_id=str(lease) if lease else None,
                last_consumed_at=consumed_at,
                total_consumed=consumed,
                offset_lag=lag,
                time_lag_seconds=round(seconds or 0.0, 3),
                lease_active=lease is not None,
            )
        )
    return found


async def _queues(tenant_id: int, group: str, queue: str | None = None) -> list[str]:
    rows = await database.fetch(SQL["queues_of_group"], {"tenant": tenant_id, "group": group, "queue": queue})
    if not rows:
        raise UnknownGroup
    return [row[0] for row in rows]


# -- Changing --------------------------------------------------------------------------------------------------


async def delete(tenant_id: int, group: str, *, queue: str | None = None, subscription: bool = True) -> dict[str, int]:
    """Delete a group's cursors and leases; returns the number of partitions by queue, empty where there is no such group.

    Without `subscription` the group itself stays, and reads again from its subscription's start.
    """
    try:
        queues = await _queues(tenant_id, group, queue)
    except UnknownGroup:
        return {}
    deleted = {}
    for name in queues:
        count = await _delete_in(tenant_id, group, name, subscription)
        if count is not None:
            deleted[name] = count
    return deleted


async def _delete_in(tenant_id: int, group: str, queue: str, subscription: bool) -> int | None:
    async def work(conn: AsyncConnection, queue_id: int, row: Sequence[Any]) -> int:
        number, mode, since, created_at = row
        at = {"tenant": tenant_id, "queue": queue_id, "id": number, "partition": None}
        await _by_slices(conn, "forget_ended", at)
        if not subscription:
            return await catalog.set_cursors(conn, tenant_id, queue_id, number, _start_of(mode, since, created_at))
        gone = await _by_slices(conn, "drop_consumers", at)
        await database.rows(conn, SQL["drop_group"], at)
        return gone

    try:
        return await _while_locked(tenant_id, group, queue, work)
    except (UnknownGroup, UnknownQueue):  # deleted meanwhile
        return None


def _start_of(mode: str, since: datetime | None, created_at: datetime) -> GroupSubscription:
    """The subscription with which a group reads again. A group in mode `new` starts at the time at which it joined."""
    if mode == Group.Mode.NEW:
        return GroupSubscription(Group.Mode.TIMESTAMP, created_at)
    return GroupSubscription(mode, since)


async def subscribe(tenant_id: int, group: str, since: datetime) -> int:
    """Set the time from which the group wants messages, in all its queues; returns their number. Raises UnknownGroup (404).

    The cursors stay where they are: `seek` moves them, or a `delete` that keeps the subscription.
    """
    rows = await database.fetch(SQL["subscribe"], {"tenant": tenant_id, "group": group, "since": since})
    if not rows:
        raise UnknownGroup
    return len(rows)


async def seek(tenant_id: int, group: str, queue: str, *, since: datetime | None, partition: str | None = None) -> int:
    """Move the cursors before the first message from `since` on, or to the end (None), and end the leases.

    Returns the number of partitions, 0 where none has that name. Raises UnknownQueue, UnknownGroup (404).
    """
    wanted = GroupSubscription(Group.Mode.TIMESTAMP, since) if since else GroupSubscription(Group.Mode.NEW)

    async def work(conn: AsyncConnection, queue_id: int, row: Sequence[Any]) -> int:
        at = {"tenant": tenant_id, "queue": queue_id, "id": row[0], "partition": partition}
        await _by_slices(conn, "forget_ended", at)
        return await catalog.set_cursors(conn, tenant_id, queue_id, row[0], wanted, partition=partition)

    return await _while_locked(tenant_id, group, queue, work)


async def _by_slices(conn: AsyncConnection, statement: str, at: dict[str, Any]) -> int:
    """Run a statement over a queue's partitions in slices, each within the statement time-out; returns the number of rows."""
    rows = await database.rows(conn, SQL["partitions"], at)
    count = 0
    for some in batched([number for (number,) in rows], catalog.SLICE):
        count += len(await database.rows(conn, SQL[statement], {**at, "partitions": list(some)}))
    return count


async def _while_locked(tenant_id: int, group: str, queue: str, work: Any) -> int:
    """Run `work` in a transaction that locks the queue and the group: no partition is created and no group joins meanwhile."""

    async def once() -> tuple[int, int]:
        async with database.transaction() as conn:
            locked = await database.rows(conn, catalog.SQL["lock_queue"], {"tenant": tenant_id, "name": queue})
            if not locked:
                raise UnknownQueue
            at = {"tenant": tenant_id, "queue": locked[0][0], "group": group}
            rows = await database.rows(conn, SQL["lock_group"], at)
            if not rows:
                raise UnknownGroup
            return locked[0][0], await work(conn, locked[0][0], rows[0])

    queue_id, count = await database.retrying(once)
    if known := await catalog.find(tenant_id, queue):
        catalog.forget_group(tenant_id, known, group)
    long_polls.wake(queue_id, count)
    return count
