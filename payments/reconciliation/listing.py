"""The list of a tenant's discrepancies for the console, the newest first."""

from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

from payments.models import Difference
from payments.refunds.listing import ReversalFilters, ReversalPage, looked_through
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "discrepancies.sql")

OPEN: Final = "open"  # beside the kinds and the resolutions: nobody has resolved them


class DiscrepancyRow(NamedTuple):
    """A discrepancy, in the order of the statement. Amounts are minor units; None: that side has no booking."""

    id: int
    kind: str
    correlation_id: UUID | None
    is_ours: bool  # whether there is a payment of ours
    reference: str
    our_status: str
    our_amount: int | None
    our_currency: str
    our_refunded: int | None
    their_amount: int | None
    their_currency: str
    their_refunded: int | None
    processor: str | None
    requested_at: datetime
    found_at: datetime
    resolution: str
    resolved_at: datetime | None
    resolved_by: str
    note: str

    @property
    def is_bookable(self) -> bool:
        """Whether the processor has a booking that could become a payment here."""
        kinds = (Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE)
        return not self.resolution and self.kind in kinds and bool(self.their_amount)


async def discrepancies(
    tenant_id: int, filters: ReversalFilters, *, limit: int, before: int | None = None
) -> ReversalPage[DiscrepancyRow]:
    """A page of discrepancies; `before`: the id behind which it begins. The filters' state is OPEN, a kind of open ones, or a resolution."""
    kind = filters.state if filters.state in Difference.Kind.values else None
    resolution = filters.state if filters.state in Difference.Resolution.values else None
    more = {"open": filters.state == OPEN or kind is not None, "kind": kind, "resolution": resolution}
    found = await looked_through(SQL["listed"], tenant_id, filters, limit, before, more)
    if found is None:
        return ReversalPage(timed_out=True)
    rows = [DiscrepancyRow._make(row[:-1]) for row in found if row[0] is not None]
    return ReversalPage.of(rows, limit=limit, ends=found[0][-1])
