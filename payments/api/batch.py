"""`POST /payments/batch`: accept up to 1,000 payments. Each item has its own result, so a bad one spoils no other."""

import asyncio
import json
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from payments.errors import PaymentsBlocked
from payments.intake.accepting import Acceptance, accept_many
from payments.intake.checks import CheckedRequest, check, every_fault
from payments.intake.requests import BATCH, BATCH_ITEMS, PAYMENT, PaymentRequest
from registry.edge import nulls
from registry.edge.api import KEYLESS, PROBLEMS, api, json_response
from registry.edge.bodies import invalid, read, refuse_nul
from registry.edge.handler import lean
from registry.errors import Invalid, Problem, Unavailable
from registry.tenants import access
from registry.tenants.access import Principal
from registry.tenants.limits import count_requests

LARGE_ITEM = 1024  # bytes; other requests run before an item that is larger


@lean(max_body=settings.MAX_BATCH_BODY, admit=access.require_key_or_open)
async def accept_batch(request: HttpRequest) -> HttpResponse:
    """200 with one result per item, in order."""
    principal = await access.identify(request, "write", keyless=True)
    try:
        batch = read(request, BATCH, nul=True)
    except Problem:
        await count_requests(principal.rate_limit, principal.key)  # a batch that cannot be read counts as one request
        raise
    headers = await count_requests(principal.rate_limit, principal.key, cost=len(batch.items))
    results: list[dict[str, Any]] = [{}] * len(batch.items)
    checked: list[tuple[int, CheckedRequest]] = []
    for n, raw in enumerate(batch.items):
        try:
            checked.append((n, await check(await _decoded(raw, principal), principal)))
        except Invalid as error:
            results[n] = _refused(_named_id(raw), error)
    answers = await accept_many([one for _, one in checked])
    for (n, one), answer in zip(checked, answers, strict=True):
        results[n] = _result(batch.items[n], one, answer)
    _raise_common(answers)
    return json_response({"results": results}, headers=headers)


def _raise_common(answers: list[Acceptance]) -> None:
    """Raises PaymentsBlocked or Unavailable for a batch of which nothing was accepted because of it."""
    if not any(isinstance(answer, tuple) for answer in answers):
        for answer in answers:
            if isinstance(answer, (PaymentsBlocked, Unavailable)):
                raise answer


async def _decoded(raw: msgspec.Raw, principal: Principal) -> PaymentRequest:
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


def _named_id(raw: msgspec.Raw) -> str | None:
    data = json.loads(bytes(raw))
    name = data.get("correlationId") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def _result(raw: msgspec.Raw, checked: CheckedRequest, answer: Acceptance) -> dict[str, Any]:
    """The result of an item. Raises Unavailable where nothing can take an item that is acceptable."""
    if isinstance(answer, tuple):
        payment, receipt = answer
        return {"correlationId": str(payment.correlation_id), "status": "replayed" if receipt.replayed else "queued"}
    if not isinstance(answer, Unavailable):
        return _refused(_named_id(raw), answer)
    if checked.refusal is None:
        raise answer
    unknown = "whether it was accepted before is not known now: send it again"
    return _refused(_named_id(raw), checked.refusal, f"{checked.refusal.detail}; {unknown}")


def _refused(name: str | None, error: Problem, detail: str = "") -> dict[str, Any]:
    status = "conflict" if error.status == 409 else "invalid"
    said = {"detail": detail or error.detail, "errors": error.errors}
    return {"correlationId": name, "status": status, "error": said}


_ITEMS = {"type": "array", "maxItems": BATCH_ITEMS, "items": {"$ref": "#/components/schemas/PaymentRequest"}}
_BODY = {"type": "object", "required": ["items"], "properties": {"items": _ITEMS}}

api.describe(
    "/payments/batch",
    "post",
    {
        "tags": ["payments"],
        "operationId": "accept_batch",
        "security": KEYLESS,
        "summary": "Accept up to 1,000 payments, one result per item",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        "responses": {"200": {"description": "One result per item, in order"}, **PROBLEMS},
    },
)
