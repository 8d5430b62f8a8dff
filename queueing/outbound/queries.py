"""Endpoints, deliveries and attempts, as the API and the pages read them. endpoints.py and deliveries.py change them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db.models import F

from queueing.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from queueing.outbound import sources
from queueing.outbound.errors import UnknownDelivery, UnknownWebhookEndpoint
from registry.data import database
from registry.edge.api import iso
from registry.errors import Invalid

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")
COUNTED = 1000  # deliveries counted of one kind: above that it is "many"
TRIES_SHOWN = 50  # of one delivery, the latest


class DeliveryCounts(NamedTuple):
    """Open and dead deliveries of an endpoint; counts stop at COUNTED."""

    waiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeliveryFilters:
    """Filters of deliveries; None: all. Times are of the fan-out, both inclusive."""

    status: str | None = None
    type: str | None = None
    from_: datetime | None = None
    to: datetime | None = None


def state_of(endpoint: WebhookEndpoint) -> str:
    if not endpoint.enabled:
        return "disabled"
    return "failing" if endpoint.failing_since else "active"


# -- Endpoints -----------------------------------------------------------------------------------------------


async def endpoints(tenant_id: int) -> list[WebhookEndpoint]:
    return [one async for one in WebhookEndpoint.async_objects.of(tenant_id).order_by("id")]


async def endpoint_of(tenant_id: int, uuid: UUID) -> WebhookEndpoint:
    """Raises UnknownWebhookEndpoint (404)."""
    found = await WebhookEndpoint.async_objects.of(tenant_id).filter(uuid=uuid).afirst()
    if found is None:
        raise UnknownWebhookEndpoint
    return found


async def standings(tenant_id: int, ids: Sequence[int]) -> dict[int, DeliveryCounts]:
    """The standings of these endpoints of the tenant, by id."""
    rows = await database.fetch(SQL["standings"], {"tenant": tenant_id, "ids": list(ids)})
    return {id: DeliveryCounts(waiting, dead) for id, waiting, dead in rows}


def shown(endpoint: WebhookEndpoint, standing: DeliveryCounts | None = None) -> dict[str, Any]:
    """An endpoint as the API shows it, without its secret."""
    counts = {"waiting": standing.waiting, "dead": standing.dead} if standing else {}
    return {
        "id": str(endpoint.uuid),
        "url": endpoint.url,
        "description": endpoint.description,
        "events": [f"{one}*" if one.endswith(".") else one for one in endpoint.events],
        "ordered": endpoint.ordered,
        "enabled": endpoint.enabled,
        "state": state_of(endpoint),
        "disabledReason": endpoint.disabled_reason or None,
        "failingSince": _iso(endpoint.failing_since),
        "createdAt": iso(endpoint.created_at),
        "updatedAt": iso(endpoint.changed_at),
        **counts,
    }


# -- Deliveries ----------------------------------------------------------------------------------------------


async def deliveries(
    tenant_id: int, endpoint_id: int, filters: DeliveryFilters, *, limit: int, before: int | None = None
) -> tuple[list[WebhookDelivery], int | None]:
    """A page of matching deliveries with ids below `before`, newest first; and the cursor of the next page, if there is one."""
    wanted = {
        "status": filters.status,
        "type": filters.type,
        "created_at__gte": filters.from_,
        "created_at__lte": filters.to,
        "id__lt": before,
    }
    # The tenant is compared, not looked up: the primary key has the same order, and all of the tenant's deliveries.
    found = WebhookDelivery.async_objects.alias(owner=F("tenant_id") + 0).filter(
        owner=tenant_id, endpoint_id=endpoint_id, **{k: v for k, v in wanted.items() if v is not None}
    )
    rows = [one async for one in found.order_by("-id")[: limit + 1]]
    return rows[:limit], rows[limit - 1].pk if len(rows) > limit else None


async def delivery(tenant_id: int, delivery_id: int) -> tuple[WebhookDelivery, WebhookEndpoint]:
    """Raises UnknownDelivery (404)."""
    found = await WebhookDelivery.async_objects.filter(tenant_id=tenant_id, id=delivery_id).afirst()
    if found is None:
        raise UnknownDelivery
    endpoint = await WebhookEndpoint.async_objects.receivers(tenant_id).filter(id=found.endpoint_id).afirst()
    if endpoint is None:
        raise UnknownDelivery
    return found, endpoint


async def callbacks(
    tenant_id: int, *, limit: int, before: int | None = None, job: UUID | None = None
) -> tuple[list[tuple[WebhookDelivery, WebhookEndpoint]], int | None]:
    """A page of callbacks of jobs, or of one job, with ids below `before`, newest first; and the cursor of the next page."""
    found = WebhookDelivery.async_objects.filter(callback_url__gt="", **({"id__lt": before} if before else {}))
    if job is None:
        found = found.filter(tenant_id=tenant_id)
    else:  # the tenant is compared, not looked up: the other index has all of the tenant's callbacks
        found = found.alias(owner=F("tenant_id") + 0).filter(owner=tenant_id, subject=job)
    rows = [one async for one in found.order_by("-id")[: limit + 1]]
    shown = rows[:limit]
    receivers = WebhookEndpoint.async_objects.receivers(tenant_id).filter(id__in={one.endpoint_id for one in shown})
    by_id = {one.pk: one async for one in receivers}
    pairs = [(one, by_id[one.endpoint_id]) for one in shown if one.endpoint_id in by_id]
    return pairs, rows[limit - 1].pk if len(rows) > limit else None


async def tries(found: WebhookDelivery) -> list[WebhookAttempt]:
    """A delivery's attempts, the latest first."""
    of = WebhookAttempt.async_objects.filter(tenant_id=found.tenant_id, delivery_id=found.pk)
    return [one async for one in of.order_by("-number")[:TRIES_SHOWN]]


