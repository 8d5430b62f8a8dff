"""Read payments: one, a page, all. Results are the objects of contract section 2; figures of the home are in figures.py."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import CharField, OuterRef, Subquery
from django.db.models.functions import Coalesce

from payments.books.events import status_body
from payments.models import Attempt, Payment, Processor
from payments.models.payments import EVER
from payments.money import decimal_text
from payments.states import OPEN, Status
from registry.data import database
from registry.data.reading import elsewhere
from registry.edge.api import iso
from registry.edge.paging import below, cursor_after
from registry.errors import Invalid

SQL = database.statements(Path(__file__).parent / "sql" / "queries.sql")
METHOD_FIELDS = ("paymentMethod", "customer", "offSession")  # of a payment's method, shown to its sender


@dataclass(frozen=True, slots=True)
class PaymentFilters:
    """Filters of a list; None: no filter. Times of creation, both inclusive."""

    status: str | None = None
    processor: str | None = None
    from_: datetime | None = None
    to: datetime | None = None

    def __post_init__(self) -> None:
        if "\0" in (self.processor or ""):
            raise Invalid(errors=[{"field": "processor", "message": "contains NUL"}])


# -- One payment -------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A row of the statement `payment`."""

    correlation_id: UUID
    status: str
    amount: int
    currency: str
    processor_name: str | None
    attempt: int
    changed_at: datetime
    sequence: int
    id: int
    created_at: datetime
    description: str
    method: dict[str, Any] | None
    metadata: dict[str, Any] | None
    fee: int | None
    refunded: int
    code: str
    scheduled_for: datetime | None
    priority: int
    return_url: str


async def _stored(tenant_id: int, correlation_id: UUID) -> Stored | None:
    rows = await database.fetch(SQL["payment"], {"tenant": tenant_id, "correlation": correlation_id})
    return Stored(*rows[0]) if rows else None


async def status_of(tenant_id: int, correlation_id: UUID) -> dict[str, Any] | None:
    """The object of `GET /payments/{id}/status`."""
    payment = await _stored(tenant_id, correlation_id)
    return payment and _status(payment)


async def item_of(tenant_id: int, correlation_id: UUID) -> dict[str, Any] | None:
    """The object of `GET /payments/{id}` without its history."""
    payment = await _stored(tenant_id, correlation_id)
    return payment and _content(payment)


async def detail_of(tenant_id: int, correlation_id: UUID) -> dict[str, Any] | None:
    """The object of `GET /payments/{id}`: status, content, attempts and timeline."""
    payment = await _stored(tenant_id, correlation_id)
    if payment is None:
        return None
    of = {"tenant": tenant_id, "payment": payment.id}
    return {
        **_content(payment),
        "attempts": [_attempt(*row[:-1]) for row in await database.fetch(SQL["attempts"], of)],
        "timeline": [_event(*row[:-1]) for row in await database.fetch(SQL["timeline"], of)],
    }


def _content(payment: Stored) -> dict[str, Any]:
    return {
        **full_item(payment),
        **{name: (payment.method or {}).get(name) for name in METHOD_FIELDS},
        "code": payment.code or None,
        "scheduledFor": iso(payment.scheduled_for) if payment.scheduled_for else None,
        "priority": payment.priority,
        "returnUrl": payment.return_url or None,
    }


def _status(payment: Any) -> dict[str, Any]:
    """The status object of a `Stored` payment, or of a row of a list."""
    return status_body(
        correlation_id=payment.correlation_id,
        status=payment.status,
        amount=payment.amount,
        currency=payment.currency,
        processor=payment.processor_name,
        attempts=payment.attempt,
        updated_at=payment.changed_at,
        sequence=payment.sequence,
    )


def _item(payment: Any) -> dict[str, Any]:
    return {**_status(payment), "createdAt": iso(payment.created_at), "description": payment.description}


def full_item(payment: Any) -> dict[str, Any]:
    return {
        **_item(payment),
        "metadata": payment.metadata or {},
        "fee": None if payment.fee is None else decimal_text(payment.fee, payment.currency),
        "refunded": decimal_text(payment.refunded, payment.currency),
    }


