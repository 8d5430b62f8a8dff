"""A tenant's webhook endpoints: make, change, switch, replay, test. Where nothing else is said, callers record who did it and why."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic

from payments.errors import NotReplayable, TooManyEndpoints, UnknownDelivery, UnknownWebhookEndpoint
from payments.models import WebhookDelivery, WebhookEndpoint
from payments.webhooks import fanout
from payments.webhooks.event_types import DISABLED, TEST, read_filters
from payments.webhooks.signing import Secrets
from registry.data import database
from registry.data.chores import chore
from registry.data.loop import sync_twin
from registry.edge.cards import CARD, holds_card
from registry.errors import Invalid
from registry.http.ssrf import checked
from registry.models import Tenant
from registry.tenants import audit

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

ENDPOINTS_AT_MOST = 100  # of a tenant: each event is written once for each that wants it
LONGEST_DESCRIPTION = 200  # characters
REPLAYED_AT_MOST = 10_000  # deliveries by one call; whoever wants more asks again
KEPT_DAYS = 30  # days that deliveries and their log are kept after they were closed
TRIM_EVERY = 600  # seconds between removals of deliveries that are over
TRIMMED = 5_000  # deliveries removed by one statement
TRIMMED_OF_EACH = 500  # of one endpoint
WORKER = "webhooks"  # the actor in the audit trail where no person acts

GONE = "It answered 410: it wants nothing any more."
OVERDUE = "It has taken nothing for 5 days. The last time: {error}."
TURNED_OFF = "Switched off by hand."


def place(uuid: UUID) -> str:
    """What an endpoint's secrets are sealed for."""
    return f"webhook endpoint {uuid}"


# -- Endpoints -----------------------------------------------------------------------------------------------


async def endpoint_of(tenant_id: int, uuid: UUID) -> WebhookEndpoint:
    """Raises UnknownWebhookEndpoint (404)."""
    found = await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).afirst()
    if found is None:
        raise UnknownWebhookEndpoint
    return found


