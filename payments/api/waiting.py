"""The answer to a payment that was accepted: at once, or held until it is settled where its sender waits (`Prefer: wait`)."""

from collections.abc import Awaitable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from payments.books import queries
from payments.intake import intake
from payments.intake.requests import LONGEST_WAIT
from payments.money import decimal_text
from payments.states import OPEN
from registry.data import database, faults, reach
from registry.edge.api import iso, json_response
from registry.edge.handler import until_disconnect
from registry.tenants import access


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
    """The seconds of `Prefer: wait=N` (RFC 7240), at most LONGEST_WAIT; 0 without."""
    for preference in prefer.split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isascii() and value.strip().isdigit():
            return min(float(value), float(LONGEST_WAIT))
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
        detail = await reach.attempt(lambda: detail_alone(order.tenant_id, order.correlation_id), writes=False)
    except Exception as error:
        if not faults.waits(error):
            raise
        detail = None  # it is durable all the same: a 503 would make the sender send another one
    if detail is None or detail["status"] in OPEN:
        return with_headers(accepted(order, receipt, headers), {"Preference-Applied": "respond-async"})
    response = json_response(detail, headers=headers)
    if receipt.replayed:
        response["Idempotent-Replayed"] = "true"
    return with_headers(response, {"Preference-Applied": f"wait={wait:.0f}"})


async def detail_alone(tenant_id: int, correlation_id: UUID) -> dict[str, Any] | None:
    """On a connection of its own: who gives up a database that is away does not wait for it to be given back."""
    async with database.own_connection():
        return await queries.detail_of(tenant_id, correlation_id)


def with_headers(response: HttpResponse, headers: dict[str, str]) -> HttpResponse:
    for name, value in headers.items():
        response[name] = value
    return response
