"""Leases: a reader extends one, and the broker releases one that nobody received."""

from typing import Any
from uuid import UUID

from queueing.broker.catalog import SQL
from registry.data import database


def parse_lease(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def extend(tenant_id: int, lease_id: str, seconds: int) -> dict[str, Any]:
    """Let a lease end no earlier than `seconds` from now, on every partition that it covers."""
    lease = parse_lease(lease_id)
    answer: dict[str, Any] = {"index": 0, "leaseId": lease_id, "success": False, "error": None, "expiresAt": None}
    rows = []
    if lease:
        rows = await database.fetch(SQL["extend"], {"tenant": tenant_id, "lease": lease, "seconds": seconds})
    if rows:
        return {**answer, "success": True, "expiresAt": min(row[0] for row in rows)}
    known = lease and (await database.fetch(SQL["lease_known"], {"tenant": tenant_id, "lease": lease}))[0][0]
    return {**answer, "error": "Lease already expired" if known else "Lease not found"}


async def release(tenant_id: int, lease: UUID) -> None:
    """End a lease whose reader disconnected before the answer. Other readers get the messages at once; no attempt is counted."""
    await database.fetch(SQL["release_lease"], {"tenant": tenant_id, "lease": lease})
