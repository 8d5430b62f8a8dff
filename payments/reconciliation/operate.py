"""What an operator does with a difference: look again, book what only the processor has, or note why and close it.

Each compares and sets, so that a difference is resolved once, and is written into the audit trail with its reason.
"""

from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic

from payments.books import events
from payments.errors import PaymentError
from payments.models import Difference
from payments.money import share
from payments.processors import KINDS
from payments.processors.base import Account, Processor, Record, Result, ShowsBooks
from payments.reconciliation import comparison, verdicts
from payments.settle import lifecycle
from payments.states import CANCELED, FAILED, SUCCEEDED
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.tenants import audit

SQL = database.statements(Path(__file__).parent / "sql" / "differences.sql")

AROUND = timedelta(seconds=2)  # of a booking's time: its record is looked for there
BOOKED_FOR = "Booked at the processor, not by this service."  # on the payment and in its timeline

Resolution = Difference.Resolution


class NotBookable(PaymentError):
    """Only a booking that is missing here for good, or stands twice there, can be booked as external."""

    status = 409


async def look_again(*, difference_id: int, actor: str, reason: str) -> bool | None:
    """Ask the processor about this one again: True where the books agree now, False where they still differ.

    None where it was resolved before. A payment that is still at a processor is also looked at by a worker. Raises
    Unanswered where the processor does not say.
    """
    found = await _open(difference_id)
    if found is None:
        return None
    account = await _account(found)
    if found.payment_id:
        correlations = [found.correlation_id] if found.correlation_id else []
        await lifecycle.look_again(tenant_id=found.tenant_id, correlation_ids=correlations)
    await database.release()  # others may have it while the processor is asked
    async with KINDS[account.kind]() as processor:
        agreed = await _agrees(processor, account, found)
    if agreed:
        return await _resolve(found, Resolution.GONE, actor, reason, "difference.look_again") or None
    await _record("difference.look_again", found, actor, reason)
    return False


async def _agrees(processor: Processor, account: Account, found: Difference) -> bool:
    if found.kind == Difference.Kind.MISSING_THERE or not isinstance(processor, ShowsBooks):
        return await _is_there(processor, account, found)
    records, known = await _records(processor, account, found), dict[UUID, verdicts.Ours]()
    await comparison.learn(account, records, known)
    # Read alone, the second of two bookings without names would pass for the first.
    seen = set(known) if found.kind == Difference.Kind.DUPLICATE else set()
    findings = [one for record in records if (one := verdicts.judge(account, record, known, seen))]
    await comparison.write(account, [one for one in findings if (one.kind, one.key) == (found.kind, found.key)])
    return not any((one.kind, one.key) == (found.kind, found.key) for one in findings)


async def _records(processor: ShowsBooks, account: Account, found: Difference) -> list[Record]:
    """What the books say of this booking."""
    since, until = found.requested_at - AROUND, found.requested_at + AROUND
    mine = {str(found.correlation_id), found.reference}
    books = processor.records(account, since, until)
    return [one async for one in books if {str(one.correlation_id), one.reference} & mine]


async def _is_there(processor: Processor, account: Account, found: Difference) -> bool:
    rows = await database.fetch(
        comparison.SQL["known"], {"tenant": found.tenant_id, "correlations": [found.correlation_id]}
    )
    if not rows:
        return False
    ours = verdicts.Ours(*rows[0])
    if ours.status != SUCCEEDED or ours.processor_id != account.id:
        return True  # it is not ours to be there any more
    answer = await processor.look_up(ours.order(account), account)
    if answer.result is Result.UNKNOWN:
        raise comparison.Unanswered(f"{account.name} gave no clear answer ({answer.code})")
    return answer.result is Result.BOOKED


async def book(*, difference_id: int, actor: str, reason: str) -> bool:
    """Take a booking that only the processor has into our books, as a payment of its own. False: resolved before.

    The payment that the sender knows, if there is one, stays as it was told. Raises NotBookable (409), also where that
    payment may yet become this booking, or the processor shows it no more; Unanswered where it does not say.
    """
    found = await _open(difference_id)
    if found is None:
        return False
    if found.kind not in (Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE) or not found.their_amount:
        raise NotBookable
    account = await _account(found)
    await database.release()  # others may have it while the processor is asked
    async with KINDS[account.kind]() as processor:
        await _must_stand(processor, account, found)
    event = await database.retrying(lambda: _book(found, account, actor, reason))
    if event:
        live.tell([event])
    return event is not None or await _is_booked(found)


