"""What readers say of their messages. An ack is fenced by its lease, and moves the group's cursor only forward.

All done, the usual case, goes through one statement for many requests. Where something failed, the consumers are held and
`decide` says what follows.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, long_polls, traffic
from queueing.broker import leases as bury
from queueing.broker.catalog import SQL
from queueing.broker.leases import Dead, Move
from queueing.broker.models import QUEUE_MODE
from queueing.broker.names import partition_number
from registry.data import database
from registry.data.arrays import Bigints, Texts
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop
from registry.errors import Unavailable

MAX_ROWS = 5000  # acks per statement
COMPLETED, FAILED, DEAD, RETRY = "completed", "failed", "dlq", "retry"
STATUSES = {"completed": COMPLETED, "success": COMPLETED, "failed": FAILED, "dlq": DEAD, "retry": RETRY}

NO_LEASE = "Invalid or expired lease"
NOT_FOUND = "Message not found"
BEHIND = "An earlier message of this partition failed; this one will be delivered again"
EXHAUSTED = "Retries exhausted"


class Ack(msgspec.Struct, frozen=True):
    """What a reader says of one message."""

    transaction_id: str
    partition_id: str
    status: str = COMPLETED
    lease_id: str = ""
    group: str = QUEUE_MODE
    error: str | None = None


class Acked(msgspec.Struct, rename="camel"):
    """What became of an ack (queue contract section 1.1)."""

    index: int
    transaction_id: str
    success: bool
    error: str | None = None
    queue_name: str | None = None
    partition_name: str | None = None
    lease_released: bool = False
    dlq: bool = False


async def ack(tenant_id: int, acks: Sequence[Ack]) -> list[Acked]:
    """One verdict per ack, in order. Raises Unavailable (503)."""
    results, checked = check(tenant_id, acks)
    due: set[int] = set()  # partitions whose lease ended and left something to read
    completed = all(STATUSES[acks[one.n].status] == COMPLETED for one in checked)
    if completed:
        if checked:
            request = _Completed(tenant_id, checked)
            for one, (n, error, released, more) in zip(
                checked, await _batchers.get().of(tenant_id).submit(request), strict=True
            ):
                judge(results[n], error, released=released)
                if more:
                    due.add(one.partition)
    else:

        async def once() -> list[tuple[int, str | None, bool, bool]]:
            async with database.transaction() as conn:
                return await settle(conn, tenant_id, acks, checked)

        # Not repeated: see `_complete`.
        for n, error, released, dead in await database.retrying(once, repeatable=False):
            judge(results[n], error, released=released, dlq=dead)
        due = {one.partition for one in checked if results[one.n].lease_released}
    await name_and_tell(tenant_id, checked, results, due)
    _note(tenant_id, acks, checked, results)
    return results


class Checked(msgspec.Struct, frozen=True):
    """An ack that can be looked up."""

    n: int
    partition: int
    group: str
    lease: UUID
    transaction_id: str
    status: str


def check(tenant_id: int, acks: Sequence[Ack]) -> tuple[list[Acked], list[Checked]]:
    results = [Acked(n, one.transaction_id, success=False) for n, one in enumerate(acks)]
    checked = []
    numbers: dict[str, int | None] = {}
    leases: dict[str, UUID | None] = {}
    for n, one in enumerate(acks):
        if one.partition_id not in numbers:
            numbers[one.partition_id] = partition_number(tenant_id, one.partition_id)
        if one.lease_id not in leases:
            leases[one.lease_id] = parse_lease(one.lease_id)
        partition, lease = numbers[one.partition_id], leases[one.lease_id]
        if one.status not in STATUSES:
            results[n].error = f"status wants one of {', '.join(STATUSES)}"
        elif partition is None:
            results[n].error = NOT_FOUND
        elif lease is None:
            results[n].error = NO_LEASE if one.lease_id else "leaseId is required: an ack is fenced by its lease"
        else:
            checked.append(Checked(n, partition, one.group, lease, one.transaction_id, STATUSES[one.status]))
    return results, checked


def parse_lease(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def judge(result: Acked, error: str | None, *, released: bool, dlq: bool = False) -> None:
    result.success, result.error, result.lease_released, result.dlq = error is None, error, released, dlq


async def name_and_tell(
    tenant_id: int, checked: Iterable[Checked], results: Sequence[Acked], due: Iterable[int]
) -> None:
    """Say what the partitions are called, and wake who is parked for those with something to read: now, or after the time
    that a retry waits. The acks are committed: without the database the names are left out."""
    wanted = {one.n: one.partition for one in checked}
    with suppress(Unavailable):
        places = await catalog.places(tenant_id, wanted.values())
        for n, partition in wanted.items():
            if place := places.get(partition):
                results[n].queue_name, results[n].partition_name = place.queue, place.partition
        for partition in due:
            if place := places.get(partition):
                long_polls.wake(place.queue_id)


def _note(tenant_id: int, acks: Sequence[Ack], checked: Sequence[Checked], results: Sequence[Acked]) -> None:
    counts: dict[int, dict[str, int]] = {}
    for one in checked:
        place = catalog.known_place(tenant_id, one.partition)
        if place and results[one.n].success:
            mine = counts.setdefault(place.queue_id, {"ack_requests": 1, "completed": 0, "failed": 0, "buried": 0})
            kind = "buried" if results[one.n].dlq else "completed" if one.status == COMPLETED else "failed"
            mine[kind] += 1
    for queue_id, mine in counts.items():
        traffic.count(tenant_id, queue_id, **mine)


# -- All done -----------------------------------------------------------------------------------------------


class _Completed(msgspec.Struct, frozen=True):
    tenant_id: int
    acks: list[Checked]


# place in the request, error, whether the lease ended, and whether it left something to read
type _Verdicts = list[tuple[int, str | None, bool, bool]]


async def _complete(requests: Sequence[_Completed]) -> list[_Verdicts]:
    keys: dict[tuple[int, int, str, UUID], int] = {}
    owners: list[int] = []
    transactions: list[str] = []
    for request in requests:
        for one in request.acks:
            key = (request.tenant_id, one.partition, one.group, one.lease)
            owners.append(keys.setdefault(key, len(keys) + 1))
            transactions.append(one.transaction_id)
    places = sorted(keys)  # the consumers' rows are locked in this order, whoever else holds several
    turn = {keys[key]: number for number, key in enumerate(places, 1)}
    owners = [turn[owner] for owner in owners]
    params = {
        "tenants": [key[0] for key in places],
        "partitions": [key[1] for key in places],
        "names": [key[2] for key in places],
        "leases": [key[3] for key in places],
        "owners": Bigints(owners),
        "transactions": Texts(transactions),
    }
    refused: dict[int, str] = {}
    ended: set[int] = set()
    more: set[int] = set()
    # Not repeated: the first may have been committed, and would refuse the second. Its sender asks again, and is told.
    for item, key_number, reason in await database.fetch(SQL["complete"], params, repeatable=False):
        if item:
            refused[item] = reason
        else:
            ended.add(key_number)
            if reason == "more":
                more.add(key_number)
    verdicts, item = [], 0
    for request in requests:
        mine: _Verdicts = []
        for one in request.acks:
            owner = owners[item]
            item += 1
            mine.append((one.n, refused.get(item), owner in ended, owner in more))
        verdicts.append(mine)
    return verdicts


def _batcher() -> Batcher[_Completed, _Verdicts]:
    return Batcher(_complete, max_rows=MAX_ROWS, weigh=lambda request: len(request.acks))


_batchers: PerLoop[Family[_Completed, _Verdicts]] = PerLoop(lambda: Family(_batcher), close=Family.finish)


# -- Something failed -----------------------------------------------------------------------------------------


class Held(msgspec.Struct, frozen=True):
    """A leased consumer, its row locked, and how its queue treats failures."""

    lease: UUID
    partition: int
    group: int
    name: str
    cursor: int
    delivered: int
    buried: int
    attempt: int
    retry_limit: int
    retry_delay_ms: int
    dead_letter_after_retries: bool
    dead_letter_queue: bool
    dead: frozenset[int] = frozenset()  # what was given up on before, beyond the cursor


class Said(msgspec.Struct, frozen=True):
    """An ack of a message of this consumer, by its number."""

    n: int
    seq: int
    status: str
    error: str | None = None


class Decision(msgspec.Struct):
    """What follows from the acks of one consumer."""

    move: Move
    dead: list[Dead]
    verdicts: list[tuple[int, str | None, bool, bool]]  # place, error, lease ended, dead letter


def decide(held: Held, said: Sequence[Said], *, at_once: bool = False) -> Decision:
    """What follows from acks. `at_once`: what failed is given up on without another try.

    Done and given up on lets the cursor pass, up to the first message that is to be tried again: no later ack gets by.
    """
    out_of_tries = at_once or (held.dead_letter_after_retries and held.attempt >= held.retry_limit)
    ordered = sorted(said, key=lambda one: one.seq)
    given_up = [one for one in ordered if one.status == DEAD or (one.status == FAILED and out_of_tries)]
    again = [one for one in ordered if one.status in (FAILED, RETRY) and one not in given_up]
    barrier = again[0].seq if again else held.delivered + 1
    passed = {one.seq for one in given_up}
    kept = {one.seq for one in given_up if held.dead_letter_queue or one.status == DEAD}
    cursor = max([held.cursor, *(one.seq for one in ordered if one.status == COMPLETED and one.seq < barrier)])
    while cursor + 1 in passed or cursor + 1 in held.dead:
        cursor += 1
    release = bool(again) or cursor >= held.delivered
    failed_now = any(one.status == FAILED for one in again)
    attempt = held.attempt + 1 if failed_now else held.attempt if cursor == held.cursor else 0
    move = Move(
        held.partition,
        held.group,
        cursor=cursor,
        buried=max([held.buried, *passed]),
        attempt=attempt,
        release=release,
        wait=held.retry_delay_ms / 1000 if failed_now else 0.0,
    )
    dead = [
        Dead(held.partition, held.group, one.seq, one.error or EXHAUSTED, held.attempt + 1, one.seq not in kept)
        for one in given_up
        if one.seq in kept or one.seq > cursor
    ]
    verdicts = [
        (one.n, BEHIND if one.status == COMPLETED and one.seq > barrier else None, release, one.seq in kept)
        for one in ordered
    ]
    return Decision(move, dead, verdicts)


async def settle(
    conn: AsyncConnection,
    tenant_id: int,
    acks: Sequence[Ack],
    checked: Sequence[Checked],
    *,
    at_once: bool = False,
) -> list[tuple[int, str | None, bool, bool]]:
    """Acks of any kind, in the caller's transaction; one verdict each, in no order."""
    held = await _hold(conn, tenant_id, checked)
    numbers = await _numbers(conn, tenant_id, checked)
    verdicts: list[tuple[int, str | None, bool, bool]] = []
    said: dict[tuple[int, str, UUID], list[Said]] = {}
    for place, one in enumerate(checked):
        key = (one.partition, one.group, one.lease)
        seq = numbers.get(place)
        if key not in held:
            verdicts.append((one.n, NO_LEASE, False, False))
        elif seq is None or seq > held[key].delivered:
            verdicts.append((one.n, NOT_FOUND, False, False))
        elif seq <= held[key].cursor or seq in held[key].dead:
            # Done or given up on before. To say so twice is no fault, to say otherwise is.
            same = one.status == COMPLETED or (one.status == DEAD and seq in held[key].dead)
            verdicts.append((one.n, None if same else NOT_FOUND, False, False))
        else:
            said.setdefault(key, []).append(Said(one.n, seq, one.status, acks[one.n].error))
    decisions = [decide(held[key], mine, at_once=at_once) for key, mine in said.items()]
    await bury.bury(conn, tenant_id, [dead for decision in decisions for dead in decision.dead])
    await bury.move(conn, tenant_id, [decision.move for decision in decisions])
    await _rest(conn, tenant_id, [d.move for d in decisions if d.move.release and not d.move.wait])
    return verdicts + [verdict for decision in decisions for verdict in decision.verdicts]


