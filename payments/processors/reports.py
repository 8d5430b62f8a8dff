"""Refunds and disputes as a processor reports them on request: their current state, also of those made at the processor."""

from datetime import datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

import msgspec

from payments.processors.base import Account


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The payment a report is about, as far as the processor stores our ids."""

    tenant_id: int | None
    correlation_id: UUID | None
    reference: str = ""  # the processor's id of the booking


class RefundReport(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a refund."""

    reference: str
    subject: Subject
    refund_id: UUID | None  # our id; None: made at the processor
    amount: int  # minor units
    pending: bool  # neither returned nor failed yet
    failed: bool
    reason: str = ""
    code: str = ""  # why it failed


class DisputeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a dispute. `movements` counts how often money was moved for it, and only grows."""

    reference: str
    subject: Subject
    amount: int  # minor units
    currency: str
    reason: str
    status: str  # the processor's status
    withdrawn: int  # minor units withheld now
    movements: int
    opened_at: datetime
    due_by: datetime | None = None


@runtime_checkable
class ReportsRefunds(Protocol):
    """Kinds at which refunds and disputes can originate. Methods raise Unanswered, NotThere."""

    async def refund_report(self, reference: str, account: Account) -> RefundReport:
        """Fetch a refund by the processor's id."""

    async def refunds_of_charge(self, reference: str, account: Account) -> list[RefundReport]:
        """Fetch all refunds of a charge."""

    async def dispute_report(self, reference: str, account: Account) -> DisputeReport:
        """Fetch a dispute by the processor's id."""
