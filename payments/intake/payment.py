"""A payment before it is stored: its content, the fingerprint of that content, and the receipt once it is durable."""

import hashlib
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

type Key = tuple[int, UUID]  # tenant, correlation id


class NewPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as its sender wants it, checked and in minor units."""

    tenant_id: int
    correlation_id: UUID
    amount: int
    currency: str
    description: str = ""
    metadata: dict[str, Any] | None = None
    processor: str = ""
    scheduled_for: datetime | None = None
    priority: int = 0
    method: dict[str, Any] | None = None  # how it is paid: references only, never card data


class Receipt(msgspec.Struct, frozen=True):
    """Confirms that a payment is durable."""

    created_at: datetime
    replayed: bool
    spilled: bool = False  # it is not in PostgreSQL yet


class Submission(msgspec.Struct, frozen=True):
    """A payment on its way into PostgreSQL, or into the spill: this is the format of its records."""

    payment: NewPayment = msgspec.field(name="order")
    fingerprint: bytes
    at: datetime  # when it was requested; it is stored with this time, however long it waits in the spill
    inline: bool = False  # its web process will send it: no worker is woken for it

    @property
    def key(self) -> Key:
        return self.payment.tenant_id, self.payment.correlation_id


class FirstPayment(NamedTuple):
    """The payment that was accepted first under an id."""

    fingerprint: bytes
    at: datetime
    currency: str
    spilled: bool = False  # it is not in PostgreSQL yet


_content = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(payment: NewPayment) -> bytes:
    """A hash of the payment's content, 16 bytes. Stored, so it never changes: two payments with the same one are replays."""
    content: tuple[Any, ...] = (
        payment.amount,
        payment.currency,
        payment.description,
        payment.metadata or None,
        payment.processor,
        payment.scheduled_for,
        payment.priority,
    )
    if payment.method:  # the fingerprint of a payment without a method is older than this field
        content += (payment.method,)
    return hashlib.blake2b(_content.encode(content), digest_size=16).digest()
