"""Replay and close dead letters: payments that ran out of attempts. Settling writes them."""

from pathlib import Path

import msgspec
from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from psycopg import AsyncConnection

from payments.books import events
from payments.errors import PaymentError
from payments.models import DeadLetter
from payments.states import FAILED, QUEUED
from registry.data import database, live
from registry.operators.decide import Lost, Moved, decide
from registry.telemetry import changes

SQL = database.statements(Path(__file__).parent / "sql" / "dead_letters.sql")
REPLAYED = "An operator tries it again."  # payers may read the timeline: it names neither operator nor reason


class BookedAsExternal(PaymentError):
    """It was booked as an external payment: sending it again would charge the payer twice. Close the dead letter."""

    status = 409


async def replay(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Make the payment due again, once. False if the dead letter was resolved before, or the payment's status has changed.

    Raises BookedAsExternal (409). A failed payment is queued; an uncertain one stays uncertain, and is looked up first.
    """

    async def move(_: AsyncConnection) -> list[Moved]:
        event = await _replay(dead_letter_id, actor)
        return [_moved(dead_letter_id, event.tenant, event.subject, event)] if event else []

    moved = await decide(action="deadletter.replay", actor=actor, reason=reason, move=move)
    changes.record(_change(event) for one in moved for event in one.events)
    return bool(moved)


async def close(*, dead_letter_id: int, actor: str, reason: str) -> bool:
    """Close the dead letter; the payment stays as it is. False if it was resolved before."""

    async def move(_: AsyncConnection) -> list[Moved]:
        open_one = DeadLetter.async_objects.filter(pk=dead_letter_id, resolution="")
        closed = DeadLetter.Resolution.CLOSED
        if not await open_one.aupdate(resolution=closed, resolved_at=Now(), resolved_by=actor):
            return []
        letter = await DeadLetter.async_objects.aget(pk=dead_letter_id)
        return [_moved(dead_letter_id, letter.tenant_id, letter.payment_id)]

    return bool(await decide(action="deadletter.close", actor=actor, reason=reason, move=move))


def _moved(letter: int, tenant_id: int, payment: object, *events: live.Event) -> Moved:
    return Moved(target=f"dead letter {letter} of payment {payment}", tenant_id=tenant_id, events=events)


def _change(event: live.Event) -> changes.ChangeLine:
    status = msgspec.json.decode(event.body)["status"]
    was = FAILED.value if status == QUEUED else status  # an uncertain one stays uncertain
    return changes.change("payment", was, status, tenant=event.tenant, payment=event.subject, why=REPLAYED)


async def _replay(dead_letter_id: int, actor: str) -> live.Event | None:
    """The event of the replay; None if the dead letter is resolved. Raises Lost if the payment's status has changed."""
    params = {"id": dead_letter_id, "actor": actor, "detail": REPLAYED}
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        await cursor.execute(SQL["hold"], params)  # first, so that `replay` sees what was committed meanwhile
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
