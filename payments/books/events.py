"""The numbered events of payments: their live messages, and the stream that reads them back from PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from payments.money import decimal_text
from payments.states import shown_state
from registry.data import database, db_breaker, live
from registry.data.stream import EventStream
from registry.edge.api import ENCODER, iso

SQL = database.statements(Path(__file__).parent / "sql" / "events.sql")
NAME = "payments"  # of the stream


def status_body(
    *,
    correlation_id: UUID | str,
    status: str,
    amount: int,
    currency: str,
    processor: str | None,
    attempts: int,
    updated_at: datetime,
    sequence: int,
) -> dict:
    """The object of `GET /payments/{id}/status` (contract section 2), which live messages carry too."""
    return {
        "correlationId": str(correlation_id),
        "status": status,
        "amount": decimal_text(amount, currency),
        "currency": currency,
        "processor": processor,
        "attempts": attempts,
        "updatedAt": iso(updated_at),
        "sequence": sequence,
    }


def event(*, tenant: int, position: int, beside: dict[str, str] | None = None, **fields) -> live.Event:
    """A live event from the fields of `status_body`."""
    body = status_body(**fields)
    subject, sequence = body["correlationId"], body["sequence"]
    return live.Event(NAME, tenant, position, subject, sequence, ENCODER.encode(body), beside or {})


_COLUMNS = ("correlation_id", "status", "amount", "currency", "processor", "attempts", "updated_at", "sequence")


def from_row(row: database.Row) -> live.Event:
    """A live event from tenant, position, the fields of `status_body` in their order, and for an event of a refund or a
    dispute what was refunded, and whether a dispute is open or lost (else NULL)."""
    tenant, position, *fields, refunded, disputed, lost = row
    found = dict(zip(_COLUMNS, fields, strict=True))
    beside = {} if refunded is None else reversal(**found, refunded=refunded, disputed=disputed, lost=lost)
    return event(tenant=tenant, position=position, beside=beside, **found)


def reversal(
    *, status: str, amount: int, currency: str, refunded: int, disputed: bool | None, lost: bool | None, **_: object
) -> dict[str, str]:
    """What a message says beside the status of a payment whose money was, or may be, taken back."""
    shown = shown_state(status, amount=amount, refunded=refunded, disputed=bool(disputed), lost=bool(lost))
    return {"shown": shown.value, "refunded": decimal_text(refunded, currency)}


async def since(tenant: int, after: int, limit: int) -> list[live.Event]:
    """A tenant's events numbered above `after`, in order, at most `limit`."""
    rows = await database.fetch(SQL["since"], {"tenant": tenant, "after": after, "limit": limit})
    return [from_row(row) for row in rows]


async def of_payment(tenant: int, correlation_id: UUID, after: int) -> list[live.Event]:
    """One payment's events with a sequence above `after`, in order."""
    params = {"tenant": tenant, "correlation": correlation_id, "after": after}
    return [from_row(row) for row in await database.fetch(SQL["of_payment"], params)]


async def positions(tenants: Sequence[int]) -> dict[int, int]:
    """The numbers of these tenants' latest events."""
    return dict(await database.fetch(SQL["positions"], {"tenants": list(tenants)}))


async def follow_until[T](
    tenant: int, correlation_id: UUID, read: Callable[[], Awaitable[T]], ended: Callable[[T], bool], *, within: float
) -> T:
    """Read an object of a payment at each event of the payment, until it has `ended`. Raises TimeoutError, Unavailable (503)."""
    try:
        async with asyncio.timeout(within), STREAM.follow(tenant, correlation_id) as subscription:
            while not ended(found := await db_breaker.attempt(read, writes=False)):
                await subscription.get()
            return found
    except live.TooSlow:
        raise TimeoutError from None


STREAM = EventStream(name=NAME, since=since, of_subject=of_payment, positions=positions)
