"""The API of refunds over HTTP (contract section 2)."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from msgspec import Meta

from payments import money
from payments.api.payments import payment_id
from payments.api.prefer import applied, awaited, preference_of
from payments.books import events, queries
from payments.errors import AmountRefused, UnknownRefund
from payments.intake.requests import Amount, decode
from payments.intake.spilling import missing
from payments.refunds import inline, refunds
from registry.edge.api import KEYLESS, api, described, json_response
from registry.edge.bodies import read
from registry.errors import Invalid
from registry.telemetry import traces
from registry.tenants.access import authorize
from registry.tenants.sampling import TracedObject, enter


class RefundRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The body of `POST /payments/{id}/refunds`."""

    amount: Annotated[Amount, Meta(description="all that is left when missing", examples=["5.00"])] | None = None
    currency: Annotated[str, Meta(description="the payment's; no other is taken", examples=["BRL"])] | None = None
    reason: Annotated[str, Meta(max_length=refunds.LONGEST_REASON)] = ""


REFUND = msgspec.json.Decoder(RefundRequest, dec_hook=decode, float_hook=money.read_number)
_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/RefundRequest"}}}
_ASKING = described("Closed within `Prefer: wait`", 400, 404, 409, 413, 415, 422)


@api.post("/payments/{id}/refunds")
async def refund(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    correlation_id = payment_id(id)
    asked = read(request, REFUND)
    receipt = await refunds.refund(
        tenant_id=principal.tenant_id,
        correlation_id=correlation_id,
        amount=await _units(asked, principal.tenant_id, correlation_id),
        reason=asked.reason,
        actor=f"key {principal.key}" if principal.key else "open tenant",
        idempotency_key=request.META.get("HTTP_IDEMPOTENCY_KEY", ""),
    )
    if traces.on:
        made = TracedObject("refund", principal.tenant_id, receipt.refund_id)
        enter([(made, not receipt.replayed)], of=TracedObject("payment", principal.tenant_id, correlation_id))
    if receipt.replayed:
        headers = {**headers, "Idempotent-Replayed": "true"}
    current = await _one(principal.tenant_id, correlation_id, receipt.refund_id)
    headers = {**headers, "Location": current["statusUrl"]}
    prefers = preference_of(request)
    wait = prefers.wait
    if inline.OPERATION in principal.inline and not refunds.is_closed(current):
        inline.send(principal.tenant_id, receipt.refund_id)
        wait = wait or (0.0 if prefers.respond_async else inline.WAIT)
    if not wait:
        return json_response(current, status=202, headers=headers)
    return await _closed_within(wait, request, principal.tenant_id, current, headers)


api.describe(
    "/payments/{id}/refunds",
    "post",
    {
        "tags": ["refunds"],
        "operationId": "refund_payment",
        "security": KEYLESS,
        "summary": "Refund a part of a payment, or all that is left of it",
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "requestBody": {"required": True, "content": _BODY},
        "responses": {
            "202": {"description": "Accepted: a worker sends it to the processor", "content": {"application/json": {}}},
            **{str(status): answer for status, answer in _ASKING["responses"].items()},
        },
    },
    RefundRequest,
)


async def _units(asked: RefundRequest, tenant_id: int, correlation_id: UUID) -> int | None:
    """The requested amount in the payment's minor units. Raises UnknownPayment (404), Invalid (422) with every fault."""
    payment = await queries.status_of(tenant_id, correlation_id)
    if payment is None:
        raise missing(tenant_id, correlation_id)
    faults, units = [], None
    if asked.currency is not None and asked.currency != payment["currency"]:
        faults.append(
            {"field": "currency", "message": f"the payment is in {payment['currency']}, and so are its refunds"}
        )
    try:
        units = None if asked.amount is None else money.minor_units(asked.amount, payment["currency"])
    except AmountRefused as error:
        faults.append({"field": "amount", "message": error.detail})
    if faults:
        raise Invalid("some fields are not acceptable", errors=faults)
    return units


async def _one(tenant_id: int, correlation_id: UUID, refund_id: UUID) -> dict[str, Any]:
    current = await refunds.refunds_of(tenant_id, correlation_id, refund_id)
    if not current:
        raise UnknownRefund
    return _addressed(current[0])


def _addressed(current: dict[str, Any]) -> dict[str, Any]:
    address = f"{settings.REGISTRY_URL}/payments/{current['correlationId']}/refunds/{current['id']}"
    return {**current, "statusUrl": address}


async def _closed_within(
    wait: float, request: HttpRequest, tenant_id: int, current: dict[str, Any], headers: dict[str, str]
) -> HttpResponse:
    """200 with the refund that is returned or failed, or the usual 202 when that takes longer."""
    ended = await awaited(request, _closed(tenant_id, current, wait))
    if ended is None:
        return applied(json_response(current, status=202, headers=headers))
    return applied(json_response(ended, headers=headers), wait)


async def _closed(tenant_id: int, current: dict[str, Any], within: float) -> dict[str, Any] | None:
    """The refund once its state is terminal; None if that takes longer than `within` seconds."""
    correlation_id, refund_id = UUID(current["correlationId"]), UUID(current["id"])
    try:
        return await events.follow_until(
            tenant_id,
            correlation_id,
            lambda: _one(tenant_id, correlation_id, refund_id),
            refunds.is_closed,
            within=within,
        )
    except TimeoutError:
        return None


@api.get(
    "/payments/{id}/refunds",
    tags=["refunds"],
    summary="All refunds of a payment, oldest first",
    openapi_extra=described("Its refunds", 404),
)
async def refund_list(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    correlation_id = payment_id(id)
    current = await refunds.refunds_of(principal.tenant_id, correlation_id)
    if not current and await queries.status_of(principal.tenant_id, correlation_id) is None:
        raise missing(principal.tenant_id, correlation_id)
    return json_response({"items": [_addressed(one) for one in current]}, headers=headers)


@api.get(
    "/payments/{id}/refunds/{refund_id}",
    tags=["refunds"],
    summary="The status of a refund",
    openapi_extra=described("The refund", 404),
)
async def refund_status(request: HttpRequest, id: str, refund_id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    try:
        public_id = UUID(refund_id)
    except ValueError:
        raise UnknownRefund from None
    return json_response(await _one(principal.tenant_id, payment_id(id), public_id), headers=headers)
