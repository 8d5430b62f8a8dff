"""`POST /webhooks/billing`: webhooks of the platform's own Stripe account. An event is only a hint: the current state is fetched from Stripe.

Events are not stored. 200 is answered after the change is committed; while Stripe or the database is away the event is
refused, and Stripe repeats it for days. Late, doubled and reordered events all lead to the same look-up of the newest state.
"""

from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from payments.billing import platform
from payments.inbound.receive import read_head
from payments.inbound.signature import HEADER, UNKNOWN_SECRET, WronglySigned, read_signature, verify
from payments.models import Subscription
from registry.edge.api import api
from registry.edge.handler import lean
from registry.errors import MethodNotAllowed

LARGEST = 1024 * 1024  # bytes of a body
OURS = ("customer.subscription.", "invoice.", "checkout.session.")
TAKEN = b'{"received":true}'


class _Object(msgspec.Struct):
    id: str = ""
    object: str = ""
    customer: str | None = None


class _Data(msgspec.Struct):
    object: _Object = msgspec.field(default_factory=_Object)


class _Event(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


async def _signed(scope: dict) -> None:
    """Check the signature header before the body is read: unsigned requests must not make us hold a large body."""
    if scope["method"] == "POST":
        read_signature(_signatures(scope))


def _signatures(scope: dict) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == HEADER]


@lean(max_body=LARGEST, admit=_signed)
async def accept(request: HttpRequest) -> HttpResponse:
    """Raises NotSigned, WronglySigned, NoEvent (400), BillingAway, Unavailable (503). Without a configured secret every signature is wrong."""
    if request.method != "POST":
        raise MethodNotAllowed("allowed: POST", headers={"Allow": "POST"})
    body = request.body
    secret = settings.BILLING_WEBHOOK_SECRET.encode()
    verify(read_signature(_signatures(request.scope)), body, [secret or UNKNOWN_SECRET])  # type: ignore[attr-defined]
    if not secret:  # the stand-in is public: it is in this source
        raise WronglySigned
    if read_head(body).type.startswith(OURS):
        await follow(msgspec.json.decode(body, type=_Event).data.object.customer or "")
    return HttpResponse(TAKEN, content_type="application/json")


async def follow(customer: str) -> bool:
    """Fetch the current state of the customer's subscription, if the customer is one of our tenants."""
    known = await Subscription.async_objects.filter(stripe_customer=customer).afirst() if customer else None
    return known is not None and await platform.refresh(known.pk, customer)


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/problem+json": {}}}


api.describe(
    "/webhooks/billing",
    "post",
    {
        "tags": ["inbound"],
        "operationId": "receive_billing_event",
        "summary": "Receive events of the platform's own Stripe account about tenants' subscriptions",
        "security": [],
        "parameters": [
            {
                "name": "Stripe-Signature",
                "in": "header",
                "required": True,
                "description": "t=SECONDS,v1=HEX, by BILLING_WEBHOOK_SECRET",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {
            "200": {"description": "Its effect is stored", "content": {"application/json": {}}},
            "400": _problem("Not signed by the platform's secret within five minutes, or not an event"),
            "413": _problem("Body above 1 MiB"),
            "503": _problem("Stripe or the database is unavailable; Stripe sends it again"),
        },
    },
)
