"""Replay and close events of processors, and remove old ones."""

import logging

from psycopg import AsyncConnection

from payments.inbound.receive import QUEUE, SQL
from payments.models import InboundEvent
from queueing.work import waking
from registry.data import database
from registry.data.chores import chore
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Move, Moved, decide, each
from registry.operators.rows import guarded

log = logging.getLogger(__name__)

RETIRE_EVERY = 3600  # seconds between removals of old events
KEPT_DAYS = 90  # Stripe shows events for 30; disputes take longer
SLICE = 1000  # events removed per commit


# -- Replay and close --------------------------------------------------------------------------------------------


async def replay(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Make a handled, dead or closed event due again. False if it is due already."""
    move = _move("replay", tenant_id, event_id)
    return bool(await decide(action="inbound.replay", actor=actor, reason=reason, move=move, wake=_wake))


async def close(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Close a dead event. False if it is not dead."""
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
        "Workers handle the events again, by the current state at the processor. What was booked is not booked "
        "twice. Events of another account or mode stay dead until the account or mode is corrected."
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


@chore("retire-inbound", every=RETIRE_EVERY)
async def retire() -> int:
    """Remove events that were received more than KEPT_DAYS ago and are done or closed; returns how many. Dead events stay."""
    removed = 0
    for (tenant_id,) in await database.fetch(SQL["tenants"]):
        slice_ = {"tenant": tenant_id, "days": KEPT_DAYS, "slice": SLICE}
        while gone := await database.fetch(SQL["retire"], slice_):
            removed += len(gone)
    if removed:
        log.info("old events of processors removed", extra={"events": removed})
    return removed
