"""What a payer sees of a payment: whoever holds its link, and nothing that concerns only the seller (contract section 3)."""

from typing import Any
from uuid import UUID

import msgspec

from payments.books import queries
from payments.money import decimal_text
from registry.data import live
from registry.edge.api import ENCODER

# No processor, attempts, fee, routing or dispute: a link is passed on, and its page may be anybody's.
FIELDS = (
    "correlationId",
    "status",
    "amount",
    "currency",
    "description",
    "updatedAt",
    "sequence",
    "refunded",
    "returnUrl",
)


def payers_view(payment: dict[str, Any]) -> dict[str, Any]:
    """The object for holders of the payment's link, from that of `GET /payments/{id}`."""
    return {name: payment[name] for name in FIELDS}


async def view_of(tenant_id: int, correlation_id: UUID) -> dict[str, Any] | None:
    """The object for holders of the payment's link; None if there is no such payment."""
    found = await queries.item_of(tenant_id, correlation_id)
    return found and payers_view(found)


def as_payer(event: live.Event, view: dict[str, Any]) -> live.Event:
    """The event for holders of the link. Description and return address come from an earlier `view`: they do not change."""
    status = msgspec.json.decode(event.body)
    refunded = event.beside.get("refunded") or decimal_text(0, status["currency"])
    body = payers_view({**view, **status, "refunded": refunded})
    return msgspec.structs.replace(event, body=ENCODER.encode(body), beside={})
