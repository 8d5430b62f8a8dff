"""Compare the roll-ups by second and by hour with the payments that were booked in them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from payments.books.check.reading import SQL, money
from registry.tenants.books import SLICE, BookDifference, BookSlice, book_part, read

BEGINNING, END = "-infinity", "infinity"
WIDTHS = {1: "second", 3600: "hour"}
PAYMENTS = 5 * SLICE  # of a slice, and as many more as are in its last hour


@book_part("roll-ups")
async def rollups(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Processor by processor, in whole hours of requestedAt. `after`: a processor's id, and an hour as text."""
    accounts = await read(SQL["accounts"], {"tenant": tenant_id})
    first, start = after or (0, BEGINNING)
    for number, (processor, name) in enumerate(accounts):
        if processor < first:
            continue
        start = start if processor == first else BEGINNING
        while start != END:
            params = {"tenant": tenant_id, "processor": processor, "start": start}
            [(end,)] = await read(SQL["rollup_end"], {**params, "limit": PAYMENTS})
            [(*_, payments, _, _), *rows] = await read(SQL["rollups"], {**params, "end": end})
            differences = [_difference(name or str(processor), *row) for row in rows]
            share = (number + (end == END)) / len(accounts)
            yield BookSlice(rows=payments, share=share, after=[processor, end], differences=differences)
            start = end


def _difference(
    processor: str, width: int, at: datetime, currency: str, payments: int, amount: int, fee: int, *counted: int
) -> BookDifference:
    return BookDifference(
        kind=f"rollup.{WIDTHS[width]}",
        subject=f"roll-up of the {WIDTHS[width]} {at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, processor {processor}",
        stored=_totals(currency, payments, amount, fee),
        expected=f"{_totals(currency, *counted)}, as its payments add up to",
    )


def _totals(currency: str, payments: int, amount: int, fee: int) -> str:
    return f"{payments} payments, {money(amount, currency)}, fees {money(fee, currency)}"
