"""The API of payments over HTTP (contract section 2). Pages for people live in pages.py."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from payments import events, inline, intake, lifecycle, queries
from payments import purge as purging
from payments import summary as summaries
from payments.errors import LiveTenant, PaymentsBlocked, UnknownPayment
from payments.exports import Blocks, begun, csv_lines, json_lines
from payments.money import CURRENCIES, decimal_text
from payments.openapi import described
from payments.requests import BATCH, LIST_FIELDS, PAYMENT, PaymentRequest, every_fault, order_of
from payments.states import CANCELED, OPEN, Status
from registry import access, live, nulls, telemetry
from registry.access import Principal, authorize
from registry.api import FAULTS_NAMED, api, invalid, iso, json_response, read, refuse_nul
from registry.errors import Invalid, Problem, Unavailable
from registry.handler import lean, until_disconnect
from registry.models import Tenant

WAIT_AT_MOST = 30.0  # seconds that a long poll or `Prefer: wait` may hold a request
PAGE_AT_MOST = 500
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def payment_id(text: str) -> UUID:
    """The id in a path; one that is no UUID is simply unknown."""
    try:
        found = UUID(text)
    except ValueError:
        raise UnknownPayment from None
    telemetry.PAYMENT.set(str(found))
    return found


# -- Accepting: hot, so plain views -----------------------------------------------------------------------


@lean
async def accept(request: HttpRequest) -> HttpResponse:
    """`POST /payments`: 202 once durable; the same content under the same id, the same answer. 200 with the settled payment
    where its sender waits for it, or where the tenant's payments are sent inline."""
    principal, headers = await authorize(request, "write")
    try:
        asked = read(request, PAYMENT)
    except Invalid as error:
        raise await every_fault(error, request.body, principal) from None
    order = await order_of(asked, principal, request.META.get("HTTP_IDEMPOTENCY_KEY", ""))
    await may_pay(principal, [order])
    here = inline.OPERATION in principal.inline and inline.takes(order)
    receipt = await intake.submit(order, inline=here)
    prefer = request.META.get("HTTP_PREFER", "")
    wait = preferred_wait(prefer)
    if here and not receipt.spilled:
        paying = inline.pay(order.tenant_id, order.correlation_id)
        if "respond-async" in prefer.lower():
            return with_headers(accepted(order, receipt, headers), {"Preference-Applied": "respond-async"})
        within = wait or inline.WAIT
        outcome = inline.outcome(paying, order, within=within, patient=bool(wait))
        return await settled_within(within, outcome, order, receipt, request, headers)
    if wait:
        settled = lifecycle.settled(order.tenant_id, order.correlation_id, within=wait)
        return await settled_within(wait, settled, order, receipt, request, headers)
    return accepted(order, receipt, headers)


async def may_pay(principal: Principal, orders: Sequence[intake.Order]) -> None:
    """Raises PaymentsBlocked (403) with the reason; a sandbox is never blocked, and what was accepted is answered for ever."""
    blocked = principal.blocked and principal.mode == Tenant.Mode.LIVE
    if blocked and not await intake.are_accepted(orders):
        raise PaymentsBlocked(principal.blocked)


