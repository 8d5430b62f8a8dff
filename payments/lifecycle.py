"""What a sender can do to a payment after it was accepted: wait for it, cancel it, or (in a sandbox) forget all of them."""

import asyncio
from pathlib import Path
from uuid import UUID

from payments import events, queries
from payments.errors import NotCancelable, UnknownPayment
from payments.states import CANCELED, OPEN, sources_of
from registry import database, live
from registry.sync import sync_twin

SQL = database.statements(Path(__file__).parent / "sql" / "lifecycle.sql")


async def settled(tenant_id: int, correlation_id: UUID, *, within: float) -> bool:
    """Wait until no worker has anything left to do for the payment, at most `within` seconds; whether that came."""
    async with live.hub().subscribe(tenant_id, frozenset({str(correlation_id)})) as subscription:
        try:
            async with asyncio.timeout(within):
                while True:
                    found = await queries.status_of(tenant_id, correlation_id)
                    if found is None or found["status"] not in OPEN:
                        return True
                    await subscription.get()
        except (TimeoutError, live.TooSlow):
            return False


async def cancel(*, tenant_id: int, correlation_id: UUID) -> dict:
    """Cancel a payment that no worker has claimed; its status object.

    A second cancel answers like the first. Raises UnknownPayment (404), NotCancelable (409): a worker was faster.
    """
    params = {"tenant": tenant_id, "correlation": correlation_id, "sources": sources_of(CANCELED)}
    moved = await database.fetch(SQL["cancel"], params)
    found = await queries.status_of(tenant_id, correlation_id)
    if found is None:
        raise UnknownPayment
    if moved:
        live.tell(await events.of_payment(tenant_id, correlation_id, found["sequence"] - 1))
    elif found["status"] != CANCELED:
        raise NotCancelable(f"it is {found['status']}; only a queued payment can be canceled")
    return found


async def purge(*, tenant_id: int) -> int:
    """Remove all payments of a tenant with everything booked for them; how many there were. The stream's numbers go on."""
    # Safe to repeat; a settling that holds some of the payments may make a deadlock of it.
    return await database.retrying(lambda: _purge({"tenant": tenant_id}))


_ROLLUP = ("width", "starts_at", "processor", "currency", "payments", "amount", "fee")


async def _purge(tenant: dict[str, int]) -> int:
    async with database.transaction() as conn:
        gone = await database.rows(conn, SQL["purge"], tenant)
        await database.rows(conn, SQL["purge_children"], tenant)
        booked = zip(*(row for row in gone if row[0]), strict=True)
        if columns := dict(zip(_ROLLUP, map(list, booked), strict=False)):
            await database.rows(conn, SQL["purge_rollups"], {**tenant, **columns})
            await database.rows(conn, SQL["sweep_rollups"], tenant)
    return next(count for width, _, _, _, count, *_ in gone if not width)


cancel_sync = sync_twin(cancel)
purge_sync = sync_twin(purge)
