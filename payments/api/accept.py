"""`POST /payments`: accept one payment. It is answered at once, once it is settled, or once this process has sent it."""

from collections.abc import Awaitable
from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from payments.api.prefer import Preference, applied, awaited, preference_of
from payments.books import queries
from payments.intake import accepting
from payments.intake.checks import CheckedRequest, check, every_fault
from payments.intake.payment import NewPayment, Receipt
from payments.intake.requests import PAYMENT, PaymentRequest
from payments.money import decimal_text
from payments.settle import inline, lifecycle
from payments.states import OPEN
from registry.data import database, db_breaker
from registry.edge.api import KEYLESS, PROBLEMS, api, iso, json_response
from registry.edge.bodies import read
from registry.edge.handler import lean
from registry.errors import Invalid
from registry.tenants import links
from registry.tenants.access import Principal, authorize


class AcceptedRequest(NamedTuple):
    """A durable payment whose sender is to be answered."""

    request: HttpRequest
    prefers: Preference
    payment: NewPayment
    receipt: Receipt
    headers: dict[str, str]


@lean
async def accept(request: HttpRequest) -> HttpResponse:
    """202 once the payment is durable; the same content under the same id gets the same answer. 200 with the settled payment
    where its sender waits for it, or where the tenant's payments are sent inline."""
    principal, headers = await authorize(request, "write", keyless=True)
    checked = await _checked(request, principal)
    prefers = preference_of(request)
    answer = _plain
    if _sends_inline(principal, checked):
        answer = _inline
    elif prefers.wait:
        answer = _waiting
    payment, receipt = await accepting.accept(checked, inline=answer is _inline)
    return await answer(AcceptedRequest(request, prefers, payment, receipt, headers))


async def _checked(request: HttpRequest, principal: Principal) -> CheckedRequest:
    try:
        body = read(request, PAYMENT)
    except Invalid as error:
        raise await every_fault(error, request.body, principal) from None
    return await check(body, principal, request.META.get("HTTP_IDEMPOTENCY_KEY", ""))


def _sends_inline(principal: Principal, checked: CheckedRequest) -> bool:
    return inline.OPERATION in principal.inline and checked.payment is not None and inline.takes(checked.payment)


# -- The three answers -----------------------------------------------------------------------------------------


async def _plain(accepted: AcceptedRequest) -> HttpResponse:
    """Answer at once: 202."""
    return _queued(accepted)


async def _waiting(accepted: AcceptedRequest) -> HttpResponse:
    """Answer once a worker has settled the payment, within the time that its sender waits."""
    payment, wait = accepted.payment, accepted.prefers.wait
    return await _settled(
        accepted, lifecycle.settled(payment.tenant_id, payment.correlation_id, within=wait), within=wait
    )


async def _inline(accepted: AcceptedRequest) -> HttpResponse:
    """Send the payment in this process, and answer once it is settled. A spilled payment is left to the workers."""
    payment, prefers = accepted.payment, accepted.prefers
    if accepted.receipt.spilled:
        return await (_waiting if prefers.wait else _plain)(accepted)
    sending = inline.send(payment.tenant_id, payment.correlation_id)
    if prefers.respond_async:
        return applied(_queued(accepted))
    within = prefers.wait or inline.WAIT
    outcome = inline.outcome(sending, payment, within=within, patient=bool(prefers.wait))
    return await _settled(accepted, outcome, within=within)


async def _settled(accepted: AcceptedRequest, settled: Awaitable[object], *, within: float) -> HttpResponse:
    """200 with the settled payment, or the usual 202 where `settled` takes longer than `within` seconds."""
    payment = accepted.payment

    async def detail() -> dict[str, Any] | None:
        await settled
        return await db_breaker.attempt(lambda: _detail(payment), writes=False)

    found = await awaited(accepted.request, detail())
    if found is None or found["status"] in OPEN:
        return applied(_queued(accepted))
    return applied(_marked(json_response(found, headers=accepted.headers), accepted.receipt), within)


async def _detail(payment: NewPayment) -> dict[str, Any] | None:
    # On a connection of its own: a time-out must not wait until the connection is returned to the pool.
    async with database.own_connection():
        return await queries.detail_of(payment.tenant_id, payment.correlation_id)


def _queued(accepted: AcceptedRequest) -> HttpResponse:
    """202 with the addresses where the payment can be followed."""
    payment, receipt = accepted.payment, accepted.receipt
    name = str(payment.correlation_id)
    address = f"{settings.REGISTRY_URL}/payments/{name}"
    body = (
        f'{{"correlationId":"{name}","status":"queued","amount":"{decimal_text(payment.amount, payment.currency)}",'
        f'"currency":"{payment.currency}","createdAt":"{iso(receipt.created_at)}","statusUrl":"{address}/status",'
        f'"liveUrl":"{address}/live?token={links.token_of(payment.tenant_id, payment.correlation_id)}"}}'
    )
    response = HttpResponse(body.encode(), status=202, content_type="application/json", headers=accepted.headers)
    response["Location"] = f"{address}/status"
    return _marked(response, receipt)


def _marked(response: HttpResponse, receipt: Receipt) -> HttpResponse:
    if receipt.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


api.describe(
    "/payments",
    "post",
    {
        "tags": ["payments"],
        "operationId": "accept_payment",
        "security": KEYLESS,
        "summary": "Accept a payment: 202 once it is durable",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PaymentRequest"}}},
        },
        "responses": {
            "202": {"description": "Durable"},
            "200": {"description": "Settled within `Prefer: wait`"},
            **PROBLEMS,
        },
    },
    PaymentRequest,
)
