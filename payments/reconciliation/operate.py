"""Resolve differences between the processor's books and ours: look again, book as external, note and close.

Each compares and sets, so that a difference is resolved once, and is written into the audit trail with its reason.
"""

from collections import Counter
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from psycopg import AsyncConnection

from payments.books import events
from payments.books.external import EXTERNAL, external_id
from payments.errors import PaymentError
from payments.models import Difference
from payments.money import share
from payments.processors import KINDS
from payments.processors.base import Account, Processor, ShowsBooks, Unanswered
from payments.reconciliation import comparing_again, comparison
from payments.settle import lifecycle
from payments.states import CANCELED, FAILED, SUCCEEDED
from registry.data import database, live
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded
from registry.tenants import audit

SQL = database.statements(Path(__file__).parent / "sql" / "differences.sql")

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
    await database.release()  # others can use the connection while the processor is asked
    async with KINDS[account.kind]() as processor:
        agreed = await comparing_again.agrees(processor, account, found)
    if agreed:
        return await _resolve(found, Resolution.GONE, actor, reason, "difference.look_again") or None
    target = _moved(found).target
    await audit.record(
        actor=actor, action="difference.look_again", target=target, tenant_id=found.tenant_id, reason=reason
    )
    return False


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
    await database.release()  # others can use the connection while the processor is asked
    async with KINDS[account.kind]() as processor:
        await _must_stand(processor, account, found)

    async def move(conn: AsyncConnection) -> list[Moved]:
        return await _book(found, account, actor, reason)

    moved = await decide(action="difference.book", actor=actor, reason=reason, move=move)
    return any(one.events for one in moved) or await _is_booked(found)


async def _must_stand(processor: Processor, account: Account, found: Difference) -> None:
    """The operator saw the booking as it was found; it is booked only if the processor still shows the same."""
    noted = (found.reference, found.correlation_id, found.their_amount, found.their_currency)
    for record in await comparing_again.records_of(cast(ShowsBooks, processor), account, found):
        if noted == (record.reference[:255], record.correlation_id, record.amount, record.currency.upper()):
            return
    raise NotBookable("its processor does not show this booking as it was found: look again")


async def _book(found: Difference, account: Account, actor: str, note: str) -> list[Moved]:
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        if found.kind == Difference.Kind.MISSING_HERE:
            await cursor.execute(SQL["hold"], {"tenant": found.tenant_id, "correlation": found.correlation_id})
            _refuse_unless_over(await cursor.fetchone())
        await cursor.execute(SQL["book"], _booking(found, account, actor, note))
        row = await cursor.fetchone()
    if row is None:
        return []
    return [_moved(found, *_events(found, account, row))]


def _booking(found: Difference, account: Account, actor: str, note: str) -> dict[str, Any]:
    """The parameters of `book`."""
    return {
        "tenant": found.tenant_id,
        "id": found.pk,
        "actor": actor[:150],
        "note": note,
        "why": EXTERNAL,
        "description": BOOKED_FOR,
        "amount": found.their_amount,
        "currency": found.their_currency,
        "reference": found.reference,
        "fee": share(cast(int, found.their_amount), account.fee_ppm),
        "correlation": _external(account, found),
    }


