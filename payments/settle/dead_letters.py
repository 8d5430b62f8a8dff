"""Replay and close dead letters: payments that ran out of attempts. The settling of payments writes them."""

from pathlib import Path

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from psycopg import AsyncConnection

from payments.books import events
from payments.errors import PaymentError
from payments.models import DeadLetter
from registry.data import database, live
from registry.operators.decide import Lost, Moved, decide

SQL = database.statements(Path(__file__).parent / "sql" / "dead_letters.sql")
REPLAYED = "An operator tries it again."  # payers may read the timeline: neither the operator's name nor the reason


class BookedAsExternal(PaymentError):
    """Its booking stands in the books as a payment of its own: sending it again would charge its payer twice. Close the letter."""

    status = 409


async def replay(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Make the payment due again, once. False when the letter was resolved before, or the payment has moved on.

    Raises BookedAsExternal (409). A failed payment is queued; an uncertain one stays uncertain, and its processor is
    asked about it first.
    """

    async def move(_: AsyncConnection) -> list[Moved]:
        event = await _replay(dead_letter_id, actor)
        return [_moved(dead_letter_id, event.tenant, event.subject, event)] if event else []

    return bool(await decide(action="deadletter.replay", actor=actor, reason=reason, move=move))


async def close(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Close the letter and leave the payment as it is. False when it was resolved before."""

    async def move(_: AsyncConnection) -> list[Moved]:
        open_one = DeadLetter.async_objects.filter(pk=dead_letter_id, resolution="")
        closed = DeadLetter.Resolution.CLOSED
        if not await open_one.aupdate(resolution=closed, resolved_at=Now(), resolved_by=actor):
            return []
        letter = await DeadLetter.async_objects.aget(pk=dead_letter_id)
        return [_moved(dead_letter_id, letter.tenant_id, letter.payment_id)]

    return bool(await decide(action="deadletter.close", actor=actor, reason=reason, move=move))


def _moved(letter: int, tenant_id: int, payment: object, *told: live.Event) -> Moved:
    return Moved(target=f"dead letter {letter} of payment {payment}", tenant_id=tenant_id, events=told)


async def _replay(dead_letter_id: int, actor: str) -> live.Event | None:
    """The event of the replay; None where the letter is resolved. Raises Lost where the payment has moved on."""
    params = {"id": dead_letter_id, "actor": actor, "detail": REPLAYED}
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        await cursor.execute(SQL["hold"], params)  # first, so that `replay` sees what was decided meanwhile
        await cursor.execute(SQL["replay"], params)
        row = await cursor.fetchone()
    if row is None:
        return None
    tenant, position, correlation, status, amount, currency, attempt, at, sequence, external = row
    if external:
        raise BookedAsExternal
    if position is None:
        raise Lost
    return events.event(
        tenant=tenant,
        position=position,
        correlation_id=correlation,
        status=status,
        amount=amount,
        currency=currency,
        processor=None,
        attempts=attempt,
        updated_at=at,
        sequence=sequence,
    )