def accepted(order: intake.Order, receipt: intake.Receipt, headers: dict[str, str]) -> HttpResponse:
    name = str(order.correlation_id)
    address = f"{settings.REGISTRY_URL}/payments/{name}"
    body = (
        f'{{"correlationId":"{name}","status":"queued","amount":"{decimal_text(order.amount, order.currency)}",'
        f'"currency":"{order.currency}","createdAt":"{iso(receipt.created_at)}","statusUrl":"{address}/status",'
        f'"liveUrl":"{address}/live?token={access.live_token(order.tenant_id, order.correlation_id)}"}}'
    )
    response = HttpResponse(body.encode(), status=202, content_type="application/json", headers=headers)
    response["Location"] = f"{address}/status"
    if receipt.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def preferred_wait(prefer: str) -> float:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most WAIT_AT_MOST; 0 without."""
    for preference in prefer.split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isascii() and value.strip().isdigit():
            return min(float(value), WAIT_AT_MOST)
    return 0


async def settled_within(
    wait: float,
    settled: Awaitable[object],
    order: intake.Order,
    receipt: intake.Receipt,
    request: HttpRequest,
    headers: dict[str, str],
) -> HttpResponse:
    """200 with the settled payment, or the usual 202 when `settled` takes longer."""
    try:
        await until_disconnect(request.receive, settled)  # type: ignore[attr-defined]
        detail = await queries.detail_of(order.tenant_id, order.correlation_id)
    except (Unavailable, OperationalError, InterfaceError):
        detail = None  # it is durable all the same: a 503 would make the sender send another one
    if detail is None or detail["status"] in OPEN:
        return with_headers(accepted(order, receipt, headers), {"Preference-Applied": "respond-async"})
    response = json_response(detail, headers=headers)
    if receipt.replayed:
        response["Idempotent-Replayed"] = "true"
    return with_headers(response, {"Preference-Applied": f"wait={wait:.0f}"})


def with_headers(response: HttpResponse, headers: dict[str, str]) -> HttpResponse:
    for name, value in headers.items():
        response[name] = value
    return response


@lean(max_body=settings.MAX_BATCH_BODY)
async def accept_batch(request: HttpRequest) -> HttpResponse:
    """`POST /payments/batch`: up to 1,000 payments, one verdict per item; bad ones never spoil good ones."""
    principal, headers = await authorize(request, "write")
    batch = read(request, BATCH, nul=True)
    if principal.rate_limit:
        headers = await access.limit_rate(principal, cost=len(batch.items) - 1) if len(batch.items) > 1 else headers
    verdicts: list[dict[str, Any]] = [{}] * len(batch.items)
    orders: list[tuple[int, intake.Order]] = []
    for n, raw in enumerate(batch.items):
        try:
            orders.append((n, await order_of(await item_of(raw, principal), principal)))
        except Invalid as error:
            verdicts[n] = {
                "correlationId": named_id(raw),
                "status": "invalid",
                "error": {"detail": error.detail, "errors": error.errors},
            }
    await may_pay(principal, [order for _, order in orders])
    outcomes = await intake.submit_many([order for _, order in orders])
    for (n, order), outcome in zip(orders, outcomes, strict=True):
        verdicts[n] = verdict(order, outcome)
    return json_response({"results": verdicts}, headers=headers)


async def item_of(raw: msgspec.Raw, principal: Principal) -> PaymentRequest:
    body = bytes(raw)
    if len(body) > settings.MAX_BODY:
        raise Invalid(f"an item may have at most {settings.MAX_BODY} bytes")
    try:
        refuse_nul(body)
        return nulls.decode(PAYMENT, body)
    except RecursionError:
        raise Invalid("nested too deeply") from None
    except msgspec.ValidationError as error:
        raise await every_fault(invalid(json.loads(body), PAYMENT, error), body, principal) from None


def named_id(raw: msgspec.Raw) -> str | None:
    data = json.loads(bytes(raw))
    name = data.get("correlationId") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def verdict(order: intake.Order, outcome: intake.Receipt | Problem) -> dict[str, Any]:
    if isinstance(outcome, intake.Receipt):
        return {"correlationId": str(order.correlation_id), "status": "replayed" if outcome.replayed else "queued"}
    if outcome.status != 409:
        raise outcome
    return {
        "correlationId": str(order.correlation_id),
        "status": "conflict",
        "error": {"detail": outcome.detail, "errors": []},
    }


# -- Asking -----------------------------------------------------------------------------------------------


@api.get(
    "/payments/{id}/status",
    tags=["payments"],
    summary="Where a payment stands",
    openapi_extra=described("Its status object", 404),
)
async def status(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    found = await queries.status_of(principal.tenant_id, payment_id(id))
    if found is None:
        raise UnknownPayment
    return json_response(found, headers=headers)


@api.get(
    "/payments/{id}",
    tags=["payments"],
    summary="A payment with its attempts and its timeline",
    openapi_extra=described("The payment", 404),
)
async def detail(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    found = await queries.detail_of(principal.tenant_id, payment_id(id))
    if found is None:
        raise UnknownPayment
    return json_response(found, headers=headers)


def moment(request: HttpRequest, name: str) -> datetime | None:
    """A query parameter in ISO 8601; without a zone it is UTC."""
    text = request.GET.get(name)
    if not text:
        return None
    try:
        if DATE.fullmatch(text):
            text += "T00:00:00Z"  # a date alone is its first moment
        # A "+" that was not percent-encoded arrives as a space.
        at = msgspec.convert(text.replace(" ", "+") if "T" in text else text, datetime)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise Invalid(
            errors=[{"field": name, "message": "wants a time in ISO 8601 such as 2025-07-15T12:34:56.000Z"}]
        ) from None


def filters_of(request: HttpRequest) -> queries.Filters:
    """The filters in the query string. Raises Invalid (422) naming unknown ones."""
    unknown = [name for name in request.GET if name not in LIST_FIELDS][:FAULTS_NAMED]
    if unknown:
        allowed = ", ".join(LIST_FIELDS)
        raise Invalid(errors=[{"field": name[:100], "message": f"unknown; allowed: {allowed}"} for name in unknown])
    status = request.GET.get("status") or None
    if status and status not in Status.values:
        raise Invalid(errors=[{"field": "status", "message": f"wants one of {', '.join(Status.values)}"}])
    return queries.Filters(
        status=status,
        processor=word(request, "processor"),
        from_=moment(request, "from"),
        to=moment(request, "to"),
    )


def word(request: HttpRequest, name: str) -> str | None:
    text = request.GET.get(name) or None
    if text and "\0" in text:
        raise Invalid(errors=[{"field": name, "message": "contains NUL"}])
    return text


def whole(request: HttpRequest, name: str, default: int, least: int, most: int) -> int:
    text = request.GET.get(name, str(default))
    if not text.isdecimal() or len(text) > 12 or not least <= int(text) <= most:
        raise Invalid(errors=[{"field": name, "message": f"wants a whole number from {least} to {most}"}])
    return int(text)


@lean
async def browse(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    principal, headers = await authorize(request, "read")
    filters = filters_of(request)
    accept = request.META.get("HTTP_ACCEPT", "")
    if "text/csv" in accept:
        return await export(csv_lines, principal, filters, "text/csv; charset=utf-8", "payments.csv")
    if "application/x-ndjson" in accept:
        return await export(json_lines, principal, filters, "application/x-ndjson", "payments.ndjson")
    limit = whole(request, "limit", 50, 1, PAGE_AT_MOST)
    page = await queries.page_of(principal.tenant_id, filters, limit=limit, cursor=request.GET.get("cursor"))
    return json_response(page, headers=headers)


async def export(
    lines: Callable[[Blocks], AsyncIterator[bytes]],
    principal: Principal,
    filters: queries.Filters,
    kind: str,
    name: str,
) -> StreamingHttpResponse:
    """Begins once the first block is read: until then a database that is away is a 503, and not a stream cut short."""
    blocks = await begun(queries.all_of(principal.tenant_id, filters))
    return StreamingHttpResponse(
        lines(blocks), content_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@api.get(
    "/payments-summary",
    tags=["payments"],
    summary="What each processor booked in a window of requestedAt",
    openapi_extra=described("Requests and amount per processor", 422, query=("from", "to", "currency")),
)
async def summary(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    currency = request.GET.get("currency") or None
    if currency and currency not in CURRENCIES:
        raise Invalid(errors=[{"field": "currency", "message": "is not an ISO 4217 currency code such as BRL"}])
    found = await summaries.summary(
        tenant_id=principal.tenant_id,
        currency=currency,
        start=moment(request, "from"),
        end=moment(request, "to"),
    )
    return json_response(found, headers=headers)


@api.get(
    "/payments/{id}/events",
    tags=["live"],
    summary="Long poll: events after a sequence, or none after `wait` seconds",
    openapi_extra=described("Events, and the sequence to ask after next", 404, 422, query=("after", "wait", "token")),
)
async def poll(request: HttpRequest, id: str) -> HttpResponse:
    correlation_id = payment_id(id)
    tenant_id = await reader_of(request, correlation_id)
    after = whole(request, "after", 0, 0, 2**31 - 1)
    wait = whole(request, "wait", 20, 0, int(WAIT_AT_MOST))
    later = events_after(tenant_id, correlation_id, after, wait)
    found = await until_disconnect(request.receive, later)  # type: ignore[attr-defined]
    messages = [live_message(event) for event in found or []]
    return json_response({"events": messages, "next": found[-1].sequence if found else after})


async def reader_of(request: HttpRequest, correlation_id: UUID) -> int:
    """The tenant whose payment this is: by the link's token, else by key."""
    if token := request.GET.get("token"):
        tenant_id = access.live_subject(correlation_id, token)
        if tenant_id is None:
            raise UnknownPayment
        return tenant_id
    principal, _ = await authorize(request, "read")
    return principal.tenant_id


