"""Resolve differences between the processor's books and ours: look again, book as external, note and close.

Each action compares and sets, so that a difference is resolved once, and is recorded in the audit trail with its reason.
"""

from collections import Counter
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django_async_backend.db import async_connections
from psycopg import AsyncConnection

from payments.books import events
from payments.books.external import EXTERNAL, external_id
from payments.errors import PaymentError
from payments.models import Difference
from payments.money import share
from payments.processors import KINDS
from payments.processors.base import Account, Processor, ShowsBooks, Unanswered
from payments.reconciliation import comparison, recheck
from payments.settle import lifecycle
from payments.states import CANCELED, FAILED, SUCCEEDED
from registry.data import database, live
from registry.edge.viewer import Visitor
from registry.operators.confirm import Confirmed, RowAction, asked, confirm_row
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded
from registry.tenants import audit

SQL = database.statements(Path(__file__).parent / "sql" / "differences.sql")

DESCRIPTION = "Booked at the processor, not by this service."  # of an external payment, and in its timeline

Resolution = Difference.Resolution


class NotBookable(PaymentError):
    """Only a booking that is missing here for good, or is booked twice there, can be booked as external."""

    status = 409


async def look_again(*, difference_id: int, actor: str, reason: str) -> bool | None:
    """Compare this difference again: True if the books agree now, False if they still differ, None if it was resolved before.

    A payment that is still at a processor is also looked up by a worker. Raises Unanswered.
    """
    difference = await _open(difference_id)
    if difference is None:
        return None
    account = await _account(difference)
    if difference.payment_id:
        correlations = [difference.correlation_id] if difference.correlation_id else []
        await lifecycle.look_again(tenant_id=difference.tenant_id, correlation_ids=correlations)
    await database.release()  # others can use the connection while the processor is asked
    async with KINDS[account.kind]() as processor:
        agreed = await recheck.is_gone(processor, account, difference)
    if agreed:
        return await _resolve(difference, Resolution.GONE, actor, reason, "difference.look_again") or None
    target = _moved(difference).target
    await audit.record(
        actor=actor, action="difference.look_again", target=target, tenant_id=difference.tenant_id, reason=reason
    )
    return False


async def book(*, difference_id: int, actor: str, reason: str) -> bool:
    """Book an external payment for a booking that only the processor has. False if the difference was resolved before.

    The payment with the same correlation id, if there is one, is not changed. Raises NotBookable (409), also if that payment
    may still become this booking, or if the processor does not list the booking any more; Unanswered.
    """
    difference = await _open(difference_id)
    if difference is None:
        return False
    if difference.kind not in (Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE) or not difference.their_amount:
        raise NotBookable
    account = await _account(difference)
    await database.release()  # others can use the connection while the processor is asked
    async with KINDS[account.kind]() as processor:
        await _must_be_listed(processor, account, difference)

    async def move(conn: AsyncConnection) -> list[Moved]:
        return await _book(difference, account, actor, reason)

    moved = await decide(action="difference.book", actor=actor, reason=reason, move=move)
    return any(one.events for one in moved) or await _is_booked(difference)


async def _must_be_listed(processor: Processor, account: Account, difference: Difference) -> None:
    """Raises NotBookable unless the processor still lists the booking with the figures that the operator saw."""
    noted = (difference.reference, difference.correlation_id, difference.their_amount, difference.their_currency)
    for record in await recheck.records_of(cast(ShowsBooks, processor), account, difference):
        if noted == (record.reference[:255], record.correlation_id, record.amount, record.currency.upper()):
            return
    raise NotBookable("its processor does not show this booking with these figures any more: look again")


async def _book(difference: Difference, account: Account, actor: str, note: str) -> list[Moved]:
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        if difference.kind == Difference.Kind.MISSING_HERE:
            await cursor.execute(
                SQL["hold"], {"tenant": difference.tenant_id, "correlation": difference.correlation_id}
            )
            _must_be_final(await cursor.fetchone())
        await cursor.execute(SQL["book"], _booking(difference, account, actor, note))
        row = await cursor.fetchone()
    if row is None:
        return []
    return [_moved(difference, *_events(difference, account, row))]


def _booking(difference: Difference, account: Account, actor: str, note: str) -> dict[str, Any]:
    """The parameters of `book`."""
    return {
        "tenant": difference.tenant_id,
        "id": difference.pk,
        "actor": actor[:150],
        "note": note,
        "why": EXTERNAL,
        "description": DESCRIPTION,
        "amount": difference.their_amount,
        "currency": difference.their_currency,
        "reference": difference.reference,
        "fee": share(cast(int, difference.their_amount), account.fee_ppm),
        "correlation": _external(account, difference),
    }


