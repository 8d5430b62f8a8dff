"""Deliveries: test messages, notes, replays, and the removal of old ones. Where nothing else is said, callers record the audit entry."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django_async_backend.db.transaction import async_atomic

from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import queries
from queueing.outbound.errors import NotReplayable, UnknownDelivery
from queueing.outbound.event_types import TEST
from queueing.outbound.messages import message_body, new_message_id
from registry.data import clock, database, orm
from registry.data.chores import chore
from registry.tenants import audit

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

REPLAYED_AT_MOST = 10_000  # deliveries by one call; jobs of kind webhooks.replay take any number
KEPT_DAYS = 30  # days that deliveries and their log are kept after they were closed
TRIM_EVERY = 600  # seconds between removals of old deliveries
TRIMMED = 5_000  # deliveries removed by one statement
TRIMMED_OF_EACH = 500  # of one endpoint


async def send_test(*, tenant_id: int, uuid: UUID) -> int:
    """Send a message of type endpoint.test to this endpoint alone, before all others; returns the delivery's id."""
    endpoint = await queries.endpoint_of(tenant_id, uuid)
    if not endpoint.enabled:
        raise NotReplayable("The endpoint is switched off.")
    return await insert(endpoint, TEST, {"endpoint": str(uuid), "message": "A test: nothing has happened."})


async def insert(
    endpoint: WebhookEndpoint,
    type: str,
    data: dict[str, Any],
    *,
    status: str = WebhookDelivery.Status.PENDING,
    error: str = "",
) -> int:
    [[id]] = await run(
        "insert",
        {
            "tenant": endpoint.tenant_id,
            "endpoint": endpoint.pk,
            "message": new_message_id(),
            "type": type,
            "body": message_body(type, clock.now(), data),
            "status": str(status),
            "error": error[:300],
        },
    )
    await run("wake", {})
    return id


async def replay(*, tenant_id: int, delivery_id: int) -> None:
    """Deliver again under the same webhook-id. Raises UnknownDelivery (404), NotReplayable (409)."""
    delivery = await WebhookDelivery.async_objects.filter(tenant_id=tenant_id, id=delivery_id).afirst()
    if delivery is None:
        raise UnknownDelivery
    endpoint = await WebhookEndpoint.async_objects.receivers(tenant_id).filter(id=delivery.endpoint_id).afirst()
    if endpoint is None:
        raise UnknownDelivery
    if not endpoint.enabled or not await replay_of(endpoint, ids=[delivery_id]):
        raise NotReplayable


class Selection(TypedDict, total=False):
    """Which closed deliveries of an endpoint are replayed; a field that is missing selects all."""

    ids: Sequence[int] | None
    since: datetime | None  # of the fan-out, inclusive
    until: datetime | None
    dead_only: bool
    after: int  # ids above this
    unchanged_since: datetime  # neither sent nor replayed since
    limit: int  # the oldest so many


async def replay_of(endpoint: WebhookEndpoint, **selection: Unpack[Selection]) -> int:
    """Deliver again the closed deliveries that match, oldest first; returns how many. At most REPLAYED_AT_MOST."""
    return len(await replay_slice(endpoint, **selection))


async def replay_slice(endpoint: WebhookEndpoint, **selection: Unpack[Selection]) -> list[int]:
    """`replay_of`, which returns their ids."""
    done = await run("replay", _parameters(endpoint, selection))
    await run("wake", {})
    return [id for (id,) in done]


async def replayable(endpoint: WebhookEndpoint, **selection: Unpack[Selection]) -> int:
    """Count what `replay_of` would deliver again."""
    [[count]] = await run("replayable", _parameters(endpoint, selection))
    return count


def _parameters(endpoint: WebhookEndpoint, selection: Selection) -> dict[str, Any]:
    ids = selection.get("ids")
    return {
        "tenant": endpoint.tenant_id,
        "endpoint": endpoint.pk,
        "ids": list(ids) if ids is not None else None,
        "since": selection.get("since"),
        "until": selection.get("until"),
        "dead": selection.get("dead_only", False),
        "after": selection.get("after", 0),
        "unchanged": selection.get("unchanged_since"),
        "limit": selection.get("limit", REPLAYED_AT_MOST),
    }


async def replay_many(*, tenant_id: int, delivery_ids: Sequence[int]) -> int:
    """Replay each that can be replayed; returns how many."""
    done = 0
    for delivery_id in delivery_ids:
        try:
            await replay(tenant_id=tenant_id, delivery_id=delivery_id)
            done += 1
        except (UnknownDelivery, NotReplayable):
            continue
    return done


async def replay_for(*, deliveries: Sequence[tuple[int, int]], actor: str, reason: str) -> int:
    """Replay (tenant, delivery) pairs for an operator, with an audit entry per tenant; returns how many."""
    total = 0
    for tenant_id in dict.fromkeys(tenant for tenant, _ in deliveries):
        ids = [number for tenant, number in deliveries if tenant == tenant_id]
        async with async_atomic():
            if done := await replay_many(tenant_id=tenant_id, delivery_ids=ids):
                total += done
                await audit.record(
                    actor=actor,
                    action="delivery.replay",
                    target="webhook deliveries",
                    tenant_id=tenant_id,
                    rows=done,
                    reason=reason,
                    detail={"ids": ids},
                )
    return total


@chore("trim-deliveries", every=TRIM_EVERY)
async def trim() -> int:
    """Remove deliveries closed KEPT_DAYS ago and those of deleted endpoints; returns how many."""
    gone, limits = 0, {"limit": TRIMMED, "each": TRIMMED_OF_EACH, "days": KEPT_DAYS}
    while removed := len(await database.fetch(SQL["trim_deliveries"], limits, prepare=False)):
        gone += removed
    await database.fetch(SQL["trim_endpoints"])
    if gone:
        log.info("old webhook deliveries removed", extra={"deliveries": gone})
    return gone


async def run(name: str, parameters: dict[str, Any]) -> list[Any]:
    """Run a statement on the ORM's connection, as part of the caller's transaction."""
    return await orm.statement(SQL[name], parameters)
