"""The API of payments over HTTP (contract section 2). Pages for people live in pages.py."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from payments.api.exports import Blocks, begun, csv_lines, json_lines
from payments.api.openapi import EVENTS, SUMMARY, described
from payments.api.waiting import accepted, preferred_wait, settled_within, with_headers
from payments.books import events, queries
from payments.books import purge as purging
from payments.books import summary as summaries
from payments.errors import LiveTenant, PaymentsBlocked, UnknownPayment
from payments.intake import accepting, intake
from payments.intake.requests import (
    BATCH,
    LIST_FIELDS,
    LIST_LIMIT,
    LONGEST_WAIT,
    PAGE_AT_MOST,
    PAYMENT,
    Asked,
    PaymentRequest,
    asked_of,
    every_fault,
)
from payments.money import CURRENCIES
from payments.settle import inline, lifecycle
from payments.states import CANCELED, Status
from registry import telemetry
from registry.data import live
from registry.edge import nulls
from registry.edge.api import FAULTS_NAMED, api, invalid, json_response, read, refuse_nul
from registry.edge.handler import lean, until_disconnect, with_a_key_or_open
from registry.errors import Invalid, Problem, Unavailable
from registry.tenants import access
from registry.tenants.access import Principal, authorize

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
    principal, headers = await authorize(request, "write", keyless=True)
    try:
        asked = read(request, PAYMENT)
    except Invalid as error:
        raise await every_fault(error, request.body, principal) from None
    wanted = await asked_of(asked, principal, request.META.get("HTTP_IDEMPOTENCY_KEY", ""))
    here = inline.OPERATION in principal.inline and wanted.order is not None and inline.takes(wanted.order)
    [answer] = await accepting.take([wanted], inline=here)
    if isinstance(answer, Problem):
        raise answer
    order, receipt = answer
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


LARGE_ITEM = 1024  # bytes of a batch's item, before which other requests have their turn


@lean(max_body=settings.MAX_BATCH_BODY, admit=with_a_key_or_open)
async def accept_batch(request: HttpRequest) -> HttpResponse:
    """`POST /payments/batch`: up to 1,000 payments, one verdict per item; bad ones never spoil good ones."""
    principal = await access.identify(request, "write", keyless=True)
    try:
        batch = read(request, BATCH, nul=True)
    except Problem:
        await access.limit_rate(principal)  # what cannot be read counts as one
        raise
    headers = await access.limit_rate(principal, cost=len(batch.items))
    verdicts: list[dict[str, Any]] = [{}] * len(batch.items)
    asked: list[tuple[int, Asked]] = []
    for n, raw in enumerate(batch.items):
        try:
            asked.append((n, await asked_of(await item_of(raw, principal), principal)))
        except Invalid as error:
            verdicts[n] = refused(named_id(raw), error)
    answers = await accepting.take([one for _, one in asked])
    for (n, one), answer in zip(asked, answers, strict=True):
        verdicts[n] = verdict(batch.items[n], one, answer)
    if not any(isinstance(answer, tuple) for answer in answers):
        for answer in answers:
            if isinstance(answer, (PaymentsBlocked, Unavailable)):  # one answer for the whole batch
                raise answer
    return json_response({"results": verdicts}, headers=headers)


async def item_of(raw: msgspec.Raw, principal: Principal) -> PaymentRequest:
    body = bytes(raw)
    if len(body) > settings.MAX_BODY:
        raise Invalid(f"an item may have at most {settings.MAX_BODY} bytes")
    if len(body) > LARGE_ITEM:
        await asyncio.sleep(0)
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


def verdict(raw: msgspec.Raw, asked: Asked, answer: accepting.Taken | Problem) -> dict[str, Any]:
    """What became of an item. Raises Unavailable where nothing can take what could be taken."""
    if isinstance(answer, tuple):
        order, receipt = answer
        return {"correlationId": str(order.correlation_id), "status": "replayed" if receipt.replayed else "queued"}
    if not isinstance(answer, Unavailable):
        return refused(named_id(raw), answer)
    if asked.refusal is None:
        raise answer
    unknown = "whether it was accepted before is not known now: send it again"
    return refused(named_id(raw), asked.refusal, f"{asked.refusal.detail}; {unknown}")


def refused(name: str | None, error: Problem, detail: str = "") -> dict[str, Any]:
    status = "conflict" if error.status == 409 else "invalid"
    said = {"detail": detail or error.detail, "errors": error.errors}
    return {"correlationId": name, "status": status, "error": said}


# -- Asking -----------------------------------------------------------------------------------------------


@api.get(
    "/payments/{id}/status",
    tags=["payments"],
    summary="Where a payment stands",
    openapi_extra=described("Its status object", 404),
)
async def status(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    correlation_id = payment_id(id)
    found = await queries.status_of(principal.tenant_id, correlation_id)
    if found is None:
        raise intake.missing(principal.tenant_id, correlation_id)
    return json_response(found, headers=headers)


@api.get(
    "/payments/{id}",
    tags=["payments"],
    summary="A payment with its attempts and its timeline",
    openapi_extra=described("The payment", 404),
)
async def detail(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    correlation_id = payment_id(id)
    found = await queries.detail_of(principal.tenant_id, correlation_id)
    if found is None:
        raise intake.missing(principal.tenant_id, correlation_id)
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
    text = request.GET.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or len(text) > 12 or not least <= int(text) <= most:
        raise Invalid(errors=[{"field": name, "message": f"wants a whole number from {least} to {most}"}])
    return int(text)


@lean
async def browse(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    filters = filters_of(request)
    accept = request.META.get("HTTP_ACCEPT", "")
    if "text/csv" in accept:
        return await export(csv_lines, principal, filters, "text/csv; charset=utf-8", "payments.csv")
    if "application/x-ndjson" in accept:
        return await export(json_lines, principal, filters, "application/x-ndjson", "payments.ndjson")
    limit = whole(request, "limit", LIST_LIMIT, 1, PAGE_AT_MOST)
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
    openapi_extra=described("Requests and amount per processor", 422, query=SUMMARY),
)
async def summary(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
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
    openapi_extra=described("Events, and the sequence to ask after next", 404, 422, query=EVENTS),
)
async def poll(request: HttpRequest, id: str) -> HttpResponse:
    correlation_id = payment_id(id)
    tenant_id = await reader_of(request, correlation_id)
    after = whole(request, "after", 0, 0, 2**31 - 1)
    wait = whole(request, "wait", 20, 0, LONGEST_WAIT)
    later = events.STREAM.after(
        tenant_id, correlation_id, after, within=wait, check=lambda: check_known(tenant_id, correlation_id)
    )
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
    principal, _ = await authorize(request, "read", keyless=True)
    return principal.tenant_id


def live_message(event: live.Event) -> dict[str, Any]:
    return {"type": "payment", "sequence": event.sequence, "payment": msgspec.Raw(event.body)}


async def check_known(tenant_id: int, correlation_id: UUID) -> None:
    """Raises UnknownPayment (404), or Unavailable (503) for a payment that waits in the spill."""
    if await queries.status_of(tenant_id, correlation_id) is None:
        raise intake.missing(tenant_id, correlation_id)


# -- Changing -----------------------------------------------------------------------------------------------


@api.post(
    "/payments/{id}/cancel",
    tags=["payments"],
    summary="Cancel a payment that is queued, or that waits at its processor",
    openapi_extra=described("Canceled", 404, 409, accepted="It is being canceled at its processor"),
)
async def cancel(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    found = await lifecycle.cancel(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=200 if found["status"] == CANCELED else 202, headers=headers)


@api.post(
    "/payments/{id}/capture",
    tags=["payments"],
    summary="Capture an authorized payment",
    openapi_extra=described("", 404, 409, accepted="It is being captured"),
)
async def capture(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    found = await lifecycle.capture(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=202, headers=headers)


@api.post(
    "/purge-payments",
    tags=["payments"],
    summary="Empty a sandbox tenant",
    openapi_extra=described("Purged", accepted="Some are left: call again"),
)
async def purge(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    if principal.mode != "sandbox":
        raise LiveTenant
    removed, left = await purging.purge(tenant_id=principal.tenant_id)
    if left:
        said = {"message": "Some payments are left: call again.", "payments": removed, "left": left}
        return json_response(said, status=202, headers=headers)
    return json_response({"message": "All payments purged.", "payments": removed}, headers=headers)
