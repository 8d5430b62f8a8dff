"""`POST /webhooks/stripe/{account}`: store an event of Stripe before it is answered. A hot route, so a plain view."""

from django.http import HttpRequest, HttpResponse

from payments.inbound.receive import ReceivedEvent, admitted, kept, read_head, receive, traced_event
from payments.inbound.signature import HEADER, read_signature
from registry.edge.api import api
from registry.edge.handler import lean
from registry.errors import MethodNotAllowed
from registry.telemetry import traces
from registry.telemetry.context import REQUEST
from registry.tenants.sampling import enter

# Bytes of a body. Events have some kilobytes; the largest that Stripe describes have a few hundred. Not a setting, because the
# processor decides the size of its events, not the operator of this service.
LARGEST = 1024 * 1024
RECEIVED = b'{"received":true}'


async def _signed(scope: dict) -> None:
    """Refuse a request without a signature before its body is read. Only the body can prove a signature: a request with an
    invented one costs LARGEST bytes for the time of reading them, and no more."""
    if scope["method"] == "POST":
        read_signature(_signatures(scope))


def _signatures(scope: dict) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == HEADER]


@lean(max_body=LARGEST, admit=_signed)
async def accept(request: HttpRequest, account: str) -> HttpResponse:
    """200 once the event is durable, also if it was received before.

    Raises NotSigned, WronglySigned, NoEvent (400), Unavailable (503).
    """
    if request.method != "POST":
        raise MethodNotAllowed("allowed: POST", headers={"Allow": "POST"})
    headers = request.scope["headers"]  # type: ignore[attr-defined]
    signature, body = read_signature(_signatures(request.scope)), request.body  # type: ignore[attr-defined]
    to = await admitted(account, signature, body)
    event = ReceivedEvent(
        to.tenant_id, to.processor_id, read_head(body), body, kept(headers), "delivery", REQUEST.get()
    )
    new = await receive(event)
    if traces.on:
        enter([(traced_event(to.tenant_id, event.head.id), new)])
    return HttpResponse(RECEIVED, content_type="application/json")


def _problem(text: str) -> dict[str, object]:
    return {"description": text, "content": {"application/problem+json": {}}}


api.describe(
    "/webhooks/stripe/{account}",
    "post",
    {
        "tags": ["inbound"],
        "operationId": "receive_stripe_event",
        "summary": "Receive an event of Stripe: 200 once it is durable, also when it is delivered again",
        "security": [],
        "parameters": [
            {
                "name": "account",
                "in": "path",
                "required": True,
                "description": "The tenant's slug, a dot, and the name of its processor of kind stripe",
                "schema": {"type": "string"},
            },
            {
                "name": "Stripe-Signature",
                "in": "header",
                "required": True,
                "description": "t=SECONDS,v1=HEX: HMAC-SHA256 of the time, a dot and the body, by one of the account's secrets",
                "schema": {"type": "string"},
            },
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {
            "200": {"description": "Durable", "content": {"application/json": {}}},
            "400": _problem("Not signed by a secret of such an account within five minutes, or not an event"),
            "404": _problem("Not an address of a webhook"),
            "413": _problem("Body above 1 MiB"),
            "503": _problem("The database is unavailable; Retry-After says when to try again"),
        },
    },
)
