"""Events about payment intents. They settle nothing: where the processor says something else than we have, a worker looks again."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from payments.inbound.handlers import HANDLERS, Effect, Event, Later, Missing, label_of
from payments.inbound.receive import SQL
from payments.processors.base import Order, Processor, Result
from payments.settle import lifecycle
from payments.states import PROCESSING, REQUIRES_ACTION, UNCERTAIN
from registry.data import database

NOT_OURS = Effect("not ours")


class Subject(NamedTuple):
    """The payment that an event is about, as the statement of that name returns it."""

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


async def payment_intent(event: Event, processor: Processor) -> Effect:
    """Have the payment looked at again if it stands differently there. Raises Later."""
    correlation_id = label_of(event.tenant_id, event.object)
    if correlation_id is None:
        return NOT_OURS
    subject = await subject_of(event.tenant_id, correlation_id)
    if subject is None:
        raise Missing
    if subject.processor_id is not None and subject.processor_id != event.account.id:
        return Effect("of another processor's attempt", subject.payment_id)
    if subject.status not in (PROCESSING, UNCERTAIN, REQUIRES_ACTION):
        return Effect("nothing new", subject.payment_id)
    if subject.leased:
        raise Later("a worker has the payment in hand")
    if subject.status == REQUIRES_ACTION and await _waits_still(event, correlation_id, subject, processor):
        return Effect("nothing new", subject.payment_id)
    write, after = looking_again(event.tenant_id, correlation_id)
    return Effect("looked at again", subject.payment_id, write, after, touches=(correlation_id,))


async def subject_of(tenant_id: int, correlation_id: UUID) -> Subject | None:
    rows = await database.fetch(SQL["subject"], {"tenant": tenant_id, "correlation": correlation_id})
    return Subject._make(rows[0]) if rows else None


async def is_known(tenant_id: int, processor_id: int, object: dict[str, Any], object_id: str) -> bool:
    """Whether an event's object is about a payment, refund or dispute of ours, by its label and its id."""
    label = label_of(tenant_id, object)
    about = {"tenant": tenant_id, "processor": processor_id, "correlation": label, "reference": object_id}
    [(known,)] = await database.fetch(SQL["is_known"], about)
    return bool(known)


async def _waits_still(event: Event, correlation_id: UUID, subject: Subject, processor: Processor) -> bool:
    """Whether it waits there for what we know of. The event may be an old one: only the object itself can tell.

    It is asked without its method, so that no step is taken on the way: that is a worker's, with the payment in hand.
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
        raise Later(f"{event.account.name} gave no clear answer ({found.code})", patient=True)
    return found.result is Result.REQUIRES_ACTION and found.action == subject.action


def looking_again(
    tenant_id: int, correlation_id: UUID
) -> tuple[Callable[[AsyncConnection], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """Two callables: `write` has a worker look at the payment again, in the event's transaction; `announce` follows its commit."""
    looked: list[lifecycle.Looked] = []

    async def write(conn: AsyncConnection) -> None:
        looked[:] = [await lifecycle.look_again_within(conn, tenant_id=tenant_id, correlation_ids=[correlation_id])]

    async def announce() -> None:
        for rows in looked:
            await lifecycle.announce(tenant_id, rows)

    return write, announce


HANDLERS["payment_intent."] = payment_intent
