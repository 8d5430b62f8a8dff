"""Group commit of claims: one statement leases partitions to many requests, the partition that has waited longest first.

What was claimed for a request that was cancelled meanwhile is released again.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker import leases, long_polls
from queueing.broker.catalog import SQL
from queueing.broker.sources import Source
from registry.data import database
from registry.data.arrays import Bigints, Uuids, unless_empty
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop, Tasks

MAX_SLOTS = 200  # partitions per statement
PER_SLOT = 5  # messages that count as a partition, so that a statement claims a thousand at most, unless one request asks for more


class Claim(msgspec.Struct, frozen=True):
    """A request for at most `partitions` partitions of its sources and `size` messages in all."""

    sources: tuple[Source, ...]
    size: int
    partitions: int
    lease: UUID | None  # None: messages are completed as they are delivered


class ClaimedRow(msgspec.Struct, frozen=True):
    """A claimed message. `seq` is None for a partition that had nothing to read."""

    request: int
    tenant_id: int
    queue_id: int
    group_id: int
    partition_id: int
    partition: str
    poison: bool  # no tries left, and every reader that got it alone let its lease expire
    attempts: int
    seq: int | None
    id: UUID
    transaction_id: str
    trace_id: UUID | None
    payload: bytes
    key_id: str | None
    producer: str | None
    created_at: datetime


async def submit(claim: Claim) -> list[ClaimedRow]:
    """Claim in the next batch. Raises Unavailable (503)."""
    future = _batchers.get().of(claim.sources[0].tenant_id).submit(claim)
    try:
        rows = await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(partial(_release_unreceived, claim))
        raise
    if isinstance(rows, Exception):
        raise rows
    return rows


# -- Releasing -----------------------------------------------------------------------------------------------


def _release_unreceived(claim: Claim, future: asyncio.Future[list[ClaimedRow] | Exception]) -> None:
    """Release what was claimed for a client that disconnected before its answer."""
    if not future.cancelled() and not future.exception() and isinstance(rows := future.result(), list):
        release_soon(claim, rows)


def release_soon(claim: Claim, rows: list[ClaimedRow]) -> None:
    releasing.get().start(release(claim, rows))


async def release(claim: Claim, rows: list[ClaimedRow]) -> None:
    """End the lease and wake other readers."""
    if claim.lease and rows:
        await leases.release(rows[0].tenant_id, claim.lease)
        for queue_id in {row.queue_id for row in rows}:
            long_polls.wake(queue_id)


releasing: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


# -- Statements ----------------------------------------------------------------------------------------------


async def write_batch(requests: Sequence[Claim]) -> list[list[ClaimedRow] | Exception]:
    """Claim for all requests: in one statement, or in several where one would give a partition to two of them."""
    claimed: list[list[ClaimedRow] | Exception] = [[] for _ in requests]
    for number, places in enumerate(_separate(requests)):
        mine = [requests[place] for place in places]
        try:
            # Not repeated: the first try may have been committed, and its leases would block the second.
            rows = await database.fetch(SQL["claim"], _parameters(mine), repeatable=False)
        except Exception as error:
            if number == 0:
                raise
            for place in places:  # earlier statements are committed: their requests get what they claimed
                claimed[place] = error
            continue
        for row in rows:
            claimed[places[row[0]]].append(ClaimedRow(*row))  # type: ignore[union-attr]
    return claimed


def _separate(requests: Sequence[Claim]) -> list[list[int]]:
    """Split the requests, by place, into statements: within one, two requests have the same sources or no group in common."""
    parts: list[tuple[list[int], dict[int, tuple[Source, ...]]]] = []
    for place, request in enumerate(requests):
        for part in parts:
            # A request for many partitions might reserve all that are due and then fill only one, so that the requests behind
            # it would get none. It gets a statement of its own.
            alone = request.partitions > 1 or requests[part[0][0]].partitions > 1
            same = all(part[1].get(source.group_id, request.sources) == request.sources for source in request.sources)
            if same and not alone:
                break
        else:
            part = ([], {})
            parts.append(part)
        part[0].append(place)
        part[1].update((source.group_id, request.sources) for source in request.sources)
    return [places for places, _ in parts]


def _parameters(requests: Sequence[Claim]) -> dict[str, Any]:
    """Parameters of `queueing_claim`. Requests with the same sources share one set of them and get consecutive slots."""
    sets: dict[tuple[Source, ...], int] = {}
    slots: list[tuple[int, int, int, int, UUID | None]] = []
    counts: list[int] = []
    for number, request in enumerate(requests):
        source_set = sets.setdefault(request.sources, len(sets))
        if source_set == len(counts):
            counts.append(0)
        for _ in range(request.partitions):
            counts[source_set] += 1
            slots.append((source_set, counts[source_set], number, request.size, request.lease))
    sources = [(number, source) for key, number in sets.items() for source in key]
    leases = [slot[4] for slot in slots]
    return {
        "source_sets": Bigints([number for number, _ in sources]),
        "tenants": Bigints([source.tenant_id for _, source in sources]),
        "groups": Bigints([source.group_id for _, source in sources]),
        "partitions": unless_empty([source.partition for _, source in sources]),
        "priorities": Bigints([source.priority for _, source in sources]),
        "counts": Bigints([counts[number] for number, _ in sources]),
        "slot_sets": Bigints([slot[0] for slot in slots]),
        "places": Bigints([slot[1] for slot in slots]),
        "requests": Bigints([slot[2] for slot in slots]),
        "sizes": Bigints([slot[3] for slot in slots]),
        "leases": leases if None in leases else Uuids([lease.bytes for lease in leases if lease]),
    }


def _batcher() -> Batcher[Claim, list[ClaimedRow] | Exception]:
    return Batcher(write_batch, max_rows=MAX_SLOTS, weigh=lambda claim: max(claim.partitions, claim.size // PER_SLOT))


_batchers: PerLoop[Family[Claim, list[ClaimedRow] | Exception]] = PerLoop(lambda: Family(_batcher), close=Family.finish)
