"""Payments: what is sent, and what the service says about them (docs/api.md)."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec

from registry_client.models.common import Amount, Scalar, Time, aware, exact


class PaymentStatus(StrEnum):
    """The state of a payment."""

    QUEUED = "queued"
    PROCESSING = "processing"
    UNCERTAIN = "uncertain"
    REQUIRES_ACTION = "requires_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Whether the outcome is known."""
        return self in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.CANCELED)

    @property
    def is_open(self) -> bool:
        """Whether the service has to act next: neither the outcome is known, nor does the payer or the sender have to act."""
        return self in (PaymentStatus.QUEUED, PaymentStatus.PROCESSING, PaymentStatus.UNCERTAIN)


class NewPayment(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A payment to submit. Its id is made here, so that the same object can be sent again without a second booking."""

    amount: Decimal
    correlation_id: UUID = msgspec.field(default_factory=uuid4)
    currency: str | None = None
    description: str = ""
    metadata: dict[str, Scalar] | None = None
    processor: str | None = None
    scheduled_for: datetime | None = None
    priority: int = 0
    payment_method: str | None = None
    customer: str | None = None
    off_session: bool = False
    return_url: str | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "amount", exact(self.amount))
        aware(self.scheduled_for)


def new_payment(amount: Amount, correlation_id: UUID | None, fields: Mapping[str, Any]) -> NewPayment:
    return NewPayment(amount=exact(amount), correlation_id=correlation_id or uuid4(), **fields)


class AcceptedPayment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A payment that is durable. `replayed`: the service had accepted it before, maybe in a first try of the same call."""

    correlation_id: UUID
    status: PaymentStatus
    amount: Decimal
    currency: str
    created_at: Time
    status_url: str
    live_url: str
    replayed: bool = False


class Payment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a payment. Of two objects, the one with the higher `sequence` is newer."""

    correlation_id: UUID
    status: PaymentStatus
    amount: Decimal
    currency: str
    processor: str | None
    attempts: int
    updated_at: Time
    sequence: int


class ListedPayment(Payment, frozen=True, kw_only=True, rename="camel"):
    """A payment in a list."""

    created_at: Time
    description: str = ""


class PaymentAttempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One call of a processor; `outcome` is None while it is unknown."""

    number: int
    processor: str | None
    reason: str
    requested_at: Time
    outcome: str | None = None
    code: str | None = None
    latency_ms: int | None = None


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event of a payment or job."""

    sequence: int
    at: Time
    status: str
    detail: str = ""
    kind: str | None = None


class PaymentDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A payment with its content, attempts and timeline."""

    correlation_id: UUID
    status: PaymentStatus
    amount: Decimal
    currency: str
    processor: str | None
    attempts: list[PaymentAttempt]
    updated_at: Time
    sequence: int
    created_at: Time
    description: str = ""
    metadata: dict[str, Scalar] = {}
    fee: Decimal | None = None
    refunded: Decimal = Decimal(0)
    code: str | None = None
    scheduled_for: Time | None = None
    priority: int = 0
    payment_method: str | None = None
    customer: str | None = None
    off_session: bool | None = None
    timeline: list[TimelineEntry] = []


class BatchResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The result of one item of a batch: `queued`, `replayed`, `conflict` or `invalid`, the last two with an `error`."""

    correlation_id: str | None = None
    status: str
    error: dict[str, Any] | None = None

    @property
    def accepted(self) -> bool:
        return self.status in ("queued", "replayed")


class ProcessorSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one processor booked."""

    total_requests: int
    total_amount: Decimal


class PaymentChange(msgspec.Struct, frozen=True, kw_only=True):
    """A live event: the payment as it was then. `sequence` is the number by which the watched stream resumes."""

    kind: ClassVar[str] = "payment"
    sequence: int
    payment: Payment


class PaymentChanges(msgspec.Struct, frozen=True):
    """The answer of a long poll."""

    events: list[PaymentChange]
    next: int


# -- Refunds ---------------------------------------------------------------------------------------------------


class RefundStatus(StrEnum):
    """The state of a refund."""

    OWED = "owed"
    PROCESSING = "processing"
    UNCERTAIN = "uncertain"
    RETURNED = "returned"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (RefundStatus.RETURNED, RefundStatus.FAILED)


class NewRefund(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refund to request; without an amount, all that is left."""

    amount: Decimal | None = None
    reason: str = ""


class Refund(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A refund of a payment, in part or in full."""

    id: UUID
    correlation_id: UUID
    status: RefundStatus
    amount: Decimal
    currency: str
    reason: str = ""
    reference: str | None = None
    code: str | None = None
    external: bool = False
    created_at: Time
    updated_at: Time


class RefundList(msgspec.Struct, frozen=True):
    """All refunds of a payment, oldest first."""

    items: list[Refund]
