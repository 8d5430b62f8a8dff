"""Which queues, partitions and groups there are: found by name, made on demand, remembered for a moment per process."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import batched
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
from psycopg import AsyncConnection

from queueing.broker.models import QUEUE_MODE, Group
from registry.data import database, reach
from registry.data.batching import Batcher, Family
from registry.data.cache import NEVER, Bounded, Cached
from registry.data.loop import PerLoop

SQL = database.statements(Path(__file__).parent / "sql" / "broker.sql")

FRESH = 1.0  # seconds that a queue's settings are used without asking; a push that leans on older ones is sent back
RENEWED = 0.8  # seconds after which they are asked for again, before anybody has to wait for that
NEW_AT_ONCE = 1_000  # partitions made in one transaction, while which nobody joins or drops the queue
SLICE = 1_000  # partitions per statement where a group moves in all of a queue
REMEMBERED = 50_000  # partitions and groups; beyond that the oldest are forgotten


class Queue(msgspec.Struct, frozen=True):
    """What this process needs to know of a queue; what pops and acks need, their statements read themselves."""

    id: int
    name: str
    namespace: str
    task: str
    priority: int
    encrypted: bool
    max_size: int
    window_seconds: int


class Place(msgspec.Struct, frozen=True):
    """What a partition is called."""

    partition: str
    queue_id: int
    queue: str


class Subscription(msgspec.Struct, frozen=True):
    """Where a group that is not known yet begins to read."""

    mode: str = Group.Mode.ALL
    since: datetime | None = None


_partitions: Bounded[tuple[int, int, str], int] = Bounded(REMEMBERED)
_places: Bounded[tuple[int, int], Place] = Bounded(REMEMBERED)
_groups: Bounded[tuple[int, int, str], int] = Bounded(REMEMBERED)

_locks: PerLoop[WeakValueDictionary[tuple, asyncio.Lock]] = PerLoop(WeakValueDictionary)


def _one_at_a_time(*key: object) -> asyncio.Lock:
    """Who looks for something new first looks for all: fifty readers of a new group would otherwise wait for each other's
    locks in the database."""
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
    """The queue of that name, at most FRESH seconds old; None where there is none."""
    try:
        return await _queues.get((tenant_id, name), since=time.monotonic() if fresh else NEVER)
    except LookupError:
        return None


async def find_or_make(tenant_id: int, name: str, *, fresh: bool = False) -> Queue:
    """The queue of that name, made with every option at its default where there was none."""
    queue = await find(tenant_id, name, fresh=fresh)
    if queue is None:
        params = {"tenant": tenant_id, "name": name}
        await reach.attempt(lambda: database.fetch(SQL["add_queue"], params), patient=True)
        queue = await find(tenant_id, name, fresh=True)
    if queue is None:  # dropped again in this very moment: the caller's next try makes it anew
        raise LookupError(name)
    return queue


async def about(tenant_id: int, namespace: str, task: str) -> list[Queue]:
    """The tenant's queues of a namespace, of a task, or of both; "" means any."""
    params = {"tenant": tenant_id, "namespace": namespace, "task": task}
    return [Queue(*row) for row in await database.fetch(SQL["queues_about"], params)]


def last_known(tenant_id: int, name: str) -> Queue | None:
    """What this process knew last of a queue, however long ago."""
    return _queues.peek((tenant_id, name))


def forget_queue(tenant_id: int, name: str) -> None:
    _queues.forget((tenant_id, name))


# -- Partitions ------------------------------------------------------------------------------------------


async def partitions(tenant_id: int, queue: Queue, names: Iterable[str], *, fresh: bool = False) -> dict[str, int]:
    """The numbers of these partitions, made where there were none."""
    wanted = set(names)
    found = {} if fresh else {n: p for n in wanted if (p := _partitions.get((tenant_id, queue.id, n))) is not None}
    if len(found) == len(wanted):
        return found
    missing = wanted - found.keys()
    there = await _makers.get().of(queue.id).submit(_Wanted(tenant_id, queue, missing))
    return found | {name: there[name] for name in missing if name in there}


async def find_partitions(tenant_id: int, queue: Queue, names: Sequence[str]) -> dict[str, int]:
    """Those of these partitions that there are."""
    params = {"tenant": tenant_id, "queue": queue.id, "names": list(names)}
    rows = await reach.attempt(lambda: database.fetch(SQL["find_partitions"], params), writes=False, patient=True)
    there: dict[str, int] = dict(rows)  # type: ignore[arg-type]
    for name, number in there.items():
        _partitions.put((tenant_id, queue.id, name), number)
        _places.put((tenant_id, number), Place(name, queue.id, queue.name))
    return there


async def find_partition(tenant_id: int, queue: Queue, name: str) -> int | None:
    known = _partitions.get((tenant_id, queue.id, name))
    return known if known is not None else (await find_partitions(tenant_id, queue, [name])).get(name)


