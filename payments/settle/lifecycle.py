"""Changes to accepted payments: wait until settled, cancel, capture, ask the processor again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from payments.books import events, queries
from payments.errors import NotCancelable, NotCapturable
from payments.intake import spilling, store
from payments.states import CANCELED, OPEN, PROCESSING, QUEUED, REQUIRES_ACTION, UNCERTAIN, Status
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.telemetry import changes
from registry.telemetry.context import REQUEST

SQL = database.statements(Path(__file__).parent / "sql" / "lifecycle.sql")


async def settled(tenant_id: int, correlation_id: UUID, *, within: float) -> bool:
    """Wait at most `within` seconds until the payment is settled. False on a time-out. Raises Unavailable (503)."""

    def ended(payment: dict[str, Any] | None) -> bool:
        return payment is None or payment["status"] not in OPEN

    try:
        await events.follow_until(
            tenant_id, correlation_id, lambda: queries.status_of(tenant_id, correlation_id), ended, within=within
        )
    except TimeoutError:
        return False
    return True


# -- What happens at the processor ---------------------------------------------------------------------------

REPORTED: Final = "The processor reported a change"  # in the timeline, which payers read
AT_PROCESSOR: Final = (REQUIRES_ACTION, PROCESSING, UNCERTAIN)  # it may change there without our knowing


type Looked = Sequence[database.Row]  # correlation id, and the number of its event where there is one


async def look_again(*, tenant_id: int, correlation_ids: Sequence[UUID], reason: str = REPORTED) -> set[UUID]:
    """Have workers ask the processor about these payments now; the ids of those that are at a processor.

    For callers that learned of a change there (a webhook, the payer's return, a janitor). Call it only if the change
    matters: a payment that requires an action goes through `processing`, with an event. Settled payments are left alone.
    """
    return await _look_again(tenant_id, correlation_ids, reason, AT_PROCESSOR)


async def look_again_within(
    conn: AsyncConnection, *, tenant_id: int, correlation_ids: Sequence[UUID], reason: str = REPORTED
) -> Looked:
    """`look_again` in the caller's transaction; pass the result to `announce` once that is committed."""
    return await database.rows(conn, SQL["look_again"], _parameters(tenant_id, correlation_ids, reason, AT_PROCESSOR))


look_again_sync = sync_twin(look_again)


async def _look_again(
    tenant_id: int, correlation_ids: Sequence[UUID], reason: str, statuses: Sequence[Status], **steps: bool
) -> set[UUID]:
    rows = await database.fetch(SQL["look_again"], _parameters(tenant_id, correlation_ids, reason, statuses, **steps))
    await announce(tenant_id, rows)
    return {correlation_id for correlation_id, _ in rows}


def _parameters(
    tenant_id: int,
    correlation_ids: Sequence[UUID],
    reason: str,
    statuses: Sequence[Status],
    *,
    cancel: bool = False,
    capture: bool = False,
) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "correlations": list(correlation_ids),
        "statuses": [status.value for status in statuses],
        "reason": reason[:300],
        "cancel": cancel,
        "capture": capture,
    }


async def announce(tenant_id: int, rows: Looked) -> None:
    """Publish the events of payments that are looked at again, and wake the workers."""
    moved = [correlation_id for correlation_id, sequence in rows if sequence is not None]
    changes.record(_change(tenant_id, one, REQUIRES_ACTION, PROCESSING, "it may have changed there") for one in moved)
    for correlation_id, sequence in rows:
        if sequence is not None:
            live.publish(await events.of_payment(tenant_id, correlation_id, sequence - 1))
    if rows:
        store.wake()


def _change(tenant_id: int, correlation_id: UUID, was: Status, to: Status, why: str) -> changes.ChangeLine:
    ids = {"payment": correlation_id, "request_id": REQUEST.get()}
    return changes.change("payment", was.value, to.value, tenant=tenant_id, why=why, **ids)


async def cancel(*, tenant_id: int, correlation_id: UUID) -> dict:
    """Cancel a payment that no worker has claimed, or have a worker cancel one that requires an action; its status object.

    A second cancel answers like the first. Raises UnknownPayment (404), NotCancelable (409): a worker was faster.
    """
    params = {"tenant": tenant_id, "correlation": correlation_id}
    moved = await database.fetch(SQL["cancel"], params)
    if not moved:
        await _look_again(tenant_id, [correlation_id], "The sender cancels it", [REQUIRES_ACTION], cancel=True)
    payment = await _status(tenant_id, correlation_id)
    if moved:
        changes.record([_change(tenant_id, correlation_id, QUEUED, CANCELED, "canceled by the sender")])
        live.publish(await events.of_payment(tenant_id, correlation_id, payment["sequence"] - 1))
    elif payment["status"] != CANCELED and not (await _purpose(params)).canceling:
        raise NotCancelable(
            f"it is {payment['status']}; only a payment that is queued or requires action can be canceled"
        )
    return payment


async def capture(*, tenant_id: int, correlation_id: UUID) -> dict:
    """Have an authorized payment captured by a worker; its status object.

    A second capture answers like the first. Raises UnknownPayment (404), NotCapturable (409): it waits for no capture.
    """
    params = {"tenant": tenant_id, "correlation": correlation_id}
    purpose = await _purpose(params)
    if purpose.waits_for == "capture" and not purpose.canceling:
        await _look_again(tenant_id, [correlation_id], "The sender captures it", [REQUIRES_ACTION], capture=True)
    payment = await _status(tenant_id, correlation_id)
    if not (await _purpose(params)).capturing:
        raise NotCapturable(f"it is {payment['status']}")
    return payment


async def cancel_within(conn: AsyncConnection, *, tenant_id: int, correlation_id: UUID) -> Looked:
    """`cancel` in the caller's transaction; none if it can no longer be canceled. Pass the result to `announce`."""
    moved = await database.rows(conn, SQL["cancel"], {"tenant": tenant_id, "correlation": correlation_id})
    if moved:
        return [(correlation_id, sequence) for _, sequence in moved]
    asked = _parameters(tenant_id, [correlation_id], "The sender cancels it", [REQUIRES_ACTION], cancel=True)
    return await database.rows(conn, SQL["look_again"], asked)


async def capture_within(conn: AsyncConnection, *, tenant_id: int, correlation_id: UUID) -> Looked:
    """`capture` in the caller's transaction; none if it waits for no capture. Pass the result to `announce`."""
    [purpose] = await database.rows(conn, SQL["purpose"], {"tenant": tenant_id, "correlation": correlation_id})
    if _Purpose(*purpose).waits_for != "capture" or _Purpose(*purpose).canceling:
        return []
    asked = _parameters(tenant_id, [correlation_id], "The sender captures it", [REQUIRES_ACTION], capture=True)
    return await database.rows(conn, SQL["look_again"], asked)


class _Purpose(NamedTuple):
    """Requests that the sender made for a payment, beside its status."""

    canceling: bool = False  # a cancellation was requested while it waited at its processor
    capturing: bool = False
    waits_for: str = ""  # the type of the action that it requires


async def _purpose(params: dict[str, Any]) -> _Purpose:
    rows = await database.fetch(SQL["purpose"], params)
    return _Purpose(*rows[0]) if rows else _Purpose()


async def _status(tenant_id: int, correlation_id: UUID) -> dict[str, Any]:
    payment = await queries.status_of(tenant_id, correlation_id)
    if payment is None:
        raise spilling.missing(tenant_id, correlation_id)
    return payment


cancel_sync = sync_twin(cancel)
