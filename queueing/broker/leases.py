"""Giving up on messages, and giving back leases that nobody came for."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import traffic
from queueing.broker.catalog import SQL
from registry.data import database

if TYPE_CHECKING:
    from queueing.broker.pop import Row

log = logging.getLogger(__name__)

KILLED = "its readers never came back: the lease lapsed on every try"


class Dead(msgspec.Struct, frozen=True):
    """A message that a group gives up on."""

    partition: int
    group: int
    seq: int
    error: str
    attempts: int
    dropped: bool = False  # no dead letter is kept: its row ended already, and only stands in the message's way


class Move(msgspec.Struct, frozen=True):
    """Where a consumer goes."""

    partition: int
    group: int
    cursor: int
    buried: int  # number of the latest message that it gave up on
    attempt: int
    release: bool  # whether its lease ends
    wait: float = 0.0  # seconds before the partition is handed out again


async def bury(conn: AsyncConnection, tenant_id: int, dead: Sequence[Dead]) -> None:
    """Put messages among the dead letters of their group; a message is there once, however often that is said."""
    if dead:
        names = {"partitions": "partition", "groups": "group", "seqs": "seq", "errors": "error", "attempts": "attempts"}
        names["dropped"] = "dropped"
        await database.rows(conn, SQL["bury"], {"tenant": tenant_id, **_columns(dead, names)})


async def move(conn: AsyncConnection, tenant_id: int, moves: Sequence[Move]) -> None:
    """Move consumers whose rows the caller holds."""
    if moves:
        names = {
            "partitions": "partition",
            "groups": "group",
            "cursors": "cursor",
            "buried": "buried",
            "attempts": "attempt",
            "releases": "release",
            "waits": "wait",
        }
        await database.rows(conn, SQL["move"], {"tenant": tenant_id, **_columns(moves, names)})


def _columns(rows: Sequence[msgspec.Struct], names: dict[str, str]) -> dict[str, list[Any]]:
    return {column: [getattr(row, name) for row in rows] for column, name in names.items()}


async def killers(rows: "Sequence[Row]", lease: UUID | None) -> None:
    """End what was handed out alone, again and again, to readers who all let their lease lapse."""
    for row in rows:

        async def once(row: "Row" = row) -> None:
            seq = row.seq or 0
            params = {"tenant": row.tenant_id, "partition": row.partition_id, "group": row.group_id, "lease": lease}
            async with database.transaction() as conn:
                held = await database.rows(conn, SQL["hold_killer"], params)
                if not held:
                    return
                if held[0][0]:
                    await bury(conn, row.tenant_id, [Dead(row.partition_id, row.group_id, seq, KILLED, row.tries)])
                there = Move(row.partition_id, row.group_id, cursor=seq, buried=seq, attempt=0, release=True)
                await move(conn, row.tenant_id, [there])

        await database.retrying(once)
        traffic.count(row.tenant_id, row.queue_id, buried=1)
        log.warning("a message killed its readers", extra={"transaction_id": row.transaction_id})


async def give_back(tenant_id: int, lease: UUID) -> None:
    """End a lease whose reader hung up before it got it: others may have the messages at once, and no try is counted."""
    await database.fetch(SQL["give_back"], {"tenant": tenant_id, "lease": lease})


async def set_aside(rows: "Sequence[tuple[Row, str]]", lease: UUID | None) -> None:
    """Messages that cannot be decrypted. Their partitions wait a while, and no try is counted: the key may come back. Read
    without a lease they are done already, and kept among the dead letters."""
    tenant_id = rows[0][0].tenant_id
    if lease:
        params = {"tenant": tenant_id, "lease": lease, "partitions": [row.partition_id for row, _ in rows]}
        await database.fetch(SQL["set_aside"], params)
    else:
        dead = [Dead(row.partition_id, row.group_id, row.seq or 0, error, row.tries + 1) for row, error in rows]
        async with database.transaction() as conn:
            await bury(conn, tenant_id, dead)
    log.error("messages cannot be decrypted", extra={"messages": len(rows), "error": rows[0][1]})
