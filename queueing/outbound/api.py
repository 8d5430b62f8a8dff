"""The API of webhook endpoints and deliveries. Reading requires the scope read, everything else admin."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from django_async_backend.db.transaction import async_atomic
from msgspec import UNSET, Meta, UnsetType

from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import deliveries as delivering
from queueing.outbound import endpoints, queries
from queueing.outbound.errors import UnknownDelivery, UnknownWebhookEndpoint
from registry.edge.api import api, described, json_response
from registry.edge.bodies import read
from registry.edge.parameters import EXTENDED_WHEN, WORD, Query, Values, choice, cursor_page
from registry.errors import Invalid
from registry.tenants import audit
from registry.tenants.access import Principal, authorize

PAGE_AT_MOST = 200
TAG = ["webhooks"]
DELIVERIES = Query(
    {
        "status": choice(*WebhookDelivery.Status.values),
        "type": WORD,
        **EXTENDED_WHEN,
        **cursor_page(50, most=PAGE_AT_MOST),
    }
)


class NewEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /webhook-endpoints`."""

    url: Annotated[str, Meta(min_length=1, max_length=2000, description="https:// for live tenants; no redirects")]
    events: Annotated[
        list[Annotated[str, Meta(max_length=50)]],
        Meta(min_length=1, max_length=50, description='types, beginnings such as "payment.*", or "*"'),
    ] = msgspec.field(default_factory=lambda: ["*"])
    description: Annotated[str, Meta(max_length=200)] = ""
    ordered: Annotated[
        bool, Meta(description="the next event of an object, such as a payment, waits for the one before")
    ] = False
    enabled: bool = True


class EndpointChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PATCH /webhook-endpoints/{id}`: the fields to change."""

    url: Annotated[str, Meta(min_length=1, max_length=2000)] | UnsetType = UNSET
    events: Annotated[list[Annotated[str, Meta(max_length=50)]], Meta(min_length=1, max_length=50)] | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=200)] | UnsetType = UNSET
    ordered: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ReplayRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The deliveries to replay: by time, or by id. At most 10,000 at once, oldest first."""

    from_: Annotated[datetime, Meta(tz=True)] | None = msgspec.field(default=None, name="from")
    to: Annotated[datetime, Meta(tz=True)] | None = None
    ids: Annotated[list[Annotated[int, Meta(ge=1, le=2**63 - 1)]], Meta(max_length=1000)] | None = None
    dead_only: Annotated[bool, Meta(description="only those that were given up")] = True


NEW = msgspec.json.Decoder(NewEndpoint)
CHANGE = msgspec.json.Decoder(EndpointChange)
RANGE = msgspec.json.Decoder(ReplayRange)
_, _schemas = msgspec.json.schema_components(
    (NewEndpoint, EndpointChange, ReplayRange), ref_template="#/components/schemas/{name}"
)
api.schemas.update(_schemas)


def says(
    good: str,
    *problems: int,
    body: type[msgspec.Struct] | None = None,
    status: int = 200,
    query: Query | None = None,
) -> dict[str, Any]:
    """The part of an operation's description that ninja cannot infer: its body, and a status other than 200."""
    extra = described(good, *problems, *((400, 413, 415, 422) if body else ()), query=query, keyless=False)
    if status != 200:
        answer = extra["responses"].pop(200)
        extra["responses"][status] = {"description": good} if status == 204 else answer
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return extra


async def caller(request: HttpRequest, scope: str) -> tuple[Principal, dict[str, str]]:
    """Authorize by key, even for an open tenant: addresses of receivers and message bodies are private."""
    return await authorize(request, scope)


def endpoint_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise UnknownWebhookEndpoint from None


def delivery_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UnknownDelivery
    return int(text)


async def record(principal: Principal, action: str, target: str, *, rows: int = 1, **detail: Any) -> None:
    await audit.record(
        actor=f"key {principal.key}",
        action=action,
        target=target,
        tenant_id=principal.tenant_id,
        rows=rows,
        detail=detail,
    )


# -- Endpoints -----------------------------------------------------------------------------------------------


@api.post(
    "/webhook-endpoints",
    tags=TAG,
    summary="Create an endpoint; the answer has its secret, which is shown once",
    openapi_extra=says("The endpoint with its secret", 409, body=NewEndpoint, status=201),
)
async def create(request: HttpRequest) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    asked = read(request, NEW)
    endpoint, secret = await endpoints.create(
        tenant_id=principal.tenant_id,
        mode=principal.mode,
        actor=f"key {principal.key}",
        **msgspec.structs.asdict(asked),
    )
    return json_response({**queries.shown(endpoint), "secret": secret}, status=201, headers=headers)


@api.get("/webhook-endpoints", tags=TAG, summary="All endpoints with their state", openapi_extra=says("The endpoints"))
async def browse(request: HttpRequest) -> HttpResponse:
    principal, headers = await caller(request, "read")
    found = await queries.endpoints(principal.tenant_id)
    return json_response({"items": await _with_standing(principal.tenant_id, found)}, headers=headers)


async def _with_standing(tenant_id: int, found: list[WebhookEndpoint]) -> list[dict[str, Any]]:
    standings = await queries.standings(tenant_id, [one.pk for one in found])
    return [queries.shown(one, standings.get(one.pk)) for one in found]


@api.get("/webhook-endpoints/{id}", tags=TAG, summary="One endpoint", openapi_extra=says("The endpoint", 404))
async def one(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "read")
    found = await queries.endpoint_of(principal.tenant_id, endpoint_id(id))
    [answer] = await _with_standing(principal.tenant_id, [found])
    return json_response(answer, headers=headers)


@api.patch(
    "/webhook-endpoints/{id}",
    tags=TAG,
    summary="Change an endpoint; when enabled again, delivery continues where it stopped",
    openapi_extra=says("The endpoint as it is now", 404, body=EndpointChange),
)
async def change(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    uuid, asked = endpoint_id(id), read(request, CHANGE)
    fields = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
    endpoint = await endpoints.change(
        tenant_id=principal.tenant_id, mode=principal.mode, uuid=uuid, actor=f"key {principal.key}", **fields
    )
    return json_response(queries.shown(endpoint), headers=headers)


@api.delete(
    "/webhook-endpoints/{id}",
    tags=TAG,
    summary="Delete an endpoint and its deliveries",
    openapi_extra=says("Deleted", 404, status=204),
)
async def delete(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    uuid = endpoint_id(id)
    async with async_atomic():
        if not await endpoints.delete(tenant_id=principal.tenant_id, uuid=uuid):
            raise UnknownWebhookEndpoint
        await record(principal, "endpoint.delete", f"webhook endpoint {uuid}")
    return HttpResponse(status=204, headers=headers)


@api.post(
    "/webhook-endpoints/{id}/rotate-secret",
    tags=TAG,
    summary="Replace the secret; the new one is shown once, the former one signs too for 24 hours",
    openapi_extra=says("The new secret", 404),
)
async def rotate(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    uuid = endpoint_id(id)
    async with async_atomic():
        secret = await endpoints.rotate(tenant_id=principal.tenant_id, uuid=uuid)
        await record(principal, "endpoint.rotate", f"webhook endpoint {uuid}")
    return json_response({"id": str(uuid), "secret": secret}, headers=headers)


@api.post(
    "/webhook-endpoints/{id}/test",
    tags=TAG,
    summary="Send a message of type endpoint.test",
    openapi_extra=says("Its delivery", 404, 409, status=202),
)
async def test(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    made = await delivering.send_test(tenant_id=principal.tenant_id, uuid=endpoint_id(id))
    found, endpoint = await queries.delivery(principal.tenant_id, made)
    return json_response(queries.delivery_shown(found, endpoint), status=202, headers=headers)


# -- Deliveries ----------------------------------------------------------------------------------------------


@api.get(
    "/webhook-endpoints/{id}/deliveries",
    tags=TAG,
    summary="An endpoint's deliveries, the newest first",
    openapi_extra=says(
        "A page",
        404,
        422,
        query=DELIVERIES,
    ),
)
async def deliveries(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "read")
    asked = DELIVERIES.read(request)
    filters, limit, cursor = filters_of(asked), asked["limit"], asked["cursor"]
    before = queries.number(cursor) if cursor else None
    endpoint = await queries.endpoint_of(principal.tenant_id, endpoint_id(id))
    found, following = await queries.deliveries(principal.tenant_id, endpoint.pk, filters, limit=limit, before=before)
    items = [queries.delivery_shown(one, endpoint) for one in found]
    return json_response({"items": items, "next": str(following) if following else None}, headers=headers)


def filters_of(asked: Values) -> queries.DeliveryFilters:
    return queries.DeliveryFilters(
        status=asked["status"] or None, type=asked["type"], from_=asked["from"], to=asked["to"]
    )


@api.get(
    "/webhook-deliveries/{id}",
    tags=TAG,
    summary="A delivery with its body, and every attempt with request and response",
    openapi_extra=says("The delivery", 404),
)
async def delivery(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "read")
    found, endpoint = await queries.delivery(principal.tenant_id, delivery_id(id))
    return json_response(queries.whole(found, endpoint, await queries.tries(found)), headers=headers)


@api.post(
    "/webhook-deliveries/{id}/replay",
    tags=TAG,
    summary="Replay a delivery under the same webhook-id",
    openapi_extra=says("The delivery, pending again", 404, 409, status=202),
)
async def replay(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    number = delivery_id(id)
    async with async_atomic():
        await delivering.replay(tenant_id=principal.tenant_id, delivery_id=number)
        await record(principal, "delivery.replay", f"webhook delivery {number}")
    found, endpoint = await queries.delivery(principal.tenant_id, number)
    return json_response(queries.delivery_shown(found, endpoint), status=202, headers=headers)


@api.post(
    "/webhook-endpoints/{id}/replay",
    tags=TAG,
    summary="Replay deliveries by time or by id",
    openapi_extra=says("How many", 404, body=ReplayRange, status=202),
)
async def replay_range(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await caller(request, "admin")
    asked = read(request, RANGE)
    if asked.ids is None and asked.from_ is None and asked.to is None:
        raise Invalid(errors=[{"field": "from", "message": "say which: from, to, or ids"}])
    async with async_atomic():
        endpoint = await queries.endpoint_of(principal.tenant_id, endpoint_id(id))
        done = await delivering.replay_of(
            endpoint, ids=asked.ids, since=asked.from_, until=asked.to, dead_only=asked.dead_only and asked.ids is None
        )
        await record(principal, "delivery.replay", f"webhook endpoint {endpoint.uuid}", rows=done)
    return json_response({"replayed": done}, status=202, headers=headers)


api.add_examples(__file__)
