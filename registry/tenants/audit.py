"""Writes the audit trail: who did what, to how many rows, and why.

Both functions join the transaction that their caller has open: an action and its entry are committed together. That is why
`record_sync` uses Django's own connection: on the event loop it would be in another transaction.
"""

from typing import Any, Required, TypedDict, Unpack

from registry.models import AuditEntry


class Entry(TypedDict, total=False):
    """The fields of an audit entry. Longer texts than the columns hold are cut."""

    actor: Required[str]
    action: Required[str]  # `noun.verb`
    target: Required[str]
    tenant_id: int | None
    rows: int  # 1 unless given
    reason: str
    detail: dict[str, Any]


async def record(**entry: Unpack[Entry]) -> None:
    """Write an audit entry within the caller's `async_atomic`, if any."""
    await AuditEntry.async_objects.acreate(**_cut(entry))


def record_sync(**entry: Unpack[Entry]) -> None:
    """Write an audit entry in a thread, within the caller's `transaction.atomic`."""
    AuditEntry.objects.create(**_cut(entry))


def _cut(entry: Entry) -> dict[str, Any]:
    return {
        **entry,
        "actor": entry["actor"][:150],
        "action": entry["action"][:100],
        "target": entry["target"][:200],
    }