def _events(found: Difference, account: Account, row: tuple[Any, ...]) -> list[live.Event]:
    """The event of the new payment; none where the booking was in the books already."""
    _, position, correlation_id, amount, currency, at = row
    if position is None:
        return []
    booked = events.event(
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
    return [booked]


def _refuse_unless_over(held: tuple[str] | None) -> None:
    """Only a payment that is over for good lets the booking become another one. The payment is locked meanwhile."""
    if held and held[0] not in (FAILED, CANCELED):
        raise NotBookable(f"the payment itself is {held[0]}: look again, and the booking becomes its own")


def _external(account: Account, found: Difference) -> UUID:
    twice_there = found.kind == Difference.Kind.DUPLICATE and found.key == found.reference
    return external_id(account.tenant_id, account.id, None if twice_there else found.correlation_id, found.reference)


async def _is_booked(found: Difference) -> bool:
    mine = Difference.async_objects.filter(tenant_id=found.tenant_id, pk=found.pk, resolution=Resolution.BOOKED)
    return await mine.aexists()


async def close(*, difference_id: int, actor: str, reason: str) -> bool:
    """Note why the books may differ here, and close it. False: resolved before."""
    found = await _open(difference_id)
    return found is not None and await _resolve(found, Resolution.CLOSED, actor, reason, "difference.close")


# -- Shared ---------------------------------------------------------------------------------------------------


async def _open(difference_id: int) -> Difference | None:
    return await Difference.async_objects.filter(pk=difference_id, resolution="").afirst()


async def _account(found: Difference) -> Account:
    """Raises PaymentError (422) where the processor is gone."""
    for account in await comparison.accounts_of(found.tenant_id):
        if account.id == found.processor_id:
            return account
    raise PaymentError("its processor cannot be asked any more")


async def _resolve(found: Difference, resolution: Resolution, actor: str, reason: str, action: str) -> bool:
    async def move(_: AsyncConnection) -> list[Moved]:
        mine = Difference.async_objects.filter(tenant_id=found.tenant_id, pk=found.pk, resolution="")
        resolved = await mine.aupdate(resolution=resolution, resolved_at=Now(), resolved_by=actor[:150], note=reason)
        return [_moved(found)] if resolved else []

    return bool(await decide(action=action, actor=actor, reason=reason, move=move))


def _moved(found: Difference, *told: live.Event) -> Moved:
    target = f"difference {found.pk}: {found.kind} {found.key}"
    return Moved(target=target, tenant_id=found.tenant_id, events=told)


# -- Guarded actions ---------------------------------------------------------------------------------------------


async def _look_again_rows(confirmed: Confirmed) -> Done:
    outcomes = Counter[bool | None]()
    silent = 0
    for row in confirmed.action.rows:
        try:
            outcomes[await look_again(difference_id=row.pk, actor=confirmed.actor, reason=confirmed.reason)] += 1
        except Unanswered:
            silent += 1
    return Done(
        rows=outcomes[True],
        lost=outcomes[None],
        warnings=[f"{outcomes[False]} still differ."] if outcomes[False] else [],
        errors=[f"{silent} could not be asked about: no answer."] if silent else [],
    )


async def _book_rows(confirmed: Confirmed) -> Done:
    """Book each by itself; a processor that does not answer is not asked about its other rows."""
    booked, lost, refused, unasked = 0, 0, list[str](), Counter[int]()
    for row in confirmed.action.rows:
        if row.processor_id in unasked:
            unasked[row.processor_id] += 1
            continue
        try:
            done = await book(difference_id=row.pk, actor=confirmed.actor, reason=confirmed.reason)
        except NotBookable as error:
            refused.append(f"{row.key} is not booked: {error.detail}")
        except Unanswered:
            unasked[row.processor_id] += 1
        else:
            booked, lost = booked + done, lost + (not done)
    if silent := unasked.total():
        refused.append(f"{silent} are not booked: no answer from their processor.")
    return Done(rows=booked, lost=lost, errors=refused)


async def _close_rows(confirmed: Confirmed) -> Done:
    async def one(row: Difference) -> bool:
        return await close(difference_id=row.pk, actor=confirmed.actor, reason=confirmed.reason)

    return await each(confirmed.action.rows, one)


LOOK_AGAIN = guarded(
    "difference.look_again",
    label="Look again",
    warning="The processor is asked again. Differences that are gone are closed; payments in progress are looked at too.",
    expects={"resolution": ""},
    perform=_look_again_rows,
)
BOOK = guarded(
    "difference.book",
    label="Book as external",
    warning=(
        "Each becomes a payment of its own that succeeded, with its ledger lines; the payment that the sender knows stays "
        "as it is. The new payment can be refunded like any other."
    ),
    expects={
        "resolution": "",
        "kind__in": [Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE],
        "their_amount__gt": 0,
    },
    perform=_book_rows,
)
CLOSE = guarded(
    "difference.close",
    label="Note and close",
    warning="The reason is noted. The difference is reported again only if its figures change.",
    expects={"resolution": ""},
    perform=_close_rows,
)
