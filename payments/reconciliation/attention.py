"""Source of attention: discrepancies between processors' records and ours."""

from collections.abc import Sequence
from pathlib import Path

from payments.models import Difference
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_reconciliation.sql")
MONEY_MOVED = {Difference.Kind.MISSING_HERE, Difference.Kind.MISSING_THERE, Difference.Kind.DUPLICATE}


@source("discrepancies")
async def discrepancies(tenant_ids: Sequence[int] | None) -> list[Item]:
    rows = await open_differences(tenant_ids)
    if not rows:
        return []
    total = sum(row[1] for row in rows)
    kinds = ", ".join(f"{row[1]:,} {Difference.Kind(row[0]).label.lower()}" for row in sorted(rows))
    said = f"{counted(total, 'discrepancy', 'discrepancies')} between a processor's records and ours: {kinds}."
    return [
        Item(
            severity=Severity.CRITICAL if {row[0] for row in rows} & MONEY_MOVED else Severity.WARNING,
            sentence=f"{said} Either side may hold money that the other does not know.",
            count=total,
            since=min(row[2] for row in rows),
            action="Re-check, book or close",
            page="/discrepancies/list?status=open",
            admin=address_of_list(Difference),
        )
    ]


async def open_differences(tenant_ids: Sequence[int] | None) -> list[database.Row]:
    """By kind: kind, count, since when."""
    return await database.fetch(SQL["open"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)
