"""Source of attention: dead letters of payments, with what they mean for the money."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from payments.models import DeadLetter
from payments.money import grouped_text
from payments.states import FAILED, UNCERTAIN
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_settle.sql")
MEANS = {
    UNCERTAIN.value: "uncertain: the payer may have been charged",
    FAILED.value: "failed: the payer was not charged",
}


@source("payments.dead_letters")
async def dead_letters(tenant_ids: Sequence[int] | None) -> list[Item]:
    rows = await open_letters(tenant_ids)
    if not rows:
        return []
    total = sum(row[2] for row in rows)
    doubtful = any(row[0] == UNCERTAIN for row in rows)
    said = f"{counted(total, 'payment')} ran out of attempts. {'; '.join(_part(rows, status) for status in _statuses(rows))}."
    return [
        Item(
            severity=Severity.CRITICAL if doubtful else Severity.WARNING,
            sentence=said,
            count=total,
            since=min(row[4] for row in rows),
            action="Replay or close",
            page="/payments/list?status=attention",
            admin=address_of_list(DeadLetter),
        )
    ]


async def open_letters(tenant_ids: Sequence[int] | None) -> list[database.Row]:
    """Open dead letters by their payments' status and currency: status, currency, count, amount, since when."""
    return await database.fetch(SQL["dead_letters"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)


def _statuses(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Uncertain ones first: their money is in doubt."""
    return sorted({row[0] for row in rows}, key=lambda status: (status != UNCERTAIN, status != FAILED, status))


def _part(rows: Sequence[tuple[Any, ...]], status: str) -> str:
    mine = [row for row in rows if row[0] == status]
    amounts = " and ".join(grouped_text(units, currency) for _, currency, _, units, _ in mine if currency)
    return f"{counted(sum(row[2] for row in mine))}{f' ({amounts})' if amounts else ''} {MEANS.get(status, 'in another state by now')}"