def delivery_shown(found: WebhookDelivery, endpoint: WebhookEndpoint) -> dict[str, Any]:
    open = found.status == WebhookDelivery.Status.PENDING and endpoint.enabled
    return {
        "id": found.pk,
        "endpoint": None if endpoint.callback else str(endpoint.uuid),
        "callbackUrl": found.callback_url or None,
        "webhookId": found.message_id,
        "type": found.type,
        **_subject(found),
        "status": found.status,
        "attempts": found.attempt,
        "answer": found.answer,
        "error": found.error or None,
        "nextTryAt": _iso(found.run_at) if open else None,
        "createdAt": iso(found.created_at),
        "updatedAt": iso(found.changed_at),
    }


def _subject(found: WebhookDelivery) -> dict[str, str | None]:
    """The id of what the event is about, under its name in the API; null under the names of other sources."""
    about = sources.source_of(found.type)
    return {
        one.subject_field: str(found.subject) if found.subject and one is about else None
        for one in sources.SOURCES.values()
    }


def whole(found: WebhookDelivery, endpoint: WebhookEndpoint, made: Sequence[WebhookAttempt]) -> dict[str, Any]:
    """A delivery with its body and its attempts, the latest first."""
    return {
        **delivery_shown(found, endpoint),
        "body": msgspec.Raw(found.body.encode()),
        "tries": [try_shown(found, one) for one in made],
    }


def try_shown(found: WebhookDelivery, made: WebhookAttempt) -> dict[str, Any]:
    return {
        "number": made.number,
        "at": iso(made.at),
        "latencyMs": made.latency_ms,
        "error": made.error or None,
        "request": {"headers": request_headers(found, made)},
        "response": {"status": made.answer, "headers": made.headers or {}, "body": made.body}
        if made.answer is not None
        else None,
    }


def request_headers(found: WebhookDelivery, made: WebhookAttempt) -> dict[str, str]:
    """The request's headers. Signatures are no secrets."""
    return {
        "webhook-id": found.message_id,
        "webhook-timestamp": str(int(made.signed_at.timestamp())),
        "webhook-signature": made.signature,
    }


def number(text: str, field: str = "cursor") -> int:
    """A cursor that a page returned, as a number. Raises Invalid (422)."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(errors=[{"field": field, "message": "is not a cursor of an earlier page"}])
    return int(text)


def _iso(at: datetime | None) -> str | None:
    return iso(at) if at else None