async def _must_stand(processor: Processor, account: Account, found: Difference) -> None:
    """The operator looks at what was found then; money is booked for what the processor says now."""
    noted = (found.reference, found.correlation_id, found.their_amount, found.their_currency)
    for record in await _records(cast(ShowsBooks, processor), account, found):
        if noted == (record.reference[:255], record.correlation_id, record.amount, record.currency.upper()):
            return
    raise NotBookable("its processor does not show this booking as it was found: look again")


async def _book(found: Difference, account: Account, actor: str, reason: str) -> live.Event | None:
    params = {
        "tenant": found.tenant_id,
        "id": found.pk,
        "actor": actor[:150],
        "note": reason,
        "why": verdicts.EXTERNAL,
        "description": BOOKED_FOR,
        "amount": found.their_amount,
        "currency": found.their_currency,
        "reference": found.reference,
        "fee": share(cast(int, found.their_amount), account.fee_ppm),
        "correlation": _external(account, found),
    }
    async with async_atomic():
        async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            if found.kind == Difference.Kind.MISSING_HERE:
                await cursor.execute(SQL["hold"], {"tenant": found.tenant_id, "correlation": found.correlation_id})
                _refuse_unless_over(await cursor.fetchone())
            await cursor.execute(SQL["book"], params)
            row = await cursor.fetchone()
        if row is None:
            return None
        await _record("difference.book", found, actor, reason)
    _, position, correlation_id, amount, currency, at = row
    if position is None:
        return None
    return events.event(
        tenant=found.tenant_id,
        position=position,
        correlation_id=correlation_id,
        status=SUCCEEDED.value,
        amount=amount,
        currency=currency,
        processor=account.name,
        attempts=1,
        updated_at=at,
        sequence=1,
    )


def _refuse_unless_over(held: tuple[str] | None) -> None:
    """Of the payment that the sender knows, while it is held: only one that will never be this booking lets it be another."""
    if held and held[0] not in (FAILED, CANCELED):
        raise NotBookable(f"the payment itself is {held[0]}: look again, and the booking becomes its own")


def _external(account: Account, found: Difference) -> UUID:
    twice_there = found.kind == Difference.Kind.DUPLICATE and found.key == found.reference
    return verdicts.external_id(account, None if twice_there else found.correlation_id, found.reference)


async def _is_booked(found: Difference) -> bool:
    mine = Difference.async_objects.filter(tenant_id=found.tenant_id, pk=found.pk, resolution=Resolution.BOOKED)
    return await mine.aexists()


async def close(*, difference_id: int, actor: str, reason: str) -> bool:
    """Note why the books may differ here, and close it. False: resolved before."""
    found = await _open(difference_id)
    return found is not None and await _resolve(found, Resolution.CLOSED, actor, reason, "difference.close")


# -- What they share -----------------------------------------------------------------------------------------


async def _open(difference_id: int) -> Difference | None:
    return await Difference.async_objects.filter(pk=difference_id, resolution="").afirst()


async def _account(found: Difference) -> Account:
    """Raises PaymentError (422) where the processor is gone."""
    for account in await comparison.accounts_of(found.tenant_id):
        if account.id == found.processor_id:
            return account
    raise PaymentError("its processor cannot be asked any more")


async def _resolve(found: Difference, resolution: Resolution, actor: str, reason: str, action: str) -> bool:
    async def once() -> bool:
        async with async_atomic():
            mine = Difference.async_objects.filter(tenant_id=found.tenant_id, pk=found.pk, resolution="")
            moved = await mine.aupdate(resolution=resolution, resolved_at=Now(), resolved_by=actor[:150], note=reason)
            if moved:
                await _record(action, found, actor, reason)
            return bool(moved)

    return await database.retrying(once)


async def _record(action: str, found: Difference, actor: str, reason: str) -> None:
    await audit.record(
        actor=actor,
        action=action,
        target=f"difference {found.pk}: {found.kind} {found.key}",
        tenant_id=found.tenant_id,
        reason=reason,
    )


look_again_sync, book_sync, close_sync = sync_twin(look_again), sync_twin(book), sync_twin(close)
