"""Summary of what processors booked in a window of requestedAt: exact to the millisecond, as fast for 10 M payments as for ten.

The settling statement maintains roll-ups by second and by hour. A window is read as whole hours, whole seconds at both ends,
and single payments in the two seconds at its edges.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from payments.money import decimal_text
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "summary.sql")

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)  # the precision of requestedAt
NOTHING = ("infinity", "-infinity")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)  # no booking is later; the type ends soon after it

type Span = tuple[str, str]


def floor(at: datetime, width: timedelta) -> datetime:
    return at - (at - _EPOCH) % width


def ceiling(at: datetime, width: timedelta) -> datetime:
    return at + (_EPOCH - at) % width


def spans(start: datetime | None, end: datetime | None) -> dict[str, Span]:
    """Split an inclusive window into half-open spans: `hours`, `head` and `tail` seconds, `first` and `last` edges."""
    if start is not None and start >= END_OF_TIME:
        return dict.fromkeys(("hours", "head", "tail", "first", "last"), NOTHING)
    if end is not None and end >= END_OF_TIME:
        end = None
    if end is not None:
        end = floor(end, MILLISECOND) + MILLISECOND  # inclusive to the millisecond
    if start is not None and end is not None and start >= end:
        return dict.fromkeys(("hours", "head", "tail", "first", "last"), NOTHING)
    first = start and ceiling(start, SECOND)
    last = end and floor(end, SECOND)
    if first is not None and last is not None and first >= last:  # no whole second inside
        return {**dict.fromkeys(("hours", "head", "tail", "last"), NOTHING), "first": _span(start, end)}
    whole = {"first": _span(start, first) if start else NOTHING, "last": _span(last, end) if end else NOTHING}
    early = first and ceiling(first, HOUR)
    late = last and floor(last, HOUR)
    if early is not None and late is not None and early >= late:  # no whole hour inside
        return {**whole, "hours": NOTHING, "head": _span(first, last), "tail": NOTHING}
    return {
        **whole,
        "hours": _span(early, late),
        "head": _span(first, early) if first else NOTHING,
        "tail": _span(late, last) if last else NOTHING,
    }


def _span(start: datetime | None, end: datetime | None) -> Span:
    return (start.isoformat() if start else "-infinity", end.isoformat() if end else "infinity")


async def summary(
    *, tenant_id: int, start: datetime | None, end: datetime | None, currency: str | None = None
) -> dict[str, dict]:
    """Totals per processor name: {"totalRequests": int, "totalAmount": Decimal}; `start` and `end` are inclusive.

    Without `currency` amounts of all currencies are added up, as processors do.
    """
    totals: dict[str, dict] = {}
    for name, unit, payments, amount in await _read(tenant_id, start, end, currency):
        total = totals.setdefault(name, {"totalRequests": 0, "totalAmount": Decimal("0.00")})
        total["totalRequests"] += payments
        if payments:
            total["totalAmount"] += Decimal(decimal_text(amount, unit))
    return totals


async def volumes(*, tenant_id: int, start: datetime | None, end: datetime | None = None) -> dict[str, tuple[int, int]]:
    """Payments and their amount in minor units, by currency; the window as in `summary`."""
    found: dict[str, tuple[int, int]] = {}
    for _, unit, payments, amount in await _read(tenant_id, start, end, None):
        if payments:
            count, total = found.get(unit, (0, 0))
            found[unit] = (count + payments, total + amount)
    return found


async def _read(
    tenant_id: int, start: datetime | None, end: datetime | None, currency: str | None
) -> list[database.Row]:
    bounds = {
        f"{name}_{side}": at
        for name, span in spans(start, end).items()
        for side, at in zip(("from", "to"), span, strict=True)
    }
    return await database.fetch(SQL["summary"], {"tenant": tenant_id, "currency": currency, **bounds})
