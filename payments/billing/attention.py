"""Sources of attention of a merchant: a plan that is not paid, and what is missing before going live."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from payments.billing import readiness
from payments.billing.dunning import CONSEQUENCES
from payments.models.billing import Dunning
from registry.data import database
from registry.operators.attention import Item, Severity, source

SQL = database.statements(Path(__file__).parent / "sql" / "merchant.sql")
LISTED = 10  # tenants with a line of their own, for operators
LABELS = {name: label[0].lower() + label[1:] for name, label, _ in readiness.CHECKS}


@source("plan.unpaid")
async def unpaid(tenant_ids: Sequence[int] | None) -> list[Item]:
    asked = {"tenants": None if tenant_ids is None else list(tenant_ids), "limit": LISTED}
    rows = await database.fetch(SQL["unpaid"], asked, prepare=False)
    return [_unpaid(*row, of_one=tenant_ids is not None and len(tenant_ids) == 1) for row in rows]


def _unpaid(slug: str, dunning: str, since: datetime | None, *, of_one: bool) -> Item:
    consequence = CONSEQUENCES[Dunning(dunning)]
    return Item(
        severity=Severity.CRITICAL if consequence.refused else Severity.WARNING,
        sentence=consequence.banner if of_one else f"{slug}: {consequence.banner}",
        since=since,
        action="View plan",
        page="/plan",
        admin=f"/admin/payments/subscription/?q={slug}",
    )


@source("plan.go_live")
async def go_live(tenant_ids: Sequence[int] | None) -> list[Item]:
    """For tenants only. The checks that call processors, and that the sandbox is empty, are the last steps, on the plan's page."""
    if tenant_ids is None:
        return []
    rows = await database.fetch(SQL["go_live"], {"tenants": list(tenant_ids)}, prepare=False)
    return [_missing(*row) for row in rows]


def _missing(names: Sequence[str], since: datetime) -> Item:
    what = ", ".join(LABELS[name] for name in names)
    return Item(
        severity=Severity.NOTICE,
        sentence=f"Before going live, this is missing: {what}. Until then no payment moves money.",
        count=len(names),
        since=since,
        action="Go live",
        page="/plan",
    )
