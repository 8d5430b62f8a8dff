"""One payment of the test double: its state, its events, its refunds."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from registry_client.testing.streams import FakeStream
from registry_client.testing.wire import Json, Refused, invalid, iso, money, now

FINAL = ("succeeded", "failed", "canceled")
FIELDS = {
    "correlationId": None,
    "amount": None,
    "currency": None,
    "description": "",
    "metadata": None,
    "processor": None,
    "scheduledFor": None,
    "priority": 0,
    "paymentMethod": None,
    "customer": None,
    "offSession": False,
    "returnUrl": None,
}
NOT_CONTENT = ("correlationId", "returnUrl")  # of these two, a repeated request may have others


class FakePayment:
    """A payment as the service keeps it."""

    def __init__(self, correlation_id: str, content: Json, currency: str, stream: FakeStream) -> None:
        self.id, self.content, self._stream = correlation_id, content, stream
        self.currency = content["currency"] or currency
        self.amount = money(content["amount"], self.currency)
        self.created_at = now()
        self.processor: str | None = None
        self.attempts: list[Json] = []
        self.timeline: list[Json] = []
        self.refunds: list[Json] = []
        self.requested_at: datetime | None = None
        self.sequence = 0
        self.move("queued")

    # -- Changes ---------------------------------------------------------------------------------------------------

    def move(self, status: str, *, kind: str = "") -> None:
        """Change the status, or note an event of another `kind`, and tell everybody who watches."""
        self.status, self.updated_at = status, now()
        self.sequence += 1
        entry = {"sequence": self.sequence, "at": iso(self.updated_at), "status": status, "detail": ""}
        self.timeline.append(entry | ({"kind": kind} if kind else {}))
        self._stream.add(self.id, self.sequence, self.status_body())

    def send(self, processor: str) -> None:
        """Send it to a processor, whose answer is not there yet."""
        self.requested_at, self.processor = now(), processor
        attempt = {"number": len(self.attempts) + 1, "processor": processor, "reason": "the test double's"}
        self.attempts.append(attempt | {"requestedAt": iso(self.requested_at), "outcome": None})
        self.move("processing")

    def settle(self, status: str) -> None:
        outcome = {"succeeded": "booked", "failed": "declined"}.get(status)
        if self.attempts:
            self.attempts[-1]["outcome"] = outcome
        self.move(status)

    def refund(self, body: Json, key: str) -> Json:
        """A new refund, or the one of the same key. Raises Refused (409, 422)."""
        content = (body.get("amount"), body.get("reason", ""))
        for one in self.refunds:
            if key and one["key"] == key:
                if one["content"] != content:
                    raise Refused(409, "different-content", "A refund with this key exists with other content.")
                return one
        if self.status != "succeeded":
            raise Refused(409, "not-refundable", f"it is {self.status}")
        left = self.amount - sum((one["amount"] for one in self.refunds), Decimal(0))
        amount = money(body["amount"], self.currency) if "amount" in body else left
        if amount > left or not left:
            raise Refused(409, "refund-too-large", f"{left} of the payment is left")
        refund = {
            "id": str(uuid4()),
            "key": key,
            "content": content,
            "amount": amount,
            "reason": body.get("reason", ""),
        }
        self.refunds.append(refund | {"status": "owed", "createdAt": now(), "updatedAt": now()})
        self.move(self.status, kind="refund.created")
        return self.refunds[-1]

    def returns(self, refund: Json) -> None:
        refund.update(status="returned", updatedAt=now())
        self.move(self.status, kind="refund.returned")

    # -- What the API shows ----------------------------------------------------------------------------------------

    def status_body(self) -> Json:
        return {
            "correlationId": self.id,
            "status": self.status,
            "amount": str(self.amount),
            "currency": self.currency,
            "processor": self.processor,
            "attempts": len(self.attempts),
            "updatedAt": iso(self.updated_at),
            "sequence": self.sequence,
        }

    def listed(self) -> Json:
        return self.status_body() | {"createdAt": iso(self.created_at), "description": self.content["description"]}

    def details(self) -> Json:
        returned = sum((one["amount"] for one in self.refunds if one["status"] == "returned"), Decimal(0))
        shown = {name: self.content[name] for name in ("paymentMethod", "customer", "scheduledFor", "priority")}
        return {
            **self.listed(),
            **shown,
            "offSession": self.content["offSession"] or None,
            "metadata": self.content["metadata"] or {},
            "fee": None,
            "refunded": str(returned.quantize(self.amount)),
            "code": None,
            "attempts": self.attempts,
            "timeline": self.timeline,
        }

    def shown_refund(self, refund: Json, url: str) -> Json:
        shown: dict[str, Any] = {name: refund[name] for name in ("id", "status", "reason")}
        times = {name: iso(refund[name]) for name in ("createdAt", "updatedAt")}
        return {
            **shown,
            **times,
            "correlationId": self.id,
            "amount": str(refund["amount"]),
            "currency": self.currency,
            "reference": None,
            "code": None,
            "external": False,
            "statusUrl": f"{url}/payments/{self.id}/refunds/{refund['id']}",
        }


def content_of(body: Json) -> Json:
    """The content of a request, with defaults. Raises Refused (422)."""
    for name in body:
        if name not in FIELDS:
            raise invalid(name, "unknown field")
    if "amount" not in body:
        raise invalid("amount", "is missing")
    if len(body.get("description", "")) > 500:
        raise invalid("description", "has more than 500 characters")
    return {**FIELDS, **body}


def is_same(one: Json, other: Json) -> bool:
    """Whether two requests have the same content: a repeated request is a replay."""
    return all(_comparable(name, one) == _comparable(name, other) for name in FIELDS if name not in NOT_CONTENT)


def _comparable(name: str, content: Json) -> Any:
    return Decimal(str(content[name])) if name == "amount" else content[name]
