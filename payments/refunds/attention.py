"""Sources of attention: refunds that workers gave up, and disputes whose evidence is due."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from payments.models import Dispute, Refund
from payments.money import grouped_text
from registry.data import clock, database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_refunds.sql")
WANT_ANSWER = ["needs_response", "warning_needs_response"]
SOON = timedelta(days=3)


async def stopped_refunds(tenant_ids: Sequence[int] | None) -> list[database.Row]:
    """By currency: currency, count, amount, since when, the tenant of the oldest."""
    return await database.fetch(SQL["stopped"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)


async def disputes_due(tenant_ids: Sequence[int] | None) -> list[database.Row]:
    """By currency: currency, count, amount, first deadline, how many are due soon, since when, the tenant of the oldest."""
    asked = {"tenants": tenant_ids, "limit": COUNTED, "statuses": WANT_ANSWER, "soon": SOON.total_seconds()}
    return await database.fetch(SQL["disputes"], asked, prepare=False)


def _amounts(rows: Sequence[tuple[Any, ...]]) -> str:
    return " and ".join(grouped_text(row[2], row[0]) for row in sorted(rows))


@source("refunds.stopped")
async def stopped(tenant_ids: Sequence[int] | None) -> list[Item]:
    rows = await stopped_refunds(tenant_ids)
    if not rows:
        return []
    total = sum(row[1] for row in rows)
    *_, since, slug = min(rows, key=lambda row: row[3])
    said = f"{counted(total, 'refund')} failed and nobody retries: {_amounts(rows)} may not have reached the payer."
    return [
        Item(
            severity=Severity.WARNING,
            sentence=said,
            count=total,
            since=since,
            action="Retry or close",
            page="/refunds/list?status=stopped",
            admin=address_of_list(Refund, tenant=slug, state="stopped"),
        )
    ]


@source("disputes.due")
async def disputes(tenant_ids: Sequence[int] | None) -> list[Item]:
    rows = await disputes_due(tenant_ids)
    if not rows:
        return []
    total, soon = sum(row[1] for row in rows), sum(row[4] for row in rows)
    deadlines = [row[3] for row in rows if row[3]]
    *_, since, slug = min(rows, key=lambda row: row[5])
    said = f"{counted(total, 'dispute')} of {_amounts(rows)} {'wants' if total == 1 else 'want'} evidence{_until(deadlines)}."
    return [
        Item(
            severity=Severity.CRITICAL if soon else Severity.WARNING,
            sentence=f"{said} Without it the money is lost.",
            count=total,
            since=since,
            action="See the disputes",
            page="/disputes/list?status=needs_response",
            admin=address_of_list(Dispute, tenant=slug),
        )
    ]


def _until(deadlines: Sequence[datetime]) -> str:
    if not deadlines:
        return ""
    first = min(deadlines).astimezone(UTC)
    return f", the first {'was due' if first < clock.now() else 'by'} {first:%Y-%m-%d %H:%M:%S} UTC"
