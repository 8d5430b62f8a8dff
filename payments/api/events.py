"""`GET /payments/{id}/events`: a long poll for a payment's events, for clients without a websocket."""

from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse

from payments.api.payments import payment_id
from payments.books import events, payer, queries
from payments.errors import UnknownPayment
from payments.intake.spilling import missing
from registry.data import live
from registry.edge.api import api, described, json_response
from registry.edge.handler import until_disconnect
from registry.edge.parameters import LONG_POLL, TEXT, Query
from registry.tenants import access, links

EVENTS = Query(
    {
        **LONG_POLL,
        "token": TEXT.saying("of the payment's link, in place of a key"),
    }
)


@api.get(
    "/payments/{id}/events",
    tags=["live"],
    summary="Long poll: events after a sequence, or none after `wait` seconds",
    openapi_extra=described("Events, and the sequence to ask after next", 404, 422, query=EVENTS),
)
async def poll(request: HttpRequest, id: str) -> HttpResponse:
    correlation_id, asked = payment_id(id), EVENTS.read(request)
    tenant_id = await _tenant_of(request, correlation_id, asked["token"])
    view = await _view(tenant_id, correlation_id) if asked["token"] else None
    after = asked["after"]
    later = events.STREAM.after(
        tenant_id, correlation_id, after, within=asked["wait"], check=lambda: _check(tenant_id, correlation_id)
    )
    found = await until_disconnect(request.receive, later)  # type: ignore[attr-defined]
    messages = [_message(payer.as_payer(event, view) if view else event) for event in found or []]
    return json_response({"events": messages, "next": found[-1].sequence if found else after})


async def _tenant_of(request: HttpRequest, correlation_id: UUID, token: str | None) -> int:
    """The tenant of the payment: by the link's token, else by key."""
    if token:
        tenant_id = links.tenant_of(correlation_id, token)
        if tenant_id is None:
            raise UnknownPayment
        return tenant_id
    principal, _ = await access.authorize(request, "read", keyless=True)
    return principal.tenant_id


def _message(event: live.Event) -> dict[str, Any]:
    return {"type": "payment", "sequence": event.sequence, "payment": msgspec.Raw(event.body), **event.beside}


async def _view(tenant_id: int, correlation_id: UUID) -> dict[str, Any]:
    """What a payer may see, read before the wait: the payment may be purged meanwhile. Raises as `_check`."""
    found = await payer.view_of(tenant_id, correlation_id)
    if found is None:
        raise missing(tenant_id, correlation_id)
    return found


async def _check(tenant_id: int, correlation_id: UUID) -> None:
    """Raises UnknownPayment (404), or Unavailable (503) for a payment that waits in the spill."""
    if await queries.status_of(tenant_id, correlation_id) is None:
        raise missing(tenant_id, correlation_id)
