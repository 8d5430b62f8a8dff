"""Purge of a sandbox tenant: delete its payments with everything booked for them, in slices."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from payments.errors import LiveTenant
from registry.data import database
from registry.data.loop import sync_twin

SQL = database.statements(Path(__file__).parent / "sql" / "purge.sql")

SLICE = 1000  # payments per transaction: far below the statement time-out; locks are held for milliseconds
WITHIN = 20.0  # seconds for one call; the next one continues
AT_ONCE = 5000  # payments that a request removes itself; more are left to a job
COUNTED = 100_000  # upper bound for counting the rest

type Key = tuple[datetime, int]

EVER = datetime.max.replace(tzinfo=UTC)
FIRST: Key = (datetime.min.replace(tzinfo=UTC), 0)


class Purged(NamedTuple):
    """The number of removed and of remaining payments (at most COUNTED); 0 remaining means the tenant is empty."""

    payments: int
    left: int


async def purge(*, tenant_id: int, within: float | None = None, before: datetime | None = None) -> Purged:
    """Delete a tenant's payments with everything booked for them, for up to `within` seconds. `before`: only
    payments that were created until then. Event numbers continue; the stream counts the deleted ones.

    Each slice is a transaction, so that another call continues where this one stopped or failed. Payments accepted
    meanwhile may remain. Raises LiveTenant (403), even if the tenant went live just now.
    """
    until = time.monotonic() + (WITHIN if within is None else within)
    gone, after, more, before = 0, FIRST, True, before or EVER
    while more:
        removed, last = await _sliced(_payments, tenant_id, after, before)
        gone, after, more = gone + removed, last or after, last is not None
        if time.monotonic() >= until and (left := await count(tenant_id, before)):
            return Purged(gone, left)
    await _sliced(_statistics, tenant_id, before)
    while await _sliced(_rest, tenant_id) and time.monotonic() < until:
        pass
    return Purged(gone, 0)


async def _sliced(work: Any, tenant_id: int, *arguments: Any) -> Any:
    """A transaction that keeps the tenant a sandbox until its end."""

    async def once() -> Any:
        async with database.transaction() as conn:
            if not await database.rows(conn, SQL["hold_sandbox"], {"tenant": tenant_id}):
                raise LiveTenant
            return await work(conn, tenant_id, *arguments)

    # Safe to repeat: settling that holds some of the payments may cause a deadlock.
    return await database.retrying(once)


async def _payments(conn: AsyncConnection, tenant_id: int, after: Key, before: datetime) -> tuple[int, Key | None]:
    """Delete the next slice. Returns its size and its last key; None if there was none."""
    asked = {"tenant": tenant_id, "after": after[0], "after_id": after[1], "before": before, "limit": SLICE}
    page = await database.rows(conn, SQL["purge_page"], asked, prepare=False)
    if not page:
        return 0, None
    found = {"tenant": tenant_id, "ids": [one for one, _ in page]}
    gone = await database.rows(conn, SQL["purge_payments"], found, prepare=False)
    await database.rows(conn, SQL["hold_refunds"], found, prepare=False)
    correlations = [correlation for _, correlation, *_ in gone]
    children = {**found, "correlations": correlations}
    [(events, last)] = await database.rows(conn, SQL["purge_children"], children, prepare=False)
    await _rollups(conn, tenant_id, [booked for _, _, succeeded, *booked in gone if succeeded])
    if events:
        await database.rows(conn, SQL["purge_stream"], {"tenant": tenant_id, "events": events, "last": last})
    last_id, created_at = page[-1]
    return len(gone), (created_at, last_id)


async def _rollups(conn: AsyncConnection, tenant_id: int, booked: Sequence[Sequence[Any]]) -> None:
    """Subtract the bookings of these payments from the roll-ups."""
    if not booked:
        return
    processors, at, currencies, amounts, fees = zip(*booked, strict=True)
    keys = {"tenant": tenant_id, "processors": list(processors), "at": list(at), "currencies": list(currencies)}
    await database.rows(conn, SQL["hold_rollups"], keys, prepare=False)
    sums = {"amounts": list(amounts), "fees": [fee or 0 for fee in fees]}
    await database.rows(conn, SQL["purge_rollups"], {**keys, **sums}, prepare=False)


async def _statistics(conn: AsyncConnection, tenant_id: int, before: datetime) -> None:
    """Delete the statistics of attempts until that time, which the console's home shows."""
    asked = {"tenant": tenant_id, "before": before}
    for name in ("hold_statistics", "purge_statistics"):
        await database.rows(conn, SQL[name], asked, prepare=False)


async def _rest(conn: AsyncConnection, tenant_id: int) -> int:
    [(count,)] = await database.rows(conn, SQL["purge_rest"], {"tenant": tenant_id, "limit": SLICE}, prepare=False)
    return int(count)


async def count(tenant_id: int, before: datetime | None = None) -> int:
    """The tenant's payments, at most COUNTED."""
    asked = {"tenant": tenant_id, "before": before or EVER, "limit": COUNTED}
    [(found,)] = await database.fetch(SQL["purge_left"], asked, prepare=False)
    return int(found)


async def clock() -> datetime:
    """The time by the clock that payments are created by."""
    [(now,)] = await database.fetch(SQL["purge_clock"])
    return now


purge_sync = sync_twin(purge)