class _Wanted(msgspec.Struct, frozen=True):
    """Partitions that this process does not know yet."""

    tenant_id: int
    queue: Queue
    names: set[str]


async def _find_or_make(requests: Sequence[_Wanted]) -> list[dict[str, int]]:
    """All that pushes of one moment want of one queue, in one transaction: one by one they would wait for its row."""
    tenant_id, queue = requests[0].tenant_id, requests[0].queue
    missing = sorted(set().union(*(request.names for request in requests)))
    there = await find_partitions(tenant_id, queue, missing)
    if new := [name for name in missing if name not in there]:
        await _make_partitions(tenant_id, queue, new)
        there |= await find_partitions(tenant_id, queue, new)
    return [there] * len(requests)


def _maker() -> Batcher[_Wanted, dict[str, int]]:
    return Batcher(_find_or_make, max_rows=NEW_AT_ONCE, in_flight=1, weigh=lambda one: len(one.names))


_makers: PerLoop[Family[_Wanted, dict[str, int]]] = PerLoop(lambda: Family(_maker), close=Family.finish)


async def _make_partitions(tenant_id: int, queue: Queue, names: list[str]) -> None:
    async def make() -> None:
        # The queue's row is held, so that a group which joins now finds the partition or the partition finds the group.
        async with database.transaction() as conn:
            held = await database.rows(conn, SQL["hold_queue"], {"tenant": tenant_id, "name": queue.name})
            if held and held[0][0] == queue.id:
                await database.rows(
                    conn, SQL["add_partitions"], {"tenant": tenant_id, "queue": queue.id, "names": names}
                )

    await reach.attempt(lambda: database.retrying(make), patient=True)


def forget_partition(tenant_id: int, queue: Queue, name: str) -> None:
    _partitions.drop((tenant_id, queue.id, name))


async def places(tenant_id: int, numbers: Iterable[int]) -> dict[int, Place]:
    """What these partitions and their queues are called; those of other tenants are left out."""
    wanted = set(numbers)
    found = {n: place for n in wanted if (place := _places.get((tenant_id, n)))}
    if missing := sorted(wanted - found.keys()):
        params = {"tenant": tenant_id, "partitions": missing}
        for number, name, queue_id, queue in await database.fetch(SQL["name_partitions"], params):
            found[number] = Place(name, queue_id, queue)
            _places.put((tenant_id, number), found[number])
    return found


def known_place(tenant_id: int, number: int) -> Place | None:
    """What this process remembers of a partition."""
    return _places.get((tenant_id, number))


# -- Groups ----------------------------------------------------------------------------------------------


async def group(tenant_id: int, queue: Queue, name: str, wanted: Subscription) -> int:
    """The group of that name; one that is new begins to read where `wanted` says, later wishes change nothing."""
    known = _groups.get((tenant_id, queue.id, name))
    if known is not None:
        return known
    async with _one_at_a_time(tenant_id, queue.id, "group", name):
        known = _groups.get((tenant_id, queue.id, name))
        if known is not None:
            return known
        params = {"tenant": tenant_id, "queue": queue.id, "name": name}
        rows = await database.fetch(SQL["find_group"], params)
        number = rows[0][0] if rows else await _join(tenant_id, queue, name, wanted)
        _groups.put((tenant_id, queue.id, name), number)
    return number


async def _join(tenant_id: int, queue: Queue, name: str, wanted: Subscription) -> int:
    if name == QUEUE_MODE:
        wanted = Subscription()
    params = {"tenant": tenant_id, "queue": queue.id, "name": name, "mode": wanted.mode, "from": wanted.since}

    async def join() -> int:
        async with database.transaction() as conn:
            held = await database.rows(conn, SQL["hold_queue"], {"tenant": tenant_id, "name": queue.name})
            if not held or held[0][0] != queue.id:
                raise LookupError(queue.name)
            made = await database.rows(conn, SQL["add_group"], params)
            if not made:
                return (await database.rows(conn, SQL["find_group"], params))[0][0]
            await seat(conn, tenant_id, queue.id, made[0][0], wanted)
            return made[0][0]

    return await database.retrying(join)


async def seat(
    conn: AsyncConnection,
    tenant_id: int,
    queue_id: int,
    group_id: int,
    wanted: Subscription,
    partition: str | None = None,
) -> int:
    """Put a group where `wanted` says in every partition of its queue, or in one; its leases end. In how many."""
    at = {"tenant": tenant_id, "queue": queue_id, "partition": partition}
    held = [number for (number,) in await database.rows(conn, SQL["hold_partitions"], at)]
    seat = {**at, "group": group_id, "mode": wanted.mode, "from": wanted.since}
    for some in batched(held, SLICE):  # each within the statement time-out, all in one transaction
        await database.rows(conn, SQL["seat_group"], {**seat, "partitions": list(some)})
    return len(held)


def forget_group(tenant_id: int, queue: Queue, name: str) -> None:
    _groups.drop((tenant_id, queue.id, name))
