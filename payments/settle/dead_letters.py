"""What an operator does with a payment that ran out of tries: replay or close. dispatch.py writes the dead letters."""

from pathlib import Path

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic

from payments.books import events
from payments.errors import PaymentError
from payments.models import DeadLetter
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.tenants import audit

SQL = database.statements(Path(__file__).parent / "sql" / "dead_letters.sql")
REPLAYED = "An operator tries it again."  # readers of the timeline may be payers: neither name nor reason here


class _PaymentMovedOn(Exception):
    """The payment is neither failed nor in doubt: there is nothing to replay."""


class BookedAsExternal(PaymentError):
    """Its booking stands in the books as a payment of its own: sending it again would charge its payer twice. Close the letter."""

    status = 409


async def replay(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Make the payment due again, once. False when the letter was resolved before, or the payment has moved on.

    Raises BookedAsExternal (409). A failed payment is queued; one in doubt stays so and is asked about at its processor first.
    """

    async def once() -> live.Event | None:
        async with async_atomic():
            event = await _replay(dead_letter_id, actor)
            if event:
                await _record("deadletter.replay", dead_letter_id, actor, reason, event.tenant, event.subject)
            return event

    try:
        # Safe to repeat: a letter that is resolved is left alone.
        event = await database.retrying(once)
    except _PaymentMovedOn:
        return False
    if event is None:
        return False
    live.tell([event])
    return True


async def close(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Put the letter aside and leave the payment as it stands. False when it was resolved before."""

    async def once() -> bool:
        async with async_atomic():
            moved = await DeadLetter.async_objects.filter(pk=dead_letter_id, resolution="").aupdate(
                resolution=DeadLetter.Resolution.CLOSED, resolved_at=Now(), resolved_by=actor
            )
            if moved:
                letter = await DeadLetter.async_objects.aget(pk=dead_letter_id)
                await _record("deadletter.close", dead_letter_id, actor, reason, letter.tenant_id, letter.payment_id)
            return bool(moved)

    return await database.retrying(once)


async def close_all(*, dead_letter_ids: list[int], actor: str, reason: str) -> int:
    """Close each in its own transaction; how many were."""
    return sum([await close(dead_letter_id=pk, actor=actor, reason=reason) for pk in dead_letter_ids])


replay_sync, close_sync = sync_twin(replay), sync_twin(close)
close_all_sync = sync_twin(close_all)


async def _replay(dead_letter_id: int, actor: str) -> live.Event | None:
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
        raise _PaymentMovedOn
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


async def _record(action: str, letter: int, actor: str, reason: str, tenant: int, payment: object) -> None:
    target = f"dead letter {letter} of payment {payment}"
    await audit.record(actor=actor, action=action, target=target, tenant_id=tenant, reason=reason)
