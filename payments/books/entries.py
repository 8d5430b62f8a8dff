"""Read the ledger: totals per currency, and its entries by page. Entries are written by settling, refunds and disputes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import OuterRef, Subquery

from payments.models import LedgerEntry, Payment, Processor
from payments.money import decimal_text
from registry.data import database
from registry.data.reading import elsewhere
from registry.edge.api import iso

SQL = database.statements(Path(__file__).parent / "sql" / "entries.sql")
# Ids follow time but for transactions that ran side by side: none takes as long as this.
SKEW = timedelta(minutes=10)
SLICE = 5_000  # entries read at once for a file


class Totals(NamedTuple):
    """Of one currency, in minor units: net is what is owed to the tenant."""

    currency: str
    payments: int
    gross: int
    fees: int
    refunds: int
    disputes: int

    @property
    def net(self) -> int:
        return self.gross - self.fees - self.refunds - self.disputes


@elsewhere("ledger.entries")
async def totals(tenant_id: int) -> list[Totals]:
    """By currency, those with most payments first. Bookings come from the roll-ups, which the proof compares with the entries."""
    return [Totals(*row) for row in await database.fetch(SQL["totals"], {"tenant": tenant_id})]


# -- Entries -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EntryFilters:
    """None: all. Times are inclusive. `payment`: its correlation id."""

    from_: datetime | None = None
    to: datetime | None = None
    account: str | None = None
    payment: UUID | None = None


class EntryPage(NamedTuple):
    """Entries, newest first, and the id before which the next page begins."""

    items: list[dict[str, Any]]
    next: int | None


@elsewhere("ledger.entries", confirm=lambda page: not page.items)
async def page_of(tenant_id: int, filters: EntryFilters, *, limit: int, before: int | None = None) -> EntryPage:
    """A page of entries. Reads no more than the page and the search for its time, however many entries there are."""
    found = await _filtered(tenant_id, filters)
    if found is None:
        return EntryPage([], None)
    if before is not None:
        found = found.filter(id__lt=before)
    rows = [entry async for entry in found.order_by("-id")[: limit + 1]]
    more = len(rows) > limit
    return EntryPage([_item(row) for row in rows[:limit]], rows[limit - 1].id if more else None)


async def all_of(tenant_id: int, filters: EntryFilters) -> AsyncIterator[list[dict[str, Any]]]:
    """All entries, oldest first, in slices; no connection is held between them."""
    after = 0
    while (rows := await _slice(tenant_id, filters, after)) is not None:
        await database.release()
        if rows:
            yield [_item(row) for row in rows]
        if len(rows) < SLICE:
            return
        after = rows[-1].id


@elsewhere("ledger.entries")
async def _slice(tenant_id: int, filters: EntryFilters, after: int) -> list[Any] | None:
    found = await _filtered(tenant_id, filters)
    if found is None:
        return None
    return [entry async for entry in found.filter(id__gt=after).order_by("id")[:SLICE]]


_correlation = Payment.objects.filter(tenant_id=OuterRef("tenant_id"), id=OuterRef("payment_id"))
_processor = Processor.objects.filter(tenant_id=OuterRef("tenant_id"), id=OuterRef("processor_id"))


async def _filtered(tenant_id: int, filters: EntryFilters) -> Any:
    """The entries that match; None if the payment does not exist."""
    entries = LedgerEntry.async_objects.filter(tenant_id=tenant_id).annotate(
        correlation_id=Subquery(_correlation.values("correlation_id")[:1]),
        processor=Subquery(_processor.values("name")[:1]),
    )
    if filters.payment:
        mine = Payment.async_objects.of(tenant_id).filter(correlation_id=filters.payment)
        if (payment_id := await mine.values_list("id", flat=True).afirst()) is None:
            return None
        entries = entries.filter(payment_id=payment_id)
    if filters.account:
        entries = entries.filter(account=filters.account)
    if filters.from_:
        entries = entries.filter(at__gte=filters.from_)
        if not filters.payment:
            entries = entries.filter(id__gte=await _first_since(tenant_id, _moved(filters.from_, -SKEW)))
    if filters.to:
        entries = entries.filter(at__lte=filters.to)
        if not filters.payment:
            entries = entries.filter(id__lt=await _first_since(tenant_id, _moved(filters.to, SKEW)))
    return entries


async def _first_since(tenant_id: int, at: datetime) -> int:
    """An id: the entries before it are older than that time, but for those that were written side by side."""
    rows = await database.fetch(SQL["first_since"], {"tenant": tenant_id, "at": at})
    return rows[0][0] if rows else 0


def _moved(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:  # the first or the last minutes of the calendar
        return at


def _item(entry: Any) -> dict[str, Any]:
    """Debits and credits are positive texts; one of them is empty."""
    amount = decimal_text(abs(entry.amount), entry.currency)
    return {
        "id": entry.id,
        "at": iso(entry.at),
        "cause": entry.cause,
        "account": entry.account,
        "processor": entry.processor or "",
        "correlationId": str(entry.correlation_id or ""),
        "debit": amount if entry.amount > 0 else "",
        "credit": amount if entry.amount < 0 else "",
        "currency": entry.currency,
    }
