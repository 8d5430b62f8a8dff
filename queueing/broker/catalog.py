"""Catalog of queues, partitions and consumer groups: found by name, created on demand, cached in each process."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import batched
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
from psycopg import AsyncConnection

from queueing.models.broker import QUEUE_MODE, Group
from registry.data import database, db_breaker
from registry.data.batching import Batcher, Family
from registry.data.cache import NEVER, Bounded, Cached
from registry.data.loop import PerLoop

SQL = database.statements(Path(__file__).parent / "sql" / "broker.sql")

FRESH = (
    1.0  # seconds that a queue's cached settings are used; `queueing_push` rejects a push that relied on outdated ones
)
RENEWED = 0.8  # seconds after which they are loaded again in the background, so that no caller waits
NEW_AT_ONCE = 1_000  # partitions created in one transaction; meanwhile no group can join and nobody can drop the queue
SLICE = 1_000  # partitions per statement where a group's cursors move in a whole queue
REMEMBERED = 50_000  # cached queues, partitions and groups; beyond that the oldest are evicted


class Queue(msgspec.Struct, frozen=True):
    """The settings of a queue that a push needs. The statements of pops and acks read theirs from the row."""

    id: int
    name: str
    namespace: str
    task: str
    priority: int
    encrypted: bool
    max_size: int
    window_seconds: int


class PartitionNames(msgspec.Struct, frozen=True):
    """Names of a partition and its queue."""

    partition: str
    queue_id: int
    queue: str


class Subscription(msgspec.Struct, frozen=True):
    """Where a new group starts to read: all messages, new ones only, or those from a time on."""

    mode: str = Group.Mode.ALL
    since: datetime | None = None


_partitions: Bounded[tuple[int, int, str], int] = Bounded(REMEMBERED)
_names: Bounded[tuple[int, int], PartitionNames] = Bounded(REMEMBERED)
_groups: Bounded[tuple[int, int, str], int] = Bounded(REMEMBERED)

_locks: PerLoop[WeakValueDictionary[tuple, asyncio.Lock]] = PerLoop(WeakValueDictionary)


def _one_at_a_time(*key: object) -> asyncio.Lock:
    """A lock under which one caller looks an unknown group up for all: fifty readers of a new group would otherwise wait for each
    other's row locks in the database."""
    locks = _locks.get()
    lock = locks.get(key)
    if lock is None:
        lock = locks[key] = asyncio.Lock()
    return lock


# -- Queues ----------------------------------------------------------------------------------------------


async def _load_queue(key: tuple[int, str]) -> Queue:
    rows = await database.fetch(SQL["find_queue"], {"tenant": key[0], "name": key[1]})
    if not rows:
        raise LookupError(key[1])
    return Queue(*rows[0])


_queues = Cached(_load_queue, fresh=RENEWED, stale=FRESH, kept=REMEMBERED)


async def find(tenant_id: int, name: str, *, fresh: bool = False) -> Queue | None:
    """The queue with this name, cached for at most FRESH seconds; None where there is none."""
    try:
        return await _queues.get((tenant_id, name), since=time.monotonic() if fresh else NEVER)
    except LookupError:
        return None


async def find_or_create(tenant_id: int, name: str, *, fresh: bool = False) -> Queue:
    """The queue with this name, created with default options where there is none. Raises LookupError if it is dropped meanwhile."""
    queue = await find(tenant_id, name, fresh=fresh)
    if queue is None:
        params = {"tenant": tenant_id, "name": name}
        await db_breaker.attempt(lambda: database.fetch(SQL["add_queue"], params), patient=True)
        queue = await find(tenant_id, name, fresh=True)
    if queue is None:  # dropped again at this moment: the caller's next try creates it
        raise LookupError(name)
    return queue


async def matching(tenant_id: int, namespace: str, task: str) -> list[Queue]:
    """The tenant's queues with this namespace and task; "" means any."""
    params = {"tenant": tenant_id, "namespace": namespace, "task": task}
    return [Queue(*row) for row in await database.fetch(SQL["queues_about"], params)]


def last_known(tenant_id: int, name: str) -> Queue | None:
    """The cached queue, however old; None where none is cached."""
    return _queues.peek((tenant_id, name))


def forget_queue(tenant_id: int, name: str) -> None:
    _queues.forget((tenant_id, name))


# -- Partitions ------------------------------------------------------------------------------------------


async def partitions(tenant_id: int, queue: Queue, names: Iterable[str], *, fresh: bool = False) -> dict[str, int]:
    """The numbers of these partitions, by name. Missing ones are created; one is left out only where its queue is being dropped."""
    wanted = set(names)
    found = {} if fresh else {n: p for n in wanted if (p := _partitions.get((tenant_id, queue.id, n))) is not None}
    if len(found) == len(wanted):
        return found
    missing = wanted - found.keys()
    there = await _makers.get().of(queue.id).submit(_Unknown(tenant_id, queue, missing))
    return found | {name: there[name] for name in missing if name in there}


async def find_partitions(tenant_id: int, queue: Queue, names: Sequence[str]) -> dict[str, int]:
    """The numbers of those of these partitions that exist, by name."""
    params = {"tenant": tenant_id, "queue": queue.id, "names": list(names)}
    rows = await db_breaker.attempt(lambda: database.fetch(SQL["find_partitions"], params), writes=False, patient=True)
    there: dict[str, int] = dict(rows)  # type: ignore[arg-type]
    for name, number in there.items():
        _partitions.put((tenant_id, queue.id, name), number)
        _names.put((tenant_id, number), PartitionNames(name, queue.id, queue.name))
    return there


