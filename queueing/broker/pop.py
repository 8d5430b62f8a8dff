"""The way out: partitions leased to a group, the longest waiting first; many requests, one statement."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker import catalog, crypto, leases, long_polls, maintenance, traffic
from queueing.broker.catalog import SQL, Queue, Subscription
from queueing.broker.models import QUEUE_MODE
from queueing.broker.names import new_id, partition_name
from registry.data import database
from registry.data.batching import Batcher, Family
from registry.data.cache import Cached
from registry.data.loop import PerLoop, Tasks

MAX_SLOTS = 200  # partitions per statement
ROUNDS = 5  # of claims that came up empty because what they found had expired, slept or was buried
DUE_FRESH = 0.25  # seconds that a group's next due time is used without asking
LONG_AGO = float("-inf")
MISSED = 0.2  # seconds between a look and the question for the next due time in which something may have become due
LOOK_AGAIN = 0.1  # seconds before it is looked for: to who reads one partition only it may be another's


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look for messages: a queue, one of its partitions, or all queues of a namespace or task."""

    queue: str = ""
    partition: str = ""
    namespace: str = ""
    task: str = ""
    group: str = QUEUE_MODE
    subscription: Subscription = Subscription()


class Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message as its reader gets it (queue contract section 1.1)."""

    id: UUID
    transaction_id: str
    trace_id: UUID | None
    data: msgspec.Raw
    producer_sub: str | None
    created_at: datetime
    partition_id: str
    partition: str
    lease_id: str
    consumer_group: str
    queue: str


class Popped(msgspec.Struct, frozen=True):
    """What one request got. No messages: nothing is due."""

    lease_id: UUID | None
    partitions: int = 0
    messages: list[Message] = []


class _Lane(msgspec.Struct, frozen=True):
    """A group of a queue to look at, or one partition of it."""

    tenant_id: int
    group_id: int
    queue: Queue
    partition: int | None = None
    priority: int = 0


class _Claim(msgspec.Struct, frozen=True):
    """A request for messages: its lanes, at most `partitions` of them, `size` messages in all."""

    lanes: tuple[_Lane, ...]
    size: int
    partitions: int
    lease: UUID | None  # none: what is handed out is done


async def pop(
    tenant_id: int, target: Target, *, size: int = 1, partitions: int = 1, auto_ack: bool = False, wait: float = 0
) -> Popped:
    """Lease up to `partitions` partitions with up to `size` messages in all; wait for them for so many seconds.

    Raises Unavailable (503). Cancelling gives back what was leased meanwhile.
    """
    deadline = time.monotonic() + wait
    lease = None if auto_ack else new_id()
    news_at = 0.0  # what was known before of when something is due is out of date
    looked_twice = False
    while True:
        if (await maintenance.modes(tenant_id)).pop:
            return Popped(lease)
        lanes, places = await _lanes(tenant_id, target, make=wait > 0 or target.group != QUEUE_MODE)
        claim = _Claim(lanes, size, partitions, lease)
        looked_at = time.monotonic()
        with long_polls.lot().park(places, picky=bool(target.partition)) as spot:
            if lanes and (found := await _look(claim, target)):
                return found
            if (left := deadline - time.monotonic()) > 0:
                due, there = await _next_due(lanes, news_at) if lanes else (long_polls.RECHECK, 0)
                if there < len(lanes):
                    _forget(tenant_id, target, lanes)
                    continue
                if time.monotonic() - looked_at > MISSED and not looked_twice:  # on a busy machine
                    looked_twice = True
                    continue
                looked_twice = False
                if await spot.wait(min(left, long_polls.RECHECK, due)):
                    news_at = time.monotonic()
        if left <= 0 and (not lanes or await _still_there(tenant_id, target, lanes)):
            break
    for lane in lanes:
        traffic.count(tenant_id, lane.queue.id, pop_requests=1, empty_pops=1)
    return Popped(lease)


async def _lanes(tenant_id: int, target: Target, *, make: bool) -> tuple[tuple[_Lane, ...], list[tuple[int, int]]]:
    """The groups to look at, and the (queue, group) pairs to wait for.

    `make`: a queue that nobody pushed to yet is made, so that who subscribes before the first push gets it.
    """
    if not target.queue:
        queues = await catalog.about(tenant_id, target.namespace, target.task)
    elif make:
        queues = [await catalog.find_or_make(tenant_id, target.queue)]
    else:
        queue = await catalog.find(tenant_id, target.queue)
        queues = [queue] if queue else []
    lanes, places = [], []
    for queue in queues:
        try:
            group = await catalog.group(tenant_id, queue, target.group, target.subscription)
        except LookupError:
            continue  # dropped meanwhile
        places.append((queue.id, group))
        partition = None
        if target.partition:
            partition = await catalog.find_partition(tenant_id, queue, target.partition)
            if partition is None:
                continue
        lanes.append(_Lane(tenant_id, group, queue, partition, queue.priority))
    return tuple(lanes), places


async def _still_there(tenant_id: int, target: Target, lanes: Sequence[_Lane]) -> bool:
    """Whether the groups that were asked still exist; those that were dropped are forgotten, and asked for anew."""
    groups = [lane.group_id for lane in lanes]
    rows = await database.fetch(SQL["groups_there"], {"tenant": tenant_id, "groups": groups})
    if rows[0][0] == len(groups):
        return True
    _forget(tenant_id, target, lanes)
    return False


def _forget(tenant_id: int, target: Target, lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        catalog.forget_group(tenant_id, lane.queue, target.group)
        catalog.forget_queue(tenant_id, lane.queue.name)
        if target.partition:
            catalog.forget_partition(tenant_id, lane.queue, target.partition)


async def _look(claim: _Claim, target: Target) -> Popped | None:
    """What is due now. What turns out to be none (expired, not visible yet, out of tries) is put right, and looked again."""
    for _ in range(ROUNDS):
        rows = await _claimed(claim)
        if not rows:
            return None
        try:
            if found := await _sort_out(claim, target, rows):
                return found
        except asyncio.CancelledError:
            _give_back_soon(claim, rows)
            raise
        except Exception:  # such as a payload that cannot be decrypted: not its readers' fault, no try is counted
            await _give_back(claim, rows)
            raise
    return None


async def _sort_out(claim: _Claim, target: Target, rows: "list[Row]") -> Popped | None:
    if dead := [row for row in rows if row.kills and row.seq is not None]:
        await leases.killers(dead, claim.lease)
    empty = [row for row in rows if row.seq is None or row.kills or claim.lease is None]
    if empty:
        await rest([(row.tenant_id, row.partition_id, row.group_id) for row in empty])
    messages = await _deciphered(claim, [row for row in rows if row.seq is not None and not row.kills])
    return _popped(claim, target, messages) if messages else None


async def _deciphered(claim: _Claim, rows: "list[Row]") -> "list[Row]":
    """Rows in the clear. Raises Undecipherable when none can be read; one that cannot does not keep others from theirs."""
    queues = {lane.queue.id: lane.queue.name for lane in claim.lanes}
    plain: list[Row] = []
    bad: list[tuple[Row, crypto.Undecipherable]] = []
    for row in rows:
        if row.key_id is not None:
            place = (row.tenant_id, queues[row.queue_id], row.partition, row.transaction_id)
            try:
                payload = crypto.decrypt(row.payload, key_id=row.key_id, place=place)
            except crypto.Undecipherable as error:
                bad.append((row, error))
                continue
            row = msgspec.structs.replace(row, payload=payload, key_id=None)
        plain.append(row)
    if not bad:
        return plain
    await leases.set_aside([(row, error.detail) for row, error in bad], claim.lease)
    if claim.lease:  # order is kept: nothing of such a partition passes
        held = {row.partition_id for row, _ in bad}
        plain = [row for row in plain if row.partition_id not in held]
    if not plain:
        raise bad[0][1]
    return plain


async def _claimed(claim: _Claim) -> "list[Row]":
    future = _batchers.get().of(claim.lanes[0].tenant_id).submit(claim)
    try:
        found = await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(partial(_nobody_came, claim))
        raise
    if isinstance(found, Exception):
        raise found
    return found


def _nobody_came(claim: _Claim, future: "asyncio.Future[list[Row] | Exception]") -> None:
    """The client hung up before its answer."""
    if not future.cancelled() and not future.exception() and isinstance(rows := future.result(), list):
        _give_back_soon(claim, rows)


def _give_back_soon(claim: _Claim, rows: "list[Row]") -> None:
    _returning.get().start(_give_back(claim, rows))


async def _give_back(claim: _Claim, rows: "list[Row]") -> None:
    if claim.lease and rows:
        await leases.give_back(rows[0].tenant_id, claim.lease)
        for queue_id in {row.queue_id for row in rows}:
            long_polls.wake(queue_id)


_returning: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


async def rest(consumers: Sequence[tuple[int, int, int]]) -> None:
    """Decide when these consumers, by tenant, partition and group, have something to read next."""
    unique = sorted(set(consumers))
    params = {
        "tenants": [t for t, _, _ in unique],
        "partitions": [p for _, p, _ in unique],
        "groups": [g for _, _, g in unique],
    }
    await database.fetch(SQL["rest"], params)


# -- Answers -----------------------------------------------------------------------------------------------


class Row(msgspec.Struct, frozen=True):
    """A message that was leased; `seq` is None for a partition that had nothing to read."""

    request: int
    tenant_id: int
    queue_id: int
    group_id: int
    partition_id: int
    partition: str
    kills: bool  # out of tries: the leases of who read it alone lapsed
    tries: int
    seq: int | None
    id: UUID
    transaction_id: str
    trace_id: UUID | None
    payload: bytes
    key_id: str | None
    producer: str | None
    created_at: datetime


def _popped(claim: _Claim, target: Target, rows: "list[Row]") -> Popped:
    queues = {lane.queue.id: lane.queue.name for lane in claim.lanes}
    lease = str(claim.lease) if claim.lease else ""
    names: dict[int, str] = {}
    messages = []
    for row in rows:
        name = names.get(row.partition_id)
        if name is None:
            name = names[row.partition_id] = partition_name(row.tenant_id, row.partition_id)
        messages.append(
            Message(
                row.id,
                row.transaction_id,
                row.trace_id,
                msgspec.Raw(row.payload),
                row.producer,
                row.created_at,
                name,
                row.partition,
                lease,
                target.group,
                queues[row.queue_id],
            )
        )
    _note(rows, claim)
    return Popped(claim.lease, len(names), messages)


def _note(rows: "list[Row]", claim: _Claim) -> None:
    now = datetime.now(UTC)
    by_queue: dict[int, list[Row]] = {}
    for row in rows:
        by_queue.setdefault(row.queue_id, []).append(row)
    for queue_id, mine in by_queue.items():
        # Partitions are in order of age, and a push's messages share their time: ends are enough for the lag.
        oldest = max(0, round((now - min(mine[0].created_at, mine[-1].created_at)).total_seconds() * 1000))
        newest = max(0, round((now - max(mine[0].created_at, mine[-1].created_at)).total_seconds() * 1000))
        done = len(mine) if claim.lease is None else 0
        traffic.count(
            mine[0].tenant_id,
            queue_id,
            max_lag_ms=oldest,
            pop_requests=1,
            popped=len(mine),
            completed=done,
            lag_ms=(oldest + newest) // 2 * len(mine),
        )


# -- Statements ----------------------------------------------------------------------------------------------


async def _claim(requests: Sequence[_Claim]) -> "list[list[Row] | Exception]":
    """Several statements where requests look at the same groups by different ways: one would hand a partition out twice."""
    found: list[list[Row] | Exception] = [[] for _ in requests]
    for number, places in enumerate(_apart(requests)):
        mine = [requests[place] for place in places]
        try:
            # Not repeated: the first may have been committed, and its leases would stand in the way of the second.
            rows = await database.fetch(SQL["claim"], _parameters(mine), repeatable=False)
        except Exception as error:
            if number == 0:
                raise
            for place in places:  # what others have by now stays theirs
                found[place] = error
            continue
        for row in rows:
            found[places[row[0]]].append(Row(*row))  # type: ignore[union-attr]
    return found


def _apart(requests: Sequence[_Claim]) -> list[list[int]]:
    """Requests by place, in parts within which two have the same lanes or no group in common."""
    parts: list[tuple[list[int], dict[int, tuple[_Lane, ...]]]] = []
    for place, request in enumerate(requests):
        for part in parts:
            # Who wants many partitions might take the places of all that are due, and fill one: others come after it.
            alone = request.partitions > 1 or requests[part[0][0]].partitions > 1
            same = all(part[1].get(lane.group_id, request.lanes) == request.lanes for lane in request.lanes)
            if same and not alone:
                break
        else:
            part = ([], {})
            parts.append(part)
        part[0].append(place)
        part[1].update((lane.group_id, request.lanes) for lane in request.lanes)
    return [places for places, _ in parts]


def _parameters(requests: Sequence[_Claim]) -> dict[str, Any]:
    """Requests that look at the same lanes share them, and get one slot after the other."""
    numbers: dict[tuple[_Lane, ...], int] = {}
    slots: list[tuple[int, int, int, int, UUID | None]] = []
    taken: list[int] = []
    for n, request in enumerate(requests):
        lane = numbers.setdefault(request.lanes, len(numbers))
        if lane == len(taken):
            taken.append(0)
        for _ in range(request.partitions):
            taken[lane] += 1
            slots.append((lane, taken[lane], n, request.size, request.lease))
    lanes = [(number, lane) for key, number in numbers.items() for lane in key]
    return {
        "lanes": [number for number, _ in lanes],
        "tenants": [lane.tenant_id for _, lane in lanes],
        "groups": [lane.group_id for _, lane in lanes],
        "partitions": [lane.partition for _, lane in lanes],
        "priorities": [lane.priority for _, lane in lanes],
        "counts": [taken[number] for number, _ in lanes],
        "slot_lanes": [slot[0] for slot in slots],
        "places": [slot[1] for slot in slots],
        "requests": [slot[2] for slot in slots],
        "sizes": [slot[3] for slot in slots],
        "leases": [slot[4] for slot in slots],
    }


def _batcher() -> "Batcher[_Claim, list[Row] | Exception]":
    return Batcher(_claim, max_rows=MAX_SLOTS, weigh=lambda claim: claim.partitions)


_batchers: "PerLoop[Family[_Claim, list[Row] | Exception]]" = PerLoop(lambda: Family(_batcher), close=Family.finish)


# -- When to look again -----------------------------------------------------------------------------------


async def _next_due(lanes: Sequence[_Lane], news_at: float) -> tuple[float, int]:
    """Seconds until something that sleeps (a delay, a lease, a retry) is due, and how many of the groups there still are;
    all who wait for the same ask once."""
    due_at, there = await _due.get((lanes[0].tenant_id, tuple(lane.group_id for lane in lanes)), since=news_at)
    seconds = due_at - time.monotonic()
    return max(LOOK_AGAIN if due_at == LONG_AGO else 0.002, seconds), there


async def _load_due(key: tuple[int, tuple[int, ...]]) -> tuple[float, int]:
    """When, by time.monotonic(), something is due, LONG_AGO if it is already; and how many of the groups there are."""
    asked_at = time.monotonic()
    seconds, there = await _ask_due(key[0], list(key[1]))
    return asked_at + seconds if seconds > 0 else LONG_AGO, there


async def _ask_due(tenant_id: int, groups: list[int]) -> tuple[float, int]:
    rows = await database.fetch(SQL["next_due"], {"tenant": tenant_id, "groups": groups, "missed": MISSED})
    seconds, there = rows[0]
    return (long_polls.RECHECK if seconds is None else seconds + 0.001), there


_due = Cached(_load_due, fresh=DUE_FRESH, stale=DUE_FRESH, kept=1_000)
