"""What an operator does with a refund that workers gave up: retry or close."""

from typing import NamedTuple
from uuid import UUID

from django_async_backend.db.transaction import async_atomic
from psycopg import AsyncConnection

from payments.refunds.balance import SQL, connection_of_transaction, hold, move, wake
from payments.refunds.debts import CLOSED_HERE
from payments.refunds.states import FAILED
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.tenants import audit

STILL_STOPPED = f"{SQL['stopped']} FOR UPDATE OF r"


class Stopped(NamedTuple):
    """A debt that workers gave up, in the order of `stopped`."""

    correlation_id: UUID
    public_id: UUID
    amount: int


async def retry(*, tenant_id: int, refund_id: int, actor: str, reason: str) -> bool:
    """Make a stopped refund due again, once. False when somebody was faster, or it is closed."""
    row = {"tenant": tenant_id, "refund": refund_id}

    async def once() -> bool:
        async with async_atomic():
            moved = await database.rows(connection_of_transaction(), SQL["retry"], row)
            if moved:
                await _record("refund.retry", tenant_id, moved[0][0], actor, reason)
            return bool(moved)

    moved = await database.retrying(once)
    if moved:
        await wake()
    return moved


async def close(*, tenant_id: int, refund_id: int, actor: str, reason: str) -> bool:
    """End a stopped refund as failed: what it held back is free again. False when it was retried or closed before."""

    async def once() -> live.Event | None:
        async with async_atomic():
            found = await _close(connection_of_transaction(), tenant_id, refund_id)
            if found is None:
                return None
            stopped, event = found
            await _record("refund.close", tenant_id, stopped.public_id, actor, reason)
            return event

    event = await database.retrying(once)
    if event:
        live.tell([event])
    return event is not None


async def retry_all(*, refunds: list[tuple[int, int]], actor: str, reason: str) -> int:
    """Retry each (tenant, refund) in its own transaction; how many were."""
    return sum([await retry(tenant_id=t, refund_id=r, actor=actor, reason=reason) for t, r in refunds])


async def close_all(*, refunds: list[tuple[int, int]], actor: str, reason: str) -> int:
    """Close each (tenant, refund) in its own transaction; how many were."""
    return sum([await close(tenant_id=t, refund_id=r, actor=actor, reason=reason) for t, r in refunds])


async def _close(conn: AsyncConnection, tenant_id: int, refund_id: int) -> tuple[Stopped, live.Event] | None:
    row = {"tenant": tenant_id, "refund": refund_id}
    found = await database.rows(conn, SQL["stopped"], row)
    payment = await hold(conn, tenant_id, found[0][0]) if found else None
    # Again, now under both locks: a retry or the processor's word may have come meanwhile.
    found = await database.rows(conn, STILL_STOPPED, row) if payment else []
    if payment is None or not found:
        return None
    stopped = Stopped._make(found[0])
    await database.rows(conn, SQL["close"], {**row, "status": FAILED.value, "code": CLOSED_HERE, "reference": ""})
    event = await move(
        conn,
        tenant_id,
        payment.id,
        subject=refund_id,
        kind="refund.failed",
        detail="Not given back: an operator closed it",
        owed=-stopped.amount,
    )
    return stopped, event


async def _record(action: str, tenant_id: int, public_id: UUID, actor: str, reason: str) -> None:
    await audit.record(actor=actor, action=action, target=f"refund {public_id}", tenant_id=tenant_id, reason=reason)


retry_all_sync, close_all_sync = sync_twin(retry_all), sync_twin(close_all)