async def _hold(conn: AsyncConnection, tenant_id: int, checked: Sequence[Checked]) -> dict[tuple[int, str, UUID], Held]:
    keys = sorted({(one.partition, one.group, one.lease) for one in checked})
    params = {
        "tenant": tenant_id,
        "partitions": [key[0] for key in keys],
        "names": [key[1] for key in keys],
        "leases": [key[2] for key in keys],
    }
    rows = [Held(*row) for row in await database.rows(conn, SQL["hold_leases"], params)]
    dead = await _given_up(conn, tenant_id, [one for one in rows if one.buried > one.cursor])
    return {
        (one.partition, one.name, one.lease): msgspec.structs.replace(
            one, dead=frozenset(dead.get((one.partition, one.group), ()))
        )
        for one in rows
    }


async def _given_up(conn: AsyncConnection, tenant_id: int, held: Sequence[Held]) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    if held:
        params = {
            "tenant": tenant_id,
            "partitions": [one.partition for one in held],
            "groups": [one.group for one in held],
        }
        for partition, group, seq in await database.rows(conn, SQL["given_up"], params):
            found.setdefault((partition, group), []).append(seq)
    return found


async def _numbers(conn: AsyncConnection, tenant_id: int, checked: Sequence[Checked]) -> dict[int, int]:
    params: dict[str, Any] = {
        "tenant": tenant_id,
        "partitions": [one.partition for one in checked],
        "transactions": [one.transaction_id for one in checked],
    }
    return {n - 1: seq for n, seq in await database.rows(conn, SQL["places"], params)}


async def _rest(conn: AsyncConnection, tenant_id: int, moves: Collection[Move]) -> None:
    if moves:
        params = {
            "tenants": [tenant_id] * len(moves),
            "partitions": [move.partition for move in moves],
            "groups": [move.group for move in moves],
        }
        await database.rows(conn, SQL["rest"], params)


# -- Leases -----------------------------------------------------------------------------------------------------


async def extend(tenant_id: int, lease_id: str, seconds: int) -> dict[str, Any]:
    """Let a lease end no earlier than in so many seconds, on every partition it covers."""
    lease = parse_lease(lease_id)
    answer: dict[str, Any] = {"index": 0, "leaseId": lease_id, "success": False, "error": None, "expiresAt": None}
    rows = []
    if lease:
        rows = await database.fetch(SQL["extend"], {"tenant": tenant_id, "lease": lease, "seconds": seconds})
    if rows:
        return {**answer, "success": True, "expiresAt": min(row[0] for row in rows)}
    known = lease and (await database.fetch(SQL["lease_known"], {"tenant": tenant_id, "lease": lease}))[0][0]
    return {**answer, "error": "Lease already expired" if known else "Lease not found"}
