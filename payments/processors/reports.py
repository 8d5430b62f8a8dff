"""What a processor tells, when asked, of money that goes back: refunds and disputes as they stand now, whoever made them."""

from datetime import datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

import msgspec

from payments.processors.base import Account


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The payment that it is about, as far as the processor carries our names for it."""

    tenant_id: int | None
    correlation_id: UUID | None
    reference: str = ""  # what the processor calls the booking


class RefundNews(msgspec.Struct, frozen=True, kw_only=True):
    """A refund as it stands."""

    reference: str
    subject: Subject
    refund_id: UUID | None  # ours; None: it was made there
    amount: int  # minor units
    pending: bool  # it is on its way: neither returned nor failed
    failed: bool
    reason: str = ""
    code: str = ""  # why it failed


class DisputeNews(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute as it stands. `movements` counts how often money was moved for it, and only grows."""

    reference: str
    subject: Subject
    amount: int  # minor units
    currency: str
    reason: str
    status: str  # in the processor's words
    withdrawn: int  # minor units held back now
    movements: int
    opened_at: datetime
    due_by: datetime | None = None


@runtime_checkable
class TellsOfReturns(Protocol):
    """What a kind offers besides where refunds and disputes can come from its side. Raises Unanswered, NotThere."""

    async def refund_news(self, reference: str, account: Account) -> RefundNews:
        """The refund of that name, now."""

    async def refunds_of_charge(self, reference: str, account: Account) -> list[RefundNews]:
        """All refunds of that charge, now."""

    async def dispute_news(self, reference: str, account: Account) -> DisputeNews:
        """The dispute of that name, now."""
