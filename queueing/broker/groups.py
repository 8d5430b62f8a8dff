"""Consumer groups as their owner sees and moves them: lag, deletion, subscription, seek. How one joins is directory.py's."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import batched
from pathlib import Path
from typing import Any

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, long_polls
from queueing.broker.catalog import Subscription
from queueing.broker.errors import UnknownGroup, UnknownQueue
from queueing.broker.models import Group
from queueing.broker.names import partition_name
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "groups.sql")

LAGGING = timedelta(minutes=5)  # that the oldest message waits; a group that nobody reads for meanwhile is dead


class Standing(msgspec.Struct, frozen=True, rename="camel"):
    """How a group stands in one queue (queue contract section 1.4). Lag in messages and in seconds."""

    name: str
    topics: list[str]
    queue_name: str
    members: int  # leases that are alive
    partitions_with_lag: int
    total_lag: int
    max_time_lag: float
    state: str
    subscription_mode: str
    subscription_timestamp: datetime | None
    subscription_created_at: datetime


class Place(msgspec.Struct, frozen=True, rename="camel"):
    """How far a group has read a partition."""

    partition: str
    partition_id: str
    worker_id: str | None  # the lease that is alive
    last_consumed_at: datetime | None
    total_consumed: int
    offset_lag: int
    time_lag_seconds: float
    lease_active: bool


# -- Looking -------------------------------------------------------------------------------------------------


async def standings(tenant_id: int, *, least_lag: float = 0) -> list[Standing]:
    """Every group in every queue, whose oldest message has waited for `least_lag` seconds at least."""
    rows = await database.fetch(SQL["groups"], {"tenant": tenant_id})
    found = [_standing(*row) for row in rows]
    return [one for one in found if one.max_time_lag >= least_lag]


def _standing(
    group: str, queue: str, mode: str, since: datetime | None, created_at: datetime, members: int, partitions: int,
    lag: int, seconds: float, consumed_at: datetime | None,
) -> Standing:  # fmt: skip
    slow = seconds > LAGGING.total_seconds()
    seen = members or (consumed_at and datetime.now(UTC) - consumed_at < LAGGING)
    return Standing(
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


async def places(tenant_id: int, group: str, *, limit: int, offset: int = 0) -> dict[str, list[Place]]:
    """How far it has read, partition by partition of each queue. Raises UnknownGroup (404)."""
    found: dict[str, list[Place]] = {queue: [] for queue in await _queues(tenant_id, group)}
    params = {"tenant": tenant_id, "group": group, "limit": limit, "offset": offset}
    for queue, name, number, lease, consumed_at, consumed, lag, seconds in await database.fetch(
        SQL["group_partitions"], params
    ):
        found.setdefault(queue, []).append(
            Place(
                partition=name,
                partition_id=partition_name(tenant_id, number),
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


# -- Moving --------------------------------------------------------------------------------------------------


async def delete(tenant_id: int, group: str, *, queue: str | None = None, subscription: bool = True) -> dict[str, int]:
    """Forget how far it has read and end its leases: partitions forgotten by queue, empty where there was no such group.

    Without `subscription` the group stays, and reads again from where it had begun.
    """
    try:
        queues = await _queues(tenant_id, group, queue)
    except UnknownGroup:
        return {}
    forgotten = {}
    for name in queues:
        count = await _delete_in(tenant_id, group, name, subscription)
        if count is not None:
            forgotten[name] = count
    return forgotten


async def _delete_in(tenant_id: int, group: str, queue: str, subscription: bool) -> int | None:
    async def work(conn: AsyncConnection, queue_id: int, row: Sequence[Any]) -> int:
        number, mode, since, created_at = row
        at = {"tenant": tenant_id, "queue": queue_id, "id": number, "partition": None}
        await _sliced(conn, "forget_ended", at)
        if not subscription:
            return await catalog.seat(conn, tenant_id, queue_id, number, _beginning(mode, since, created_at))
        gone = await _sliced(conn, "drop_consumers", at)
        await database.rows(conn, SQL["drop_group"], at)
        return gone

    try:
        return await _held(tenant_id, group, queue, work)
    except (UnknownGroup, UnknownQueue):  # deleted by somebody else meanwhile
        return None


def _beginning(mode: str, since: datetime | None, created_at: datetime) -> Subscription:
    """Who wanted only what was new wants what has come since he joined."""
    if mode == Group.Mode.NEW:
        return Subscription(Group.Mode.TIMESTAMP, created_at)
    return Subscription(mode, since)


async def subscribe(tenant_id: int, group: str, since: datetime) -> int:
    """Note from when on the group wants messages, in all its queues; how many. Raises UnknownGroup (404).

    It does not move: that is what seek is for, or a delete that keeps the subscription.
    """
    rows = await database.fetch(SQL["subscribe"], {"tenant": tenant_id, "group": group, "since": since})
    if not rows:
        raise UnknownGroup
    return len(rows)


async def seek(tenant_id: int, group: str, queue: str, *, since: datetime | None, partition: str | None = None) -> int:
    """Put the group before the first message from `since` on, or at the end; its leases end. How many partitions.

    Raises UnknownQueue, UnknownGroup (404). No partition of that name is 0.
    """
    wanted = Subscription(Group.Mode.TIMESTAMP, since) if since else Subscription(Group.Mode.NEW)

    async def work(conn: AsyncConnection, queue_id: int, row: Sequence[Any]) -> int:
        at = {"tenant": tenant_id, "queue": queue_id, "id": row[0], "partition": partition}
        await _sliced(conn, "forget_ended", at)
        return await catalog.seat(conn, tenant_id, queue_id, row[0], wanted, partition=partition)

    return await _held(tenant_id, group, queue, work)


async def _sliced(conn: AsyncConnection, statement: str, at: dict[str, Any]) -> int:
    """A statement over a queue's partitions, some at a time: each is within the statement time-out. How many rows."""
    rows = await database.rows(conn, SQL["partitions"], at)
    count = 0
    for some in batched([number for (number,) in rows], catalog.SLICE):
        count += len(await database.rows(conn, SQL[statement], {**at, "partitions": list(some)}))
    return count


async def _held(tenant_id: int, group: str, queue: str, work: Any) -> int:
    """`work` in a transaction that holds the queue and the group: no partition is made meanwhile, nobody joins."""

    async def once() -> tuple[int, int]:
        async with database.transaction() as conn:
            held = await database.rows(conn, catalog.SQL["hold_queue"], {"tenant": tenant_id, "name": queue})
            if not held:
                raise UnknownQueue
            at = {"tenant": tenant_id, "queue": held[0][0], "group": group}
            rows = await database.rows(conn, SQL["hold_group"], at)
            if not rows:
                raise UnknownGroup
            return held[0][0], await work(conn, held[0][0], rows[0])

    queue_id, count = await database.retrying(once)
    if known := await catalog.find(tenant_id, queue):
        catalog.forget_group(tenant_id, known, group)
    long_polls.wake(queue_id, count)
    return count