def _attempt(
    number: int,
    processor: str | None,
    reason: str,
    requested_at: datetime,
    outcome: str,
    code: str,
    latency_ms: int | None,
) -> dict[str, Any]:
    return {
        "number": number,
        "processor": processor,
        "reason": reason,
        "requestedAt": iso(requested_at),
        "outcome": outcome or None,
        "code": code or None,
        "latencyMs": latency_ms,
    }


def _event(sequence: int, at: datetime, status: str, detail: str, kind: str) -> dict[str, Any]:
    event = {"sequence": sequence, "at": iso(at), "status": status, "detail": detail}
    return event | {"kind": kind} if kind else event


# -- Many ----------------------------------------------------------------------------------------------------

_latest_attempt = Attempt.objects.filter(
    tenant_id=OuterRef("tenant_id"), payment_id=OuterRef("id"), number=OuterRef("attempt")
)
_processor_name = Subquery(
    Processor.objects.filter(id=OuterRef("at_processor")).values("name")[:1], output_field=CharField()
)
_ITEM = (
    "id",
    "correlation_id",
    "status",
    "amount",
    "currency",
    "processor_name",
    "attempt",
    "changed_at",
    "sequence",
    "created_at",
    "description",
)
_FULL = (*_ITEM, "fee", "refunded", "metadata")


def _filtered(tenant_id: int, filters: PaymentFilters) -> Any:
    payments = Payment.async_objects.of(tenant_id).filter(created_at__gt=EVER)  # the condition of the list's index
    if filters.status:
        # By `closed`, which has an index, where it is equivalent.
        status = Status(filters.status)
        payments = payments.filter(closed=None, status=status) if status in OPEN else payments.filter(closed=status)
    if filters.processor:
        payments = payments.filter(
            processor_id__in=Processor.objects.filter(tenant_id=tenant_id, name=filters.processor).values("id")
        )
    if filters.from_:
        payments = payments.filter(created_at__gte=filters.from_)
    if filters.to:
        payments = payments.filter(created_at__lte=filters.to)
    return payments


async def _rows(
    tenant_id: int, filters: PaymentFilters, limit: int, cursor: str | None, columns: Sequence[str] = _ITEM
) -> list[Any]:
    payments = _filtered(tenant_id, filters).filter(below(cursor))
    described = payments.annotate(
        at_processor=Coalesce("processor_id", Subquery(_latest_attempt.values("processor_id")[:1]))
    ).annotate(processor_name=_processor_name)
    return [row async for row in described.order_by("-created_at", "-id").values_list(*columns, named=True)[:limit]]


_exported = elsewhere("payments.export")(_rows)


async def page_of(
    tenant_id: int, filters: PaymentFilters, *, limit: int = 50, cursor: str | None = None
) -> dict[str, Any]:
    """{"items", "next", "total"}, newest first. The page and the count are read concurrently."""
    rows, total = await database.concurrently(
        lambda: _rows(tenant_id, filters, limit + 1, cursor), lambda: _filtered(tenant_id, filters).acount()
    )
    more = len(rows) > limit
    return {
        "items": [_item(row) for row in rows[:limit]],
        "next": cursor_after(rows[limit - 1]) if more else None,
        "total": total,
    }


async def count_of(tenant_id: int, filters: PaymentFilters) -> int:
    return await _filtered(tenant_id, filters).acount()


async def all_of(tenant_id: int, filters: PaymentFilters, *, full: bool = False) -> AsyncIterator[list[dict[str, Any]]]:
    """All payments, newest first, in chunks; no connection is held between chunks. `full`: with fees, refunds and metadata."""
    cursor, size = None, settings.BATCH_SIZE * 10
    item, columns = (full_item, _FULL) if full else (_item, _ITEM)
    while True:
        rows = await _exported(tenant_id, filters, size, cursor, columns)
        await database.release()
        if rows:
            yield [item(row) for row in rows]
        if len(rows) < size:
            return
        cursor = cursor_after(rows[-1])