async def find_partition(tenant_id: int, queue: Queue, name: str) -> int | None:
    known = _partitions.get((tenant_id, queue.id, name))
    return known if known is not None else (await find_partitions(tenant_id, queue, [name])).get(name)


class _Unknown(msgspec.Struct, frozen=True):
    """Partitions of one request that are not cached."""

    tenant_id: int
    queue: Queue
    names: set[str]


async def _find_or_create(requests: Sequence[_Unknown]) -> list[dict[str, int]]:
    """Create a queue's missing partitions for many requests in one transaction: one by one they would wait for the queue's row lock."""
    tenant_id, queue = requests[0].tenant_id, requests[0].queue
    missing = sorted(set().union(*(request.names for request in requests)))
    there = await find_partitions(tenant_id, queue, missing)
    if new := [name for name in missing if name not in there]:
        await _create_partitions(tenant_id, queue, new)
        there |= await find_partitions(tenant_id, queue, new)
    return [there] * len(requests)


def _maker() -> Batcher[_Unknown, dict[str, int]]:
    return Batcher(_find_or_create, max_rows=NEW_AT_ONCE, in_flight=1, weigh=lambda one: len(one.names))


_makers: PerLoop[Family[_Unknown, dict[str, int]]] = PerLoop(lambda: Family(_maker), close=Family.finish)


async def _create_partitions(tenant_id: int, queue: Queue, names: list[str]) -> None:
    async def create() -> None:
        # The queue's row is locked, so that a group that joins now sees the partition, or this transaction sees the group.
        async with database.transaction() as conn:
            locked = await database.rows(conn, SQL["lock_queue"], {"tenant": tenant_id, "name": queue.name})
            if locked and locked[0][0] == queue.id:
                await database.rows(
                    conn, SQL["add_partitions"], {"tenant": tenant_id, "queue": queue.id, "names": names}
                )

    await db_breaker.attempt(lambda: database.retrying(create), patient=True)


def forget_partition(tenant_id: int, queue: Queue, name: str) -> None:
    _partitions.drop((tenant_id, queue.id, name))


async def names_of(tenant_id: int, numbers: Iterable[int]) -> dict[int, PartitionNames]:
    """The names of these partitions and their queues, by number; those of other tenants are left out."""
    wanted = set(numbers)
    found = {n: known for n in wanted if (known := _names.get((tenant_id, n)))}
    if missing := sorted(wanted - found.keys()):
        params = {"tenant": tenant_id, "partitions": missing}
        for number, name, queue_id, queue in await database.fetch(SQL["name_partitions"], params):
            found[number] = PartitionNames(name, queue_id, queue)
            _names.put((tenant_id, number), found[number])
    return found


def known_names(tenant_id: int, number: int) -> PartitionNames | None:
    """The cached names of a partition."""
    return _names.get((tenant_id, number))


# -- Groups ----------------------------------------------------------------------------------------------


async def group(tenant_id: int, queue: Queue, name: str, start: Subscription) -> int:
    """The number of the group with this name. A new group starts at `start`; for an existing one `start` is ignored."""
    known = _groups.get((tenant_id, queue.id, name))
    if known is not None:
        return known
    async with _one_at_a_time(tenant_id, queue.id, "group", name):
        known = _groups.get((tenant_id, queue.id, name))
        if known is not None:
            return known
        params = {"tenant": tenant_id, "queue": queue.id, "name": name}
        rows = await database.fetch(SQL["find_group"], params)
        number = rows[0][0] if rows else await _join(tenant_id, queue, name, start)
        _groups.put((tenant_id, queue.id, name), number)
    return number


async def _join(tenant_id: int, queue: Queue, name: str, start: Subscription) -> int:
    if name == QUEUE_MODE:
        start = Subscription()
    params = {"tenant": tenant_id, "queue": queue.id, "name": name, "mode": start.mode, "from": start.since}

    async def join() -> int:
        async with database.transaction() as conn:
            locked = await database.rows(conn, SQL["lock_queue"], {"tenant": tenant_id, "name": queue.name})
            if not locked or locked[0][0] != queue.id:
                raise LookupError(queue.name)
            made = await database.rows(conn, SQL["add_group"], params)
            if not made:
                return (await database.rows(conn, SQL["find_group"], params))[0][0]
            await set_cursors(conn, tenant_id, queue.id, made[0][0], start)
            return made[0][0]

    return await database.retrying(join)


async def set_cursors(
    conn: AsyncConnection,
    tenant_id: int,
    queue_id: int,
    group_id: int,
    start: Subscription,
    partition: str | None = None,
) -> int:
    """Move a group's cursors to `start` in all partitions of its queue, or in one, and end its leases; returns the number of partitions."""
    at = {"tenant": tenant_id, "queue": queue_id, "partition": partition}
    numbers = [number for (number,) in await database.rows(conn, SQL["lock_partitions"], at)]
    params = {**at, "group": group_id, "mode": start.mode, "from": start.since}
    for some in batched(numbers, SLICE):  # each within the statement time-out, all in one transaction
        await database.rows(conn, SQL["set_cursors"], {**params, "partitions": list(some)})
    return len(numbers)


def forget_group(tenant_id: int, queue: Queue, name: str) -> None:
    _groups.drop((tenant_id, queue.id, name))
