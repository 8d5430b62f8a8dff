"""Apply acks of any status in one transaction: lock the consumers, decide, write cursors and dead letters."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import consumers
from queueing.broker.ack_decision import LeasedConsumer, NumberedAck, decide
from queueing.broker.ack_request import COMPLETED, DEAD, NO_LEASE, NOT_FOUND, AckOutcome, CheckedAck
from queueing.broker.catalog import SQL
from registry.data import database

type Key = tuple[int, str, UUID]  # partition, group, lease


async def apply(
    conn: AsyncConnection, tenant_id: int, acks: Sequence[CheckedAck], *, at_once: bool = False
) -> list[AckOutcome]:
    """One outcome per ack, in no order. `at_once`: see `decide`."""
    leased = await _lock_consumers(conn, tenant_id, acks)
    numbers = await _message_numbers(conn, tenant_id, acks)
    outcomes: list[AckOutcome] = []
    to_decide: dict[Key, list[NumberedAck]] = {}
    for one, seq in zip(acks, numbers, strict=True):
        consumer = leased.get(one.consumer)
        if consumer is None:
            outcomes.append(AckOutcome(one.index, NO_LEASE, False))
        elif seq is None or seq > consumer.delivered:
            outcomes.append(AckOutcome(one.index, NOT_FOUND, False))
        elif seq <= consumer.cursor or seq in consumer.dead:
            # Already completed or dead: the same ack again succeeds, a different one fails.
            same = one.status == COMPLETED or (one.status == DEAD and seq in consumer.dead)
            outcomes.append(AckOutcome(one.index, None if same else NOT_FOUND, False))
        else:
            to_decide.setdefault(one.consumer, []).append(NumberedAck(one.index, seq, one.status, one.error))
    decisions = [decide(leased[key], mine, at_once=at_once) for key, mine in to_decide.items()]
    await consumers.add_dead_letters(conn, tenant_id, [dead for decision in decisions for dead in decision.dead])
    updates = [decision.update for decision in decisions]
    await consumers.update(conn, tenant_id, updates)
    released = [(tenant_id, one.partition, one.group) for one in updates if one.release and not one.wait]
    await consumers.reschedule(released, conn)
    return outcomes + [outcome for decision in decisions for outcome in decision.outcomes]


async def _lock_consumers(
    conn: AsyncConnection, tenant_id: int, acks: Sequence[CheckedAck]
) -> dict[Key, LeasedConsumer]:
    keys = sorted({one.consumer for one in acks})
    params = {
        "tenant": tenant_id,
        "partitions": [key[0] for key in keys],
        "names": [key[1] for key in keys],
        "leases": [key[2] for key in keys],
    }
    rows = [LeasedConsumer(*row) for row in await database.rows(conn, SQL["lock_consumers"], params)]
    dead = await _dead_beyond_cursor(conn, tenant_id, [one for one in rows if one.buried > one.cursor])
    return {
        (one.partition, one.group_name, one.lease): msgspec.structs.replace(
            one, dead=frozenset(dead.get((one.partition, one.group), ()))
        )
        for one in rows
    }


async def _dead_beyond_cursor(
    conn: AsyncConnection, tenant_id: int, leased: Sequence[LeasedConsumer]
) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    if leased:
        params = {
            "tenant": tenant_id,
            "partitions": [one.partition for one in leased],
            "groups": [one.group for one in leased],
        }
        for partition, group, seq in await database.rows(conn, SQL["dead_beyond_cursor"], params):
            found.setdefault((partition, group), []).append(seq)
    return found


async def _message_numbers(conn: AsyncConnection, tenant_id: int, acks: Sequence[CheckedAck]) -> list[int | None]:
    """The number of each ack's message, None where there is no such message."""
    params = {
        "tenant": tenant_id,
        "partitions": [one.partition for one in acks],
        "transactions": [one.transaction_id for one in acks],
    }
    found: dict[int, int] = dict(await database.rows(conn, SQL["message_numbers"], params))  # type: ignore[arg-type]
    return [found.get(place) for place in range(1, len(acks) + 1)]
