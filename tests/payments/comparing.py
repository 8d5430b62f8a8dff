"""Bookings of ours and of a processor, written by hand and compared: for tests of differences and their resolution."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from payments.models import (
    Attempt,
    Difference,
    Payment,
    SandboxBooking,
)
from payments.reconciliation import comparison
from payments.reconciliation.comparison import Window
from payments.states import SUCCEEDED
from tests.factories import in_thread, make_payment

WHY = "the provider explained it"
HOUR = timedelta(hours=1)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
MORNING = Window(NOON - HOUR, NOON)


def book_here(tenant, processor, *, at=NOON - HOUR / 2, **fields) -> Payment:
    """A payment that we know as booked there, with its ledger lines and roll-ups."""
    payment = make_payment(tenant, status=SUCCEEDED, processor=processor, **fields)
    Payment.objects.filter(pk=payment.pk).update(requested_at=at)
    Attempt.objects.filter(payment=payment).update(requested_at=at)
    return Payment.objects.get(pk=payment.pk)


def book_there(
    processor, *, correlation_id: UUID | None = None, at=NOON - HOUR / 2, amount=1990, currency="BRL"
) -> UUID:
    """An entry in the processor's own books."""
    booking = SandboxBooking.objects.create(
        processor_id=processor.pk,
        correlation_id=correlation_id or uuid4(),
        amount=amount,
        currency=currency,
        requested_at=at,
    )
    return booking.correlation_id


def book_both(tenant, processor, **theirs) -> Payment:
    payment = book_here(tenant, processor)
    book_there(processor, correlation_id=payment.correlation_id, **theirs)
    return payment


async def account(tenant, name="default"):
    return next(one for one in await comparison.accounts_of(tenant.pk) if one.name == name)


async def compare(tenant, name="default", window=MORNING, **options):
    return await comparison.reconcile(await account(tenant, name), window, **options)


def found() -> list[Difference]:
    return list(Difference.objects.order_by("id"))


async def the_difference(kind: str) -> Difference:
    [one] = await in_thread(found)
    assert (one.kind, one.resolution) == (kind, "")
    return one
