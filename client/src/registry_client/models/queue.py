"""Messages of the queue: what is pushed, popped and acknowledged (docs/queue.md)."""

from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from registry_client.models.common import Time

type AckStatus = Literal["completed", "failed", "retry", "dlq"]


class NewMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A message to push. Its transaction id is made here, so that it can be sent again without being stored twice."""

    queue: str
    payload: Any
    partition: str = "Default"
    transaction_id: str = msgspec.field(default_factory=lambda: str(uuid4()))
    trace_id: UUID | None = None


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one pushed message: `queued` or `buffered` (durable), `duplicate` (stored before) or `failed`."""

    status: str
    transaction_id: str = ""
    message_id: str | None = None
    partition_id: str | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        return self.status != "failed"


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A popped message, leased to the consumer that popped it."""

    id: str
    transaction_id: str
    trace_id: str | None = None
    data: Any
    producer_sub: str | None = None
    created_at: Time
    partition_id: str
    partition: str
    lease_id: str
    consumer_group: str


class Popped(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a pop that found something."""

    messages: list[Message]


class Ack(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a consumer reports about a message, under the message's lease."""

    transaction_id: str
    partition_id: str
    lease_id: str
    consumer_group: str
    status: AckStatus = "completed"
    error: str | None = None


class Acked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of one ack. Without success nothing changed: the lease has ended, and others may get the message."""

    transaction_id: str
    success: bool
    error: str | None = None
    lease_released: bool = False
    dlq: bool = False


class ExtendedLease(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of a lease extension."""

    success: bool
    error: str | None = None
    expires_at: Time | None = None


class TransactionResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of a transaction; the entries of `results` have the fields of the queue's contract."""

    transaction_id: str
    success: bool
    results: list[dict[str, Any]] = []
    error: str | None = None


def ack_of(message: Message, status: AckStatus = "completed", error: str | None = None) -> Ack:
    """The ack of a popped message, for an ack or a transaction."""
    return Ack(
        transaction_id=message.transaction_id,
        partition_id=message.partition_id,
        lease_id=message.lease_id,
        consumer_group=message.consumer_group,
        status=status,
        error=error,
    )
