"""Handler of events about payment intents. It settles nothing: if the state differs, a worker asks the processor again."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from payments.inbound.handlers import HANDLERS, Effect, NotFoundYet, ProcessorEvent, RetryLater, label_of
from payments.inbound.receive import SQL
from payments.processors.base import Order, Processor, Result
from payments.settle import lifecycle
from payments.states import PROCESSING, REQUIRES_ACTION, UNCERTAIN
from registry.data import database

NOT_OURS = Effect("not ours")


class PaymentState(NamedTuple):
    """The payment that an event is about; its fields are the columns of the statement `subject`."""

    payment_id: int
    status: str
    leased: bool
    amount: int
    currency: str
    description: str
    processor_id: int | None  # of its latest attempt, as all below
    requested_at: datetime | None
    reference: str | None
    action: dict[str, Any] | None


async def payment_intent(event: ProcessorEvent, processor: Processor) -> Effect:
    """Have a worker ask the processor again if its state of the payment differs from ours. Raises RetryLater."""
    correlation_id = label_of(event.tenant_id, event.object)
    if correlation_id is None:
        return NOT_OURS
    subject = await subject_of(event.tenant_id, correlation_id)
    if subject is None:
        raise NotFoundYet
    if subject.processor_id is not None and subject.processor_id != event.account.id:
        return Effect("of another processor's attempt", subject.payment_id)
    if subject.status not in (PROCESSING, UNCERTAIN, REQUIRES_ACTION):
        return Effect("nothing new", subject.payment_id)
    if subject.leased:
        raise RetryLater("a worker has leased the payment")
    if subject.status == REQUIRES_ACTION and await _still_waits(event, correlation_id, subject, processor):
        return Effect("nothing new", subject.payment_id)
    write, after = looking_again(event.tenant_id, correlation_id)
    return Effect("looked at again", subject.payment_id, write, after, touches=(correlation_id,))


async def subject_of(tenant_id: int, correlation_id: UUID) -> PaymentState | None:
    rows = await database.fetch(SQL["subject"], {"tenant": tenant_id, "correlation": correlation_id})
    return PaymentState._make(rows[0]) if rows else None


async def is_known(tenant_id: int, processor_id: int, object: dict[str, Any], object_id: str) -> bool:
    """Whether an event's object is a payment, refund or dispute of ours, by the metadata and the id."""
    label = label_of(tenant_id, object)
    about = {"tenant": tenant_id, "processor": processor_id, "correlation": label, "reference": object_id}
    [(known,)] = await database.fetch(SQL["is_known"], about)
    return bool(known)


async def _still_waits(
    event: ProcessorEvent, correlation_id: UUID, subject: PaymentState, processor: Processor
) -> bool:
    """Whether it still requires the action that we have stored. The event may be old, so the object is fetched.

    The look-up has no payment method, so that it changes nothing at the processor: only a worker with the lease may do that.
    """
    if subject.requested_at is None or not subject.reference:
        return False
    order = Order(
        correlation_id=correlation_id,
        amount=subject.amount,
        currency=subject.currency,
        requested_at=subject.requested_at,
        tenant_id=event.tenant_id,
        description=subject.description,
        reference=subject.reference,
    )
    found = await processor.look_up(order, event.account)
    if found.result is Result.UNKNOWN:
        raise RetryLater(f"{event.account.name} gave no clear answer ({found.code})", patient=True)
    return found.result is Result.REQUIRES_ACTION and found.action == subject.action


def looking_again(
    tenant_id: int, correlation_id: UUID
) -> tuple[Callable[[AsyncConnection], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """`write` makes the payment due for a look-up, in the event's transaction; `announce` is called after its commit."""
    looked: list[lifecycle.Looked] = []

    async def write(conn: AsyncConnection) -> None:
        looked[:] = [await lifecycle.look_again_within(conn, tenant_id=tenant_id, correlation_ids=[correlation_id])]

    async def announce() -> None:
        for rows in looked:
            await lifecycle.announce(tenant_id, rows)

    return write, announce


HANDLERS["payment_intent."] = payment_intent
