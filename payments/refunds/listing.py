"""Lists of a tenant's refunds and disputes for the console, the newest first, through at most LOOKED_AT rows per page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from payments.books.search import BEGINNING, END, TookTooLong, escaped, ids_beginning, within_limits
from registry.data import database
from registry.data.reading import elsewhere

SQL = database.statements(Path(__file__).parent / "sql" / "listing.sql")

LOOKED_AT = 20_000  # refunds or disputes
STOPPED: Final = "stopped"  # beside the states of refunds: workers gave them up, and a person retries or closes them
DISPUTE_STATES: Final = ("needs_response", "under_review", "won", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversalFilters:
    """Filters of both lists; empty or None: no filter. `text`: the beginning of an id, a reference, or words of the reason."""

    text: str = ""
    state: str = ""
    since: datetime | None = None
    until: datetime | None = None


class RefundRow(NamedTuple):
    """A refund, in the order of the statement."""

    id: int
    public_id: UUID
    correlation_id: UUID
    status: str
    amount: int
    currency: str
    reason: str
    reference: str
    code: str
    external: bool
    actor: str
    processor: str | None
    stopped: bool
    created_at: datetime
    changed_at: datetime


class DisputeRow(NamedTuple):
    """A dispute, in the order of the statement."""

    id: int
    reference: str
    correlation_id: UUID
    status: str
    amount: int
    currency: str
    reason: str
    due_by: datetime | None
    withdrawn: int
    opened_at: datetime
    closed_at: datetime | None
    processor: str | None
    kind: str | None
    url: str | None

    @property
    def state(self) -> str:
        """Of DISPUTE_STATES: what the money does, in the words of Stripe's dashboard."""
        if self.closed_at:
            return "lost" if self.withdrawn > 0 else "won"
        return "needs_response" if self.status.endswith("needs_response") else "under_review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversalPage[Row]:
    """A page of rows, and the id behind which the next one begins. `further`: this one ended at the limit of rows."""

    rows: list[Row] = field(default_factory=list)
    next: int | None = None
    further: bool = False
    timed_out: bool = False

    @classmethod
    def of(cls, rows: list[Row], *, limit: int, ends: int | None) -> Self:
        more = len(rows) > limit
        behind = rows[limit - 1].id if more else ends  # type: ignore[attr-defined]
        return cls(rows=rows[:limit], next=behind, further=not more and ends is not None)


@elsewhere("reversals.list", confirm=lambda page: not page.rows)
async def refunds(
    tenant_id: int, filters: ReversalFilters, *, limit: int, before: int | None = None
) -> ReversalPage[RefundRow]:
    """A page of refunds; `before`: the id behind which it begins."""
    state = None if filters.state in ("", STOPPED) else filters.state
    more = {"status": state, "stopped": filters.state == STOPPED}
    found = await looked_through(SQL["refunds"], tenant_id, filters, limit, before, more)
    if found is None:
        return ReversalPage(timed_out=True)
    rows = [RefundRow._make(row[:-1]) for row in found if row[0] is not None]
    return ReversalPage.of(rows, limit=limit, ends=found[0][-1])


@elsewhere("reversals.list", confirm=lambda page: not page.rows)
async def disputes(
    tenant_id: int, filters: ReversalFilters, *, limit: int, before: int | None = None
) -> ReversalPage[DisputeRow]:
    """A page of disputes; `before`: the id behind which it begins."""
    found = await looked_through(SQL["disputes"], tenant_id, filters, limit, before, {"status": filters.state or None})
    if found is None:
        return ReversalPage(timed_out=True)
    rows = [DisputeRow._make(row[:-1]) for row in found if row[0] is not None]
    return ReversalPage.of(rows, limit=limit, ends=found[0][-1])


async def looked_through(
    sql: str, tenant_id: int, filters: ReversalFilters, limit: int, before: int | None, more: Mapping[str, Any]
) -> list[database.Row] | None:
    """The rows of a list's statement, one more than `limit`, and in each where the look ended; None if it took too long."""
    first, last = ids_beginning(filters.text)
    parameters = {
        "tenant": tenant_id,
        "before": before or END[1],
        "most": LOOKED_AT,
        "limit": limit + 1,
        "since": filters.since or BEGINNING[0],
        "until": filters.until or END[0],
        "text": filters.text,
        "pattern": f"%{escaped(filters.text)}%",
        "first_id": first,
        "last_id": last,
        **more,
    }
    try:
        return await within_limits(sql, parameters)
    except TookTooLong:
        return None
