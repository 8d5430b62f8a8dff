"""Locks and writes that several operations share: partitions, consumers (a group's cursor and lease), new dead letters."""

from collections.abc import Collection, Sequence

import msgspec
from psycopg import AsyncConnection

from queueing.broker.catalog import SQL
from registry.data import database


class NewDeadLetter(msgspec.Struct, frozen=True):
    """A message that a group gives up on."""

    partition: int
    group: int
    seq: int
    error: str
    attempts: int
    # Dropped: nobody can list the dead letter. Its row is ended at once, and only keeps the message from being delivered.
    dropped: bool = False


class CursorUpdate(msgspec.Struct, frozen=True):
    """New state of a consumer."""

    partition: int
    group: int
    cursor: int
    buried: int  # number of the latest dead letter
    attempt: int
    release: bool  # whether its lease ends
    wait: float = 0.0  # seconds before the partition is delivered again


async def lock_partition(conn: AsyncConnection, tenant_id: int, partition: int | None) -> int | None:
    """Lock a partition's row, as pushes do, before any consumer's. Returns its latest message's number, None without a partition."""
    rows = await database.rows(conn, SQL["lock_partition"], {"tenant": tenant_id, "partition": partition})
    return rows[0][0] if rows else None


async def add_dead_letters(conn: AsyncConnection, tenant_id: int, dead: Sequence[NewDeadLetter]) -> None:
    """Copy messages to the dead letters of their groups. Adding one twice has no effect."""
    if dead:
        params = {
            "tenant": tenant_id,
            "partitions": [one.partition for one in dead],
            "groups": [one.group for one in dead],
            "seqs": [one.seq for one in dead],
            "errors": [one.error for one in dead],
            "attempts": [one.attempts for one in dead],
            "dropped": [one.dropped for one in dead],
        }
        await database.rows(conn, SQL["add_dead_letters"], params)


async def update(conn: AsyncConnection, tenant_id: int, updates: Sequence[CursorUpdate]) -> None:
    """Update consumers whose rows the caller has locked."""
    if updates:
        params = {
            "tenant": tenant_id,
            "partitions": [one.partition for one in updates],
            "groups": [one.group for one in updates],
            "cursors": [one.cursor for one in updates],
            "buried": [one.buried for one in updates],
            "attempts": [one.attempt for one in updates],
            "releases": [one.release for one in updates],
            "waits": [one.wait for one in updates],
        }
        await database.rows(conn, SQL["update_consumers"], params)


async def reschedule(consumers: Collection[tuple[int, int, int]], conn: AsyncConnection | None = None) -> None:
    """Compute when each consumer, by tenant, partition and group, has a message to read next. Leased ones stay as they are."""
    if not consumers:
        return
    ordered = sorted(set(consumers))
    params = {
        "tenants": [tenant for tenant, _, _ in ordered],
        "partitions": [partition for _, partition, _ in ordered],
        "groups": [group for _, _, group in ordered],
    }
    await (database.rows(conn, SQL["reschedule"], params) if conn else database.fetch(SQL["reschedule"], params))
