"""A tenant's webhook endpoints: create, change, enable, rotate the secret, delete. Callers write the audit entry unless a docstring says otherwise."""

import logging
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from django.db.models.functions import Now
from django_async_backend.db.transaction import async_atomic

from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import deliveries, queries, sources
from queueing.outbound.errors import TooManyEndpoints, UnknownWebhookEndpoint
from queueing.outbound.event_types import DISABLED, read_filters
from queueing.outbound.signing import Secrets
from registry.data import clock, database
from registry.edge.cards import CARD, holds_card
from registry.errors import Invalid
from registry.http.ssrf import checked
from registry.models import Tenant
from registry.tenants import audit

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

ENDPOINTS_AT_MOST = 100  # of a tenant: each event is written once per endpoint that subscribes to it
LONGEST_DESCRIPTION = 200  # characters
WORKER = "webhooks"  # the actor in the audit trail where no person acts

GONE = "The receiver answered 410 Gone: it accepts no more messages."
OVERDUE = "No delivery succeeded for 5 days. Last error: {error}."
TURNED_OFF = "Switched off by hand."


def place(uuid: UUID) -> str:
    """The context that an endpoint's secrets are encrypted with (AES-GCM associated data)."""
    return f"webhook endpoint {uuid}"


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
    secret: str = "",
) -> tuple[WebhookEndpoint, str]:
    """Create an endpoint for events from now on; returns it with its secret, which is shown once: a new one unless given.

    Writes the audit entry itself: the address is resolved first, and no transaction waits for that.

    Raises Invalid (422) naming the field, TooManyEndpoints (409).
    """
    filters = read_filters(events)
    check_description(description)
    await checked(url, tls_only=mode == Tenant.Mode.LIVE)
    uuid, secrets = uuid4(), Secrets.fresh(secret)
    positions = await sources.latest(tenant_id)
    async with async_atomic():
        made = await deliveries.run(
            "create",
            {
                "tenant": tenant_id,
                "uuid": uuid,
                "url": url,
                "description": description,
                "events": msgspec.json.encode(filters).decode(),
                "ordered": ordered,
                "enabled": enabled,
                "positions": msgspec.json.encode(positions).decode(),
                "secrets": secrets.sealed(place=place(uuid)),
                "most": ENDPOINTS_AT_MOST,
            },
        )
        if not made:
            raise TooManyEndpoints
        await _record(tenant_id, actor, "endpoint.add", uuid, url=url)
    return await queries.endpoint_of(tenant_id, uuid), secrets.newest


async def change(*, tenant_id: int, mode: str, uuid: UUID, actor: str, **fields: Any) -> WebhookEndpoint:
    """Set the given ones of url, description, events, ordered and enabled. Writes the audit entry itself.

    Raises Invalid (422), UnknownWebhookEndpoint (404).
    """
    await queries.endpoint_of(tenant_id, uuid)
    if "url" in fields:
        await checked(fields["url"], tls_only=mode == Tenant.Mode.LIVE)
    if "events" in fields:
        fields["events"] = read_filters(fields["events"])
    if "description" in fields:
        check_description(fields["description"])
    plain = {name: value for name, value in fields.items() if name != "enabled"}
    if "url" in plain:
        plain |= {"failing_since": None, "rest_until": None}  # they were about the former address
    async with async_atomic():
        if plain:
            await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).aupdate(**plain, changed_at=Now())
        if "enabled" in fields:
            await switch(tenant_id=tenant_id, uuid=uuid, enabled=fields["enabled"])
        if fields:
            await _record(tenant_id, actor, "endpoint.change", uuid, **fields)
    return await queries.endpoint_of(tenant_id, uuid)


async def switch(*, tenant_id: int, uuid: UUID, enabled: bool, reason: str = TURNED_OFF) -> bool:
    """Enable or disable; False if it was so before. An endpoint that is enabled again goes on at its position: no event is lost."""
    fields: dict[str, Any] = {"disabled_reason": reason}
    if enabled:
        fields = {"disabled_reason": "", "failing_since": None, "rest_until": None}
    mine = WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid, enabled=not enabled)
    return bool(await mine.aupdate(enabled=enabled, changed_at=Now(), **fields))


async def rotate(*, tenant_id: int, uuid: UUID, secret: str = "") -> str:
    """Replace the secret by a new one, or by the given one; returns it, to be shown once. The former one signs too for 24 hours."""
    async with async_atomic():
        mine = WebhookEndpoint.async_objects.of(tenant_id).select_for_update().filter(uuid=uuid)
        endpoint = await mine.afirst()
        if endpoint is None:
            raise UnknownWebhookEndpoint
        secrets = Secrets.unsealed(endpoint.secrets, place=endpoint.place).rotated(clock.now(), secret)
        sealed = secrets.sealed(place=endpoint.place)
        await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).aupdate(secrets=sealed, changed_at=Now())
    return secrets.newest


async def delete(*, tenant_id: int, uuid: UUID) -> bool:
    """Mark as deleted; a periodic task removes its deliveries. False if there is no such endpoint."""
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
    """Disable an endpoint that answered 410 or has failed for days: audit entry, note in its log, warning in the service's log."""
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
    return await deliveries.insert(
        endpoint, type, data, status=WebhookDelivery.Status.NOTED, error=data.get("reason", "")
    )
