"""Payments as a source of webhook events: their types, their rows, and the `data` of their messages."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from payments.books.events import STREAM, status_body
from payments.money import decimal_text
from payments.states import Status
from queueing.outbound import sources
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "webhooks.sql")

KINDS = (
    "refund.created",
    "refund.returned",
    "refund.failed",
    "dispute.opened",
    "dispute.updated",
    "dispute.closed",
)
TYPES = (*(f"payment.{status.value}" for status in Status), *KINDS)
EXAMPLES = ("payment.queued", "payment.processing", "payment.succeeded")


class PaymentChange(NamedTuple):
    """A row of the statement `events`: a change of a payment, with the refund or dispute that it is about."""

    position: int
    kind: str  # empty: the payment's status changed
    subject: UUID  # the payment's correlation id
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

    def data(self) -> dict[str, Any]:
        """The payment's status object as it was then, with the refund or dispute beside it."""
        data: dict[str, Any] = status_body(
            correlation_id=self.subject,
            status=self.status,
            amount=self.amount,
            currency=self.currency,
            processor=self.processor,
            attempts=self.attempts,
            updated_at=self.at,
            sequence=self.sequence,
        )
        if self.refund is not None:
            data["refund"] = _part(self.refund, self.refund_amount, self.currency, self.refund_reason)
        if self.dispute is not None:
            data["dispute"] = _part(self.dispute, self.dispute_amount, self.currency, self.dispute_reason)
        return data


def _part(id: UUID | str, amount: int | None, currency: str, reason: str | None) -> dict[str, Any]:
    return {"id": str(id), "amount": decimal_text(amount or 0, currency), "currency": currency, "reason": reason or ""}


def example(type: str, subject: UUID, sequence: int, at: datetime) -> dict[str, Any]:
    """The `data` of an invented event, for the test kit of receivers."""
    return status_body(
        correlation_id=subject,
        status=type.partition(".")[2],
        amount=1990,
        currency="BRL",
        processor="default",
        attempts=1,
        updated_at=at,
        sequence=sequence,
    )


sources.register(
    sources.EventSource(
        stream=STREAM,
        noun="payment",
        subject_field="correlationId",
        page="payment_live",
        types=TYPES,
        unread=SQL["unread"],
        events=SQL["events"],
        event=PaymentChange._make,
        examples=EXAMPLES,
        example=example,
    )
)
