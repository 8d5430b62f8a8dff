"""Replay and close events of processors that no worker handles any more, and remove old ones."""

from psycopg import AsyncConnection

from payments.inbound.receive import QUEUE, SQL
from payments.models import InboundEvent
from queueing.work import waking
from registry.data import database
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Move, Moved, decide, each
from registry.operators.rows import guarded

KEPT_DAYS = 90  # Stripe shows events for 30; disputes are argued about for longer
SLICE = 1000  # events removed per commit


# -- Replay and close --------------------------------------------------------------------------------------------


async def replay(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Make a handled, dead or closed event due again. False when it is due. A handler may see an event twice."""
    move = _move("replay", tenant_id, event_id)
    return bool(await decide(action="inbound.replay", actor=actor, reason=reason, move=move, wake=_wake))


async def close(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Close a dead event. False when it is not dead, or not any more."""
    move = _move("close", tenant_id, event_id)
    return bool(await decide(action="inbound.close", actor=actor, reason=reason, move=move))


async def _wake() -> None:
    waking.wake(QUEUE)


def _move(statement: str, tenant_id: int, event_id: int) -> Move:
    async def move(conn: AsyncConnection) -> list[Moved]:
        found = await database.rows(conn, SQL[statement], {"tenant": tenant_id, "id": event_id})
        return [Moved(target=f"inbound event {event_id}: {type}", tenant_id=tenant_id) for (type, *_) in found]

    return move


# -- Guarded actions ---------------------------------------------------------------------------------------------


async def _replay(confirmed: Confirmed) -> Done:
    async def one(event: InboundEvent) -> bool:
        return await replay(
            tenant_id=event.tenant_id, event_id=event.pk, actor=confirmed.actor, reason=confirmed.reason
        )

    return await each(confirmed.action.rows, one)


async def _close(confirmed: Confirmed) -> Done:
    async def one(event: InboundEvent) -> bool:
        return await close(tenant_id=event.tenant_id, event_id=event.pk, actor=confirmed.actor, reason=confirmed.reason)

    return await each(confirmed.action.rows, one)


REPLAY = guarded(
    "inbound.replay",
    label="Replay",
    warning=(
        "Workers handle the events again, by what the processor says now; what was booked because of them is not booked "
        "again. Events of another account or mode stay dead until the account or mode is corrected."
    ),
    expects={"status__in": [InboundEvent.Status.DONE, InboundEvent.Status.DEAD, InboundEvent.Status.CLOSED]},
    perform=_replay,
)
CLOSE = guarded(
    "inbound.close",
    label="Close without replay",
    warning="The dead events are closed. Payments stay as they are.",
    expects={"status": InboundEvent.Status.DEAD},
    perform=_close,
)


# -- Retention ---------------------------------------------------------------------------------------------------


async def retire() -> int:
    """Remove what was done more than KEPT_DAYS ago, a slice per commit; how many. Dead events stay."""
    removed = 0
    for (tenant_id,) in await database.fetch(SQL["tenants"]):
        slice_ = {"tenant": tenant_id, "days": KEPT_DAYS, "slice": SLICE}
        while gone := await database.fetch(SQL["retire"], slice_):
            removed += len(gone)
    return removed
