"""Erasure of a tenant: personal columns are blanked; money rows, their sums and the audit trail stay as they are.

Apps name in PERSONAL the personal columns and what replaces them, and in KEPT why other texts stay. Each table is processed
by its key, a number of rows to a transaction. After an interruption it starts again and does not write blank rows twice.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import models

from registry.data import database
from registry.data.loop import sync_twin
from registry.errors import NotFound, Problem
from registry.models import Tenant
from registry.tenants import audit

SQL = database.statements(Path(__file__).parent / "sql" / "erasure.sql")
ROWS = 1000  # per transaction, so that locks are held for milliseconds

# By the model's label: column → SQL of the replacement.
PERSONAL: dict[str, dict[str, str]] = {
    "registry.Tenant": {"name": "t.slug", "settings": "'{}'"},
    "registry.ApiKey": {"name": "''"},
    "registry.ApiRequest": {"path": "''"},  # names of queues and partitions, which may be people's
}
# Label → SQL condition of the tenant's rows, for tables without tenant_id.
OWNED: dict[str, str] = {"registry.Tenant": "t.id = %(tenant)s"}
ONLY: dict[str, str] = {}  # label → SQL condition of the rows that may be blanked already, if not all
OF_PAYMENTS: dict[str, str] = {}  # label → SQL condition of the rows of %(payments)s or %(correlations)s
# Labels whose OF_PAYMENTS has no index: all rows of the tenant are scanned page by page.
SEARCHED: set[str] = set()
ERASABLE: list[str] = []  # SQL: id, correlation id and whether it is final, of the existing %(correlations)s
CLOSING: list[str] = []  # statements that close what belongs to a tenant
MUST_END: dict[str, str] = {}  # "payments that …" → SQL that counts what must end first

_TRAIL = "the audit trail is evidence: it stays whole, or its chain would break"
KEPT: dict[str, str] = {  # "label.column" → why this text or these bytes are kept
    **dict.fromkeys((f"registry.AuditEntry.{name}" for name in ("actor", "target", "reason", "detail")), _TRAIL),
    "registry.AuditLink.digest": _TRAIL,
    "registry.AuditHead.digest": _TRAIL,
    "registry.ApiKey.digest": "of a key that is revoked",
    "registry.ApiKey.scopes": "words of ours",
    "registry.Tenant.blocked": "a reason of ours",
}


MINE = "t.tenant_id = %(tenant)s"


class StillOpen(Problem):
    """Something of the tenant is not final yet; erase again once it is."""

    status = 409


async def erase(*, tenant_id: int, actor: str, reason: str) -> dict[str, int]:
    """Close a tenant permanently and blank its personal data; returns the number of changed rows by table.

    Raises StillOpen (409) while payments are in progress or money is owed: then the tenant is closed and nothing is blanked.
    """
    tenant = {"tenant": tenant_id}
    closed = await database.fetch(SQL["close"], tenant)
    for statement in CLOSING:
        await database.fetch(statement, tenant)
    await _require_final(tenant_id)
    changed = {label: await _blank(label, OWNED.get(label, MINE), "true", tenant) for label in PERSONAL}
    people = await database.fetch(SQL["people"], tenant)
    changed |= {"auth.User": len(people), "registry.Membership": len(await database.fetch(SQL["part"], tenant))}
    return await _done("tenant.erase", tenant_id, changed, actor, reason, closed=bool(closed))


async def _require_final(tenant_id: int) -> None:
    for what, statement in MUST_END.items():
        [(count,)] = await database.fetch(statement, {"tenant": tenant_id}, prepare=False)
        if count:
            raise StillOpen(f"the tenant is closed, but has {count} {what}; erase it again once they are over")


async def erase_payments(*, tenant_id: int, correlation_ids: Sequence[UUID], actor: str, reason: str) -> dict[str, int]:
    """Blank the personal data of single payments; returns the number of changed rows by table.

    Raises NotFound (404) or StillOpen (409), and blanks nothing then.
    """
    asked = {"tenant": tenant_id, "correlations": list(correlation_ids)}
    found = [row for statement in ERASABLE for row in await database.fetch(statement, asked, prepare=False)]
    if unknown := set(correlation_ids) - {row[1] for row in found}:
        raise NotFound(f"the tenant has no payment {', '.join(sorted(map(str, unknown)))}")
    if unfinished := sorted(str(row[1]) for row in found if not row[2]):
        raise StillOpen(f"not over yet: {', '.join(unfinished)}")
    asked["payments"] = [row[0] for row in found]
    changed = {label: await _blank(label, *_of_payments(label), asked) for label in OF_PAYMENTS}
    ids = [str(one) for one in correlation_ids]
    return await _done("payment.erase", tenant_id, changed, actor, reason, payments=ids)


async def _done(
    action: str, tenant_id: int, changed: dict[str, int], actor: str, reason: str, **detail: Any
) -> dict[str, int]:
    changed = {label: count for label, count in changed.items() if count}
    if changed or detail.get("closed"):
        tenant = await Tenant.async_objects.aget(pk=tenant_id)
        await audit.record(
            actor=actor,
            action=action,
            target=f"tenant {tenant.slug}",
            tenant_id=tenant_id,
            rows=sum(changed.values()),
            reason=reason,
            detail={"changed": changed, **detail},
        )
    return changed


def _of_payments(label: str) -> tuple[str, str]:
    """SQL conditions: the rows to scan, and those of them to blank."""
    where = OF_PAYMENTS[label]
    return (MINE, where) if label in SEARCHED else (f"{MINE} AND {where}", "true")


async def _blank(label: str, where: str, sought: str, params: dict[str, Any]) -> int:
    """Scan a table in key order and blank the rows that meet `sought`; returns how many changed."""
    changed = 0
    async for step in _steps(label, where, sought, params):
        changed += step
    return changed


async def _steps(label: str, where: str, sought: str, params: dict[str, Any]) -> AsyncIterator[int]:
    model = apps.get_model(label)
    keys = [field.column for field in model._meta.pk_fields]
    after: Sequence[Any] | None = None
    while True:
        place = {f"after_{n}": value for n, value in enumerate(after or ())}
        query = _page(model, keys, label, where, sought, first=after is None)
        rows = await database.fetch(query, {**params, **place, "limit": ROWS}, prepare=False)
        if rows:
            yield sum(row[-1] for row in rows)
        if len(rows) < ROWS:
            return
        after = rows[-1][:-1]


def _page(model: type[models.Model], keys: Sequence[str], label: str, where: str, sought: str, *, first: bool) -> str:
    """The statement `page` for this table."""
    columns = PERSONAL[label]
    key = ", ".join(f"t.{name}" for name in keys)
    beyond = "" if first else f"({key}) > ({', '.join(f'%(after_{n})s' for n in range(len(keys)))})"
    unlike = " OR ".join(f"t.{name} IS DISTINCT FROM {_typed(model, name, blank)}" for name, blank in columns.items())
    tenant = MINE if any(field.column == "tenant_id" for field in model._meta.concrete_fields) else ""
    return SQL["page"].format(
        key=key,
        names=", ".join(keys),
        first=keys[0],
        table=model._meta.db_table,
        where=_all_of(where, ONLY.get(label), beyond),
        sets=", ".join(f"{name} = {blank}" for name, blank in columns.items()),
        sought=_all_of(*(f"t.{name} = page.{name}" for name in keys), tenant, f"({unlike})", f"({sought})"),
    )


def _all_of(*conditions: str | None) -> str:
    return " AND ".join(condition for condition in conditions if condition)


def _typed(model: type[models.Model], column: str, blank: str) -> str:
    """The replacement with its type, which `IS DISTINCT FROM` needs for a JSON literal."""
    field = next(field for field in model._meta.concrete_fields if field.column == column)
    return f"{blank}::jsonb" if isinstance(field, models.JSONField) else blank


erase_sync, erase_payments_sync = sync_twin(erase), sync_twin(erase_payments)