def _events(difference: Difference, account: Account, row: tuple[Any, ...]) -> list[live.Event]:
    """The event of the new payment; none if the booking is in our books already."""
    _, position, correlation_id, amount, currency, at = row
    if position is None:
        return []
    booked = events.event(
        tenant=difference.tenant_id,
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


def _must_be_final(held: tuple[str] | None) -> None:
    """Raises NotBookable unless the payment failed or was canceled: else the booking may be its own. The caller holds its lock."""
    if held and held[0] not in (FAILED, CANCELED):
        raise NotBookable(f"the payment itself is {held[0]}: look again, and the booking becomes its own")


def _external(account: Account, difference: Difference) -> UUID:
    twice_there = difference.kind == Difference.Kind.DUPLICATE and difference.key == difference.reference
    return external_id(
        account.tenant_id, account.id, None if twice_there else difference.correlation_id, difference.reference
    )


async def _is_booked(difference: Difference) -> bool:
    mine = Difference.async_objects.filter(
        tenant_id=difference.tenant_id, pk=difference.pk, resolution=Resolution.BOOKED
    )
    return await mine.aexists()


async def close(*, difference_id: int, actor: str, reason: str) -> bool:
    """Close the difference with a note. False if it was resolved before."""
    difference = await _open(difference_id)
    return difference is not None and await _resolve(difference, Resolution.CLOSED, actor, reason, "difference.close")


# -- Shared ---------------------------------------------------------------------------------------------------


async def _open(difference_id: int) -> Difference | None:
    return await Difference.async_objects.filter(pk=difference_id, resolution="").afirst()


async def _account(difference: Difference) -> Account:
    """Raises PaymentError (422) if the processor was removed."""
    for account in await comparison.accounts_of(difference.tenant_id):
        if account.id == difference.processor_id:
            return account
    raise PaymentError("its processor cannot be asked any more")


async def _resolve(difference: Difference, resolution: Resolution, actor: str, reason: str, action: str) -> bool:
    async def move(_: AsyncConnection) -> list[Moved]:
        mine = Difference.async_objects.filter(tenant_id=difference.tenant_id, pk=difference.pk, resolution="")
        resolved = await mine.aupdate(resolution=resolution, resolved_at=Now(), resolved_by=actor[:150], note=reason)
        return [_moved(difference)] if resolved else []

    return bool(await decide(action=action, actor=actor, reason=reason, move=move))


def _moved(difference: Difference, *events: live.Event) -> Moved:
    target = f"discrepancy {difference.pk}: {difference.kind} {difference.key}"
    return Moved(target=target, tenant_id=difference.tenant_id, events=events)


# -- Guarded actions ---------------------------------------------------------------------------------------------


async def look_again_rows(confirmed: Confirmed) -> Done:
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
        errors=[f"{silent} could not be checked: no answer."] if silent else [],
    )


async def book_rows(confirmed: Confirmed) -> Done:
    """Book one by one; after a missing answer the other rows of that processor are skipped."""
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


async def close_rows(confirmed: Confirmed) -> Done:
    async def one(row: Difference) -> bool:
        return await close(difference_id=row.pk, actor=confirmed.actor, reason=confirmed.reason)

    return await each(confirmed.action.rows, one)


OPEN = {"resolution": ""}
BOOKABLE = {**OPEN, "kind__in": [Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE], "their_amount__gt": 0}

LOOK_AGAIN = guarded(
    "difference.look_again",
    label="Re-check",
    warning="The processor is queried again. Discrepancies that no longer exist are closed; payments in progress are checked too.",
    expects=OPEN,
    perform=look_again_rows,
)
BOOK = guarded(
    "difference.book",
    label="Book as external",
    warning=(
        "Each becomes a payment of its own that succeeded, with its ledger lines; the payment that the sender knows stays "
        "as it is. The new payment can be refunded like any other."
    ),
    expects=BOOKABLE,
    perform=book_rows,
)
CLOSE = guarded(
    "difference.close",
    label="Note and close",
    warning="The reason is noted. The discrepancy is reported again only if its figures change.",
    expects=OPEN,
    perform=close_rows,
)

# -- On the console's pages --------------------------------------------------------------------------------------

ON_PAGES = {
    "recheck": RowAction(
        "difference.look_again",
        "Re-check",
        "The processor is asked again. If its books and yours agree now, the discrepancy is closed. No money moves.",
        look_again_rows,
    ),
    "book": RowAction(
        "difference.book",
        "Book as external",
        "The booking at the processor becomes a payment of its own that succeeded, and is in your balance then. It can be refunded.",
        book_rows,
    ),
    "close": RowAction(
        "difference.close",
        "Note and close",
        "Your reason is noted. No money moves; it is reported again only if its figures change.",
        close_rows,
    ),
}


async def of_difference(request: HttpRequest, visitor: Visitor, number: int, back: str) -> HttpResponse:
    """The confirmation page of an action on an open discrepancy; once it is posted with a reason, the action.

    Raises Http404 for another verb and for a discrepancy that is not the tenant's.
    """
    return await confirm_row(
        request,
        visitor,
        ON_PAGES,
        Difference.async_objects.filter(tenant_id=visitor.tenant.pk, pk=number),
        expects=BOOKABLE if asked(request).get("do") == "book" else OPEN,
        noun="discrepancy",
        plural="discrepancies",
        target=f"discrepancy {number}",
        back=back,
        name_of=lambda row: f"{row.get_kind_display().lower()}: {row.key}",
    )
