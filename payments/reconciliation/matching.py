"""Match a processor's records with our payments, and name the differences. No I/O: comparison.py reads both."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from payments.books.external import possible_ids
from payments.models import Difference
from payments.processors.base import Account, Order, ProcessorRecord
from payments.states import SUCCEEDED, TERMINAL
from registry.data import clock

UNDER_WAY = timedelta(minutes=15)  # after its last change a worker may still settle a payment or refund

Kind = Difference.Kind


class Ours(NamedTuple):
    """A payment in our books, in the order of `columns`."""

    id: int
    correlation_id: UUID
    amount: int
    currency: str
    refunded: int
    requested_at: datetime | None
    status: str
    processor_id: int | None
    created_at: datetime
    changed_at: datetime
    reference: str | None
    booked_for: str | None  # external: the correlation id of the processor's record

    def order(self, account: Account, reference: str = "") -> Order:
        return Order(
            correlation_id=UUID(self.booked_for) if self.booked_for else self.correlation_id,
            amount=self.amount,
            currency=self.currency,
            requested_at=self.requested_at or self.created_at,
            tenant_id=account.tenant_id,
            reference=reference or self.reference or "",
        )


class NewDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A difference to be stored."""

    kind: str
    key: str
    requested_at: datetime
    correlation_id: UUID | None = None
    reference: str = ""
    payment_id: int | None = None
    our_status: str = ""
    our_amount: int | None = None
    our_currency: str = ""
    our_refunded: int | None = None
    their_amount: int | None = None
    their_currency: str = ""
    their_refunded: int | None = None


def ids_of(account: Account, record: ProcessorRecord) -> list[UUID]:
    return possible_ids(account.tenant_id, account.id, record.correlation_id, record.reference)


def match(account: Account, record: ProcessorRecord, by_id: dict[UUID, Ours], seen: set[UUID]) -> NewDifference | None:
    """The difference between a processor's record and our books, or None. `seen` collects the payments with a record."""
    known = [one for name in ids_of(account, record) if (one := by_id.get(name))]
    booked = [one for one in known if one.status == SUCCEEDED and one.processor_id == account.id]
    for one in booked:
        if _is_its_booking(one, record, seen):
            seen.add(one.correlation_id)
            return _differs(record, one)
    if booked:
        return _difference(Kind.DUPLICATE, record, booked[0], key=record.reference or str(booked[0].correlation_id))
    ours = by_id.get(record.correlation_id) if record.correlation_id else None
    if ours is not None and ours.status == SUCCEEDED:
        return _difference(Kind.DUPLICATE, record, ours)  # booked at another processor by our books
    if ours is not None and _is_under_way(ours):
        return None
    return _difference(Kind.MISSING_HERE, record, ours)


def _is_its_booking(ours: Ours, record: ProcessorRecord, seen: set[UUID]) -> bool:
    """By reference; if a side has none, the first record that is compared."""
    if ours.reference and record.reference:
        return ours.reference == record.reference
    return ours.correlation_id not in seen


def _is_under_way(ours: Ours) -> bool:
    """Also a payment that requires an action: it may be booked at any moment."""
    return ours.status not in TERMINAL and clock.now() - ours.changed_at < UNDER_WAY


def _differs(record: ProcessorRecord, ours: Ours) -> NewDifference | None:
    if record.currency.upper() != ours.currency:
        return _difference(Kind.CURRENCY, record, ours)
    if record.amount != ours.amount:
        return _difference(Kind.AMOUNT, record, ours)
    if record.refunded != ours.refunded:
        return _difference(Kind.REFUNDED, record, ours)
    return None


def _difference(kind: Kind, record: ProcessorRecord, ours: Ours | None, *, key: str = "") -> NewDifference:
    return NewDifference(
        kind=kind.value,
        key=key or str(record.correlation_id or record.reference),
        requested_at=record.requested_at,
        correlation_id=record.correlation_id,
        reference=record.reference[:255],
        their_amount=record.amount,
        their_currency=record.currency.upper(),
        their_refunded=record.refunded,
        **_our_side(ours),
    )


def _our_side(ours: Ours | None) -> dict[str, Any]:
    if ours is None:
        return {}
    return {
        "payment_id": ours.id,
        "our_status": ours.status,
        "our_amount": ours.amount,
        "our_currency": ours.currency,
        "our_refunded": ours.refunded,
    }


def missing_there(ours: Ours) -> NewDifference:
    return NewDifference(
        kind=Kind.MISSING_THERE.value,
        key=str(ours.correlation_id),
        requested_at=ours.requested_at or ours.created_at,
        correlation_id=ours.correlation_id,
        reference=ours.reference or "",
        **_our_side(ours),
    )
