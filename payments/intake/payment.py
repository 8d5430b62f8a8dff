"""A payment before it is stored: its content, the fingerprint of that content, and the receipt once it is durable."""

import hashlib
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

type Key = tuple[int, UUID]  # tenant, correlation id


class NewPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A requested payment, checked, with its amount in minor units."""

    tenant_id: int
    correlation_id: UUID
    amount: int
    currency: str
    description: str = ""
    metadata: dict[str, Any] | None = None
    processor: str = ""
    scheduled_for: datetime | None = None
    priority: int = 0
    method: dict[str, Any] | None = None  # payment method: references only, never card data
    return_url: str = ""  # no part of the content: the same payment with another one is a replay


class Receipt(msgspec.Struct, frozen=True):
    """Confirms that a payment is durable."""

    created_at: datetime
    replayed: bool
    spilled: bool = False  # not stored in PostgreSQL yet


class Submission(msgspec.Struct, frozen=True):
    """A payment that is being accepted. Also the format of records in the spill."""

    payment: NewPayment = msgspec.field(name="order")
    fingerprint: bytes
    at: datetime  # of the request; stored as created_at, also after a time in the spill
    inline: bool = False  # its web process sends it, so no worker is woken
    request_id: str = ""  # for the log

    @property
    def key(self) -> Key:
        return self.payment.tenant_id, self.payment.correlation_id


class FirstPayment(NamedTuple):
    """The payment that exists under an id."""

    fingerprint: bytes
    at: datetime
    currency: str
    spilled: bool = False  # not stored in PostgreSQL yet


_content = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(payment: NewPayment) -> bytes:
    """A hash of the payment's content, 16 bytes: the same under the same id is a replay. It is stored, so it must never change."""
    content: tuple[Any, ...] = (
        payment.amount,
        payment.currency,
        payment.description,
        payment.metadata or None,
        payment.processor,
        payment.scheduled_for,
        payment.priority,
    )
    if payment.method:  # fingerprints of payments without a method are older than this field
        content += (payment.method,)
    return hashlib.blake2b(_content.encode(content), digest_size=16).digest()
