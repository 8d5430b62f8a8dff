"""What becomes of events that no worker has anything to do with any more: an operator replays or closes them, time removes them."""

import logging

from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic

from payments.inbound.receive import QUEUE, SQL
from queueing.work import waking
from registry.data import database
from registry.data.chores import chore
from registry.data.loop import sync_twin
from registry.tenants import audit

log = logging.getLogger(__name__)

RETIRE_EVERY = 3600  # seconds between removals of old events
KEPT_DAYS = 90  # Stripe shows events for 30; disputes are argued about for longer
SLICE = 1000  # events removed per commit


async def replay(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Make an event that is over due again. False when it is not over. Handlers bear to see an event twice."""
    moved = await _decided("inbound.replay", "replay", tenant_id, event_id, actor, reason)
    if moved:
        waking.wake(QUEUE)
    return moved


async def close(*, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    """Put a dead event aside. False when it is not dead, or not any more."""
    return await _decided("inbound.close", "close", tenant_id, event_id, actor, reason)


async def _decided(action: str, statement: str, tenant_id: int, event_id: int, actor: str, reason: str) -> bool:
    async def once() -> bool:
        async with async_atomic():
            async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
                await cursor.execute(SQL[statement], {"tenant": tenant_id, "id": event_id})
                row = await cursor.fetchone()
            if row:
                target = f"inbound event {event_id}: {row[0]}"
                await audit.record(actor=actor, action=action, target=target, tenant_id=tenant_id, reason=reason)
            return row is not None

    return await database.retrying(once)  # safe to repeat: an event that has moved is left alone


type Key = tuple[int, int]  # tenant, our own number


async def replay_all(*, events: list[Key], actor: str, reason: str) -> int:
    """Replay each in its own transaction; how many were."""
    return sum([await replay(tenant_id=t, event_id=e, actor=actor, reason=reason) for t, e in events])


async def close_all(*, events: list[Key], actor: str, reason: str) -> int:
    """Close each in its own transaction; how many were."""
    return sum([await close(tenant_id=t, event_id=e, actor=actor, reason=reason) for t, e in events])


replay_all_sync, close_all_sync = sync_twin(replay_all), sync_twin(close_all)


@chore("retire-inbound", every=RETIRE_EVERY)
async def retire() -> int:
    """Remove what was done more than KEPT_DAYS ago, a slice per commit; how many. Dead events stay."""
    removed = 0
    for (tenant_id,) in await database.fetch(SQL["tenants"]):
        slice_ = {"tenant": tenant_id, "days": KEPT_DAYS, "slice": SLICE}
        while gone := await database.fetch(SQL["retire"], slice_):
            removed += len(gone)
    if removed:
        log.info("old events of processors removed", extra={"events": removed})
    return removed