def live_message(event: live.Event) -> dict[str, Any]:
    return {"type": "payment", "sequence": event.sequence, "payment": msgspec.Raw(event.body)}


async def events_after(tenant_id: int, correlation_id: UUID, after: int, wait: float) -> list[live.Event]:
    async with live.hub().subscribe(tenant_id, frozenset({str(correlation_id)})) as subscription:
        if found := await events.of_payment(tenant_id, correlation_id, after):
            return found
        if await queries.status_of(tenant_id, correlation_id) is None:
            raise UnknownPayment
        try:
            async with asyncio.timeout(wait):
                return [event for event in await subscription.get() if event.sequence > after]
        except TimeoutError:
            return []


# -- Changing -----------------------------------------------------------------------------------------------


@api.post(
    "/payments/{id}/cancel",
    tags=["payments"],
    summary="Cancel a payment that is queued, or that waits at its processor",
    openapi_extra=described("Canceled", 404, 409, accepted="It is being canceled at its processor"),
)
async def cancel(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    found = await lifecycle.cancel(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=200 if found["status"] == CANCELED else 202, headers=headers)


@api.post(
    "/payments/{id}/capture",
    tags=["payments"],
    summary="Capture an authorized payment",
    openapi_extra=described("", 404, 409, accepted="It is being captured"),
)
async def capture(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    found = await lifecycle.capture(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=202, headers=headers)


@api.post(
    "/purge-payments",
    tags=["payments"],
    summary="Empty a sandbox tenant",
    openapi_extra=described("Purged", accepted="Some are left: call again"),
)
async def purge(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    if principal.mode != "sandbox":
        raise LiveTenant
    removed, left = await purging.purge(tenant_id=principal.tenant_id)
    if left:
        said = {"message": "Some payments are left: call again.", "payments": removed, "left": left}
        return json_response(said, status=202, headers=headers)
    return json_response({"message": "All payments purged.", "payments": removed}, headers=headers)