async def create(
    *,
    tenant_id: int,
    mode: str,
    actor: str,
    url: str,
    events: list[str],
    description: str = "",
    ordered: bool = False,
    enabled: bool = True,
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint, told of what happens from now on, and its secret, which is shown once. Recorded here: the address is
    looked up first, and no transaction waits for that.

    Raises Invalid (422) naming the field, TooManyEndpoints (409).
    """
    filters = read_filters(events)
    check_description(description)
    await checked(url, tls_only=mode == Tenant.Mode.LIVE)
    uuid, secrets = uuid4(), Secrets.fresh()
    async with async_atomic():
        made = await _run(
            "create",
            {
                "tenant": tenant_id,
                "uuid": uuid,
                "url": url,
                "description": description,
                "events": msgspec.json.encode(filters).decode(),
                "ordered": ordered,
                "enabled": enabled,
                "secrets": secrets.sealed(place=place(uuid)),
                "most": ENDPOINTS_AT_MOST,
            },
        )
        if not made:
            raise TooManyEndpoints
        await _record(tenant_id, actor, "endpoint.add", uuid, url=url)
    return await endpoint_of(tenant_id, uuid), secrets.newest


async def change(*, tenant_id: int, mode: str, uuid: UUID, actor: str, **fields: Any) -> WebhookEndpoint:
    """Set what is given of url, description, events, ordered and enabled, and record it.

    Raises Invalid (422), UnknownWebhookEndpoint (404).
    """
    await endpoint_of(tenant_id, uuid)
    if "url" in fields:
        await checked(fields["url"], tls_only=mode == Tenant.Mode.LIVE)
    if "events" in fields:
        fields["events"] = read_filters(fields["events"])
    if "description" in fields:
        check_description(fields["description"])
    plain = {name: value for name, value in fields.items() if name != "enabled"}
    if "url" in plain:
        plain |= {"failing_since": None, "rest_until": None}  # that was another address
    async with async_atomic():
        if plain:
            await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).aupdate(**plain, changed_at=Now())
        if "enabled" in fields:
            await switch(tenant_id=tenant_id, uuid=uuid, enabled=fields["enabled"])
        if fields:
            await _record(tenant_id, actor, "endpoint.change", uuid, **fields)
    return await endpoint_of(tenant_id, uuid)


async def switch(*, tenant_id: int, uuid: UUID, enabled: bool, reason: str = TURNED_OFF) -> bool:
    """On or off; False when it was so before. Switched on again it goes on where it stopped: nothing is left out."""
    fields: dict[str, Any] = {"disabled_reason": reason}
    if enabled:
        fields = {"disabled_reason": "", "failing_since": None, "rest_until": None}
    mine = WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid, enabled=not enabled)
    return bool(await mine.aupdate(enabled=enabled, changed_at=Now(), **fields))


async def rotate(*, tenant_id: int, uuid: UUID) -> str:
    """A new secret, shown once. The one before signs beside it for 24 hours."""
    async with async_atomic():
        mine = WebhookEndpoint.async_objects.of(tenant_id).select_for_update().filter(uuid=uuid)
        endpoint = await mine.afirst()
        if endpoint is None:
            raise UnknownWebhookEndpoint
        secrets = Secrets.unsealed(endpoint.secrets, place=endpoint.place).rotated(datetime.now(UTC))
        sealed = secrets.sealed(place=endpoint.place)
        await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).aupdate(secrets=sealed, changed_at=Now())
    return secrets.newest


async def delete(*, tenant_id: int, uuid: UUID) -> bool:
    """Gone at once for everybody; a chore removes its deliveries. False when there is none."""
    mine = WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid)
    return bool(await mine.aupdate(deleted_at=Now(), enabled=False, changed_at=Now()))


async def _record(tenant_id: int, actor: str, action: str, uuid: UUID, **detail: Any) -> None:
    target = f"webhook endpoint {uuid}"
    await audit.record(actor=actor, action=action, target=target, tenant_id=tenant_id, detail=detail)


def check_description(text: str) -> None:
    if len(text) > LONGEST_DESCRIPTION or "\0" in text:
        message = f"has at most {LONGEST_DESCRIPTION} ordinary characters"
        raise Invalid(errors=[{"field": "description", "message": message}])
    if holds_card(text):
        raise Invalid(errors=[{"field": "description", "message": CARD}])


async def switch_off(tenant_id: int, endpoint_id: int, *, reason: str) -> bool:
    """What a worker does with an endpoint that wants nothing more or takes nothing: off, and told wherever somebody looks."""
    async with database.own_connection(), async_atomic():
        mine = WebhookEndpoint.async_objects.of(tenant_id).filter(id=endpoint_id, enabled=True)
        if not await mine.aupdate(enabled=False, disabled_reason=reason[:300], changed_at=Now()):
            return False
        endpoint = await WebhookEndpoint.async_objects.of(tenant_id).aget(id=endpoint_id)
        await _note(endpoint, DISABLED, {"endpoint": str(endpoint.uuid), "url": endpoint.url, "reason": reason})
        await audit.record(
            actor=WORKER, action="endpoint.disable", target=_name(endpoint), tenant_id=tenant_id, reason=reason
        )
    log.warning("webhook endpoint switched off", extra={"endpoint": str(endpoint.uuid), "reason": reason})
    return True


def _name(endpoint: WebhookEndpoint) -> str:
    return f"webhook endpoint {endpoint.uuid}"


async def _note(endpoint: WebhookEndpoint, type: str, data: dict[str, Any]) -> int:
    return await _insert(endpoint, type, data, status=WebhookDelivery.Status.NOTED, error=data.get("reason", ""))


# -- Deliveries ------------------------------------------------------------------------------------------------


async def send_test(*, tenant_id: int, uuid: UUID) -> int:
    """A message of type endpoint.test for this endpoint alone, before all others; its delivery's id."""
    endpoint = await endpoint_of(tenant_id, uuid)
    if not endpoint.enabled:
        raise NotReplayable("The endpoint is switched off.")
    return await _insert(endpoint, TEST, {"endpoint": str(uuid), "message": "A test: nothing has happened."})


async def _insert(
    endpoint: WebhookEndpoint,
    type: str,
    data: dict[str, Any],
    *,
    status: str = WebhookDelivery.Status.PENDING,
    error: str = "",
) -> int:
    [[id]] = await _run(
        "insert",
        {
            "tenant": endpoint.tenant_id,
            "endpoint": endpoint.pk,
            "message": fanout.new_message_id(),
            "type": type,
            "body": fanout.message_body(type, datetime.now(UTC), data),
            "status": str(status),
            "error": error[:300],
        },
    )
    await _run("wake", {})
    return id


async def replay(*, tenant_id: int, delivery_id: int) -> None:
    """Deliver once more, under the same webhook-id. Raises UnknownDelivery (404), NotReplayable (409)."""
    delivery = await WebhookDelivery.async_objects.filter(tenant_id=tenant_id, id=delivery_id).afirst()
    if delivery is None:
        raise UnknownDelivery
    endpoint = await WebhookEndpoint.async_objects.of(tenant_id).filter(id=delivery.endpoint_id).afirst()
    if endpoint is None:
        raise UnknownDelivery
    if not endpoint.enabled or not await replay_of(endpoint, ids=[delivery_id]):
        raise NotReplayable


async def replay_of(
    endpoint: WebhookEndpoint,
    *,
    ids: Sequence[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    dead_only: bool = False,
) -> int:
    """Deliver again what is closed and fits, the oldest first; how many. At most REPLAYED_AT_MOST."""
    done = await _run("replay", _selection(endpoint, ids, since, until, dead_only))
    await _run("wake", {})
    return len(done)


async def replayable(
    endpoint: WebhookEndpoint,
    *,
    ids: Sequence[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    dead_only: bool = False,
) -> int:
    """How many `replay_of` would deliver again."""
    [[count]] = await _run("replayable", _selection(endpoint, ids, since, until, dead_only))
    return count


def _selection(
    endpoint: WebhookEndpoint,
    ids: Sequence[int] | None,
    since: datetime | None,
    until: datetime | None,
    dead_only: bool,
) -> dict[str, Any]:
    return {
        "tenant": endpoint.tenant_id,
        "endpoint": endpoint.pk,
        "ids": list(ids) if ids is not None else None,
        "since": since,
        "until": until,
        "dead": dead_only,
        "limit": REPLAYED_AT_MOST,
    }


async def replay_many(*, tenant_id: int, delivery_ids: Sequence[int]) -> int:
    """Replay each that can be; how many were."""
    done = 0
    for delivery_id in delivery_ids:
        try:
            await replay(tenant_id=tenant_id, delivery_id=delivery_id)
            done += 1
        except (UnknownDelivery, NotReplayable):
            continue
    return done


async def replay_for(*, deliveries: Sequence[tuple[int, int]], actor: str, reason: str) -> int:
    """Replay these, (tenant, delivery), for an operator: tenant by tenant, recorded; how many were."""
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
    """Remove what was closed a month ago, and what is left of deleted endpoints; how many deliveries."""
    gone, limits = 0, {"limit": TRIMMED, "each": TRIMMED_OF_EACH, "days": KEPT_DAYS}
    while removed := len(await database.fetch(SQL["trim_deliveries"], limits, prepare=False)):
        gone += removed
    await database.fetch(SQL["trim_endpoints"])
    if gone:
        log.info("old webhook deliveries removed", extra={"deliveries": gone})
    return gone


async def _run(name: str, parameters: dict[str, Any]) -> list[Any]:
    """On the ORM's own connection, so that it is part of the transaction that a caller has open."""
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        await cursor.execute(SQL[name], parameters)
        return await cursor.fetchall() if cursor.description else []


replay_for_sync = sync_twin(replay_for)
