"""From a tenant's stream of events to deliveries that are owed: who wants what, as which body. Sending is delivery.py's.

Nothing is added to the paths that write events: every endpoint knows how far it has looked, and this loop looks on. The
events' insertion as deliveries and the endpoint's new place are one transaction, so that an event is owed exactly once.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec

from payments.books.events import status_body
from payments.money import decimal_text
from queueing.outbound.event_types import wants
from registry.data import database
from registry.data.arrays import Bigints, Texts, Uuids
from registry.edge.api import ENCODER, iso

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

LOOK_EVERY = 0.1  # seconds between looks while there is nothing new
GROUPS = 50  # groups of endpoints per round
ROWS = 2000  # deliveries per transaction: larger ones would let the others wait
SLICE = 500  # events per transaction at most


class Event(NamedTuple):
    """A row of the stream, in the order of the statement's columns."""

    position: int
    kind: str
    correlation_id: UUID
    status: str
    amount: int
    currency: str
    processor: str | None
    attempts: int
    at: datetime
    sequence: int
    detail: str
    refund: UUID | None
    refund_amount: int | None
    refund_reason: str | None
    dispute: str | None
    dispute_amount: int | None
    dispute_reason: str | None

    @property
    def type(self) -> str:
        return self.kind or f"payment.{self.status}"


class Endpoint(NamedTuple):
    """One that was locked."""

    id: int
    events: list[str]
    ordered: bool


async def spread() -> None:
    """One round: a slice of events for each group of endpoints that has not seen them."""
    behind = await database.fetch(SQL["behind"], {"limit": GROUPS})
    for tenant, after, ids in behind:
        await database.guarded(lambda t=tenant, a=after, i=ids: _spread(t, a, i))  # type: ignore[misc]
    if not behind:
        await asyncio.sleep(LOOK_EVERY)


async def _spread(tenant: int, after: int, ids: list[int]) -> None:
    async with database.transaction() as conn:
        locked = await database.rows(conn, SQL["lock"], {"tenant": tenant, "ids": ids, "after": after})
        if not locked:  # another worker is at it
            return
        endpoints = [Endpoint(id, msgspec.json.decode(events), ordered) for id, events, ordered, _ in locked]
        upto = min(locked[0][3], after + max(min(ROWS // len(endpoints), SLICE), 1))
        found = await database.rows(conn, SQL["events"], {"tenant": tenant, "after": after, "upto": upto})
        owed = columns(tenant, [Event._make(row) for row in found], endpoints)
        if owed is not None:
            await database.rows(conn, SQL["owe"], owed)
            await database.rows(conn, SQL["wake"])
        keys = {"tenant": tenant, "ids": [endpoint.id for endpoint in endpoints], "upto": upto}
        await database.rows(conn, SQL["move"], keys)


def columns(tenant: int, events: Sequence[Event], endpoints: Sequence[Endpoint]) -> dict[str, object] | None:
    """The parameters of `owe`: each event that anybody wants once, and who wants it. None where nobody wants anything."""
    told, pairs = [], []
    for event in events:
        wanting = [endpoint for endpoint in endpoints if wants(endpoint.events, event.type)]
        if wanting:
            told.append(event)
            pairs += [(endpoint, len(told)) for endpoint in wanting]
    if not told:
        return None
    return {
        "tenant": tenant,
        "message": Texts([new_message_id() for _ in told]),
        "position": Bigints([event.position for event in told]),
        "subject": Uuids([event.correlation_id.bytes for event in told]),
        "type": Texts([event.type for event in told]),
        "body": Texts([body_of(event) for event in told]),
        "endpoint": Bigints([endpoint.id for endpoint, _ in pairs]),
        "nth": Bigints([n for _, n in pairs]),
        "ordered": [endpoint.ordered for endpoint, _ in pairs],
    }


def new_message_id() -> str:
    """`webhook-id`: one for an event, wherever and however often it is sent."""
    return f"msg_{uuid4().hex}"


def body_of(event: Event) -> str:
    data: dict[str, Any] = status_body(
        correlation_id=event.correlation_id,
        status=event.status,
        amount=event.amount,
        currency=event.currency,
        processor=event.processor,
        attempts=event.attempts,
        updated_at=event.at,
        sequence=event.sequence,
    )
    if event.refund is not None:
        data["refund"] = _part(event.refund, event.refund_amount, event.currency, event.refund_reason)
    if event.dispute is not None:
        data["dispute"] = _part(event.dispute, event.dispute_amount, event.currency, event.dispute_reason)
    return message_body(event.type, event.at, data)


def _part(id: UUID | str, amount: int | None, currency: str, reason: str | None) -> dict[str, Any]:
    return {"id": str(id), "amount": decimal_text(amount or 0, currency), "currency": currency, "reason": reason or ""}


def message_body(type: str, at: datetime, data: dict[str, Any]) -> str:
    """A message as it is signed and sent: the same bytes at every try."""
    return ENCODER.encode({"type": type, "timestamp": iso(at), "data": data}).decode()
