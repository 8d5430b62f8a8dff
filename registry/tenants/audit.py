"""Writes the audit trail: who did what, to how many rows, and why.

Both twins join the transaction that their caller has open: an action and its entry are committed together. That is why
`record_sync` writes by Django's own connection: the loop would use another connection and transaction.
"""

from typing import Any

from registry.models import AuditEntry


async def record(
    *,
    actor: str,
    action: str,
    target: str,
    tenant_id: int | None = None,
    rows: int = 1,
    reason: str = "",
    detail: dict[str, Any] | None = None,
) -> None:
    """Write down that `actor` did `action` (`noun.verb`) to `target`; within the caller's `async_atomic`, if any."""
    await AuditEntry.async_objects.acreate(**_fields(actor, action, target, tenant_id, rows, reason, detail))


def record_sync(
    *,
    actor: str,
    action: str,
    target: str,
    tenant_id: int | None = None,
    rows: int = 1,
    reason: str = "",
    detail: dict[str, Any] | None = None,
) -> None:
    """The same for threads: within the caller's `transaction.atomic`, on Django's own connection."""
    AuditEntry.objects.create(**_fields(actor, action, target, tenant_id, rows, reason, detail))


def _fields(
    actor: str, action: str, target: str, tenant_id: int | None, rows: int, reason: str, detail: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "actor": actor[:150],
        "action": action[:100],
        "target": target[:200],
        "tenant_id": tenant_id,
        "rows": rows,
        "reason": reason,
        "detail": detail or {},
    }
