"""What a payment's page is explained by: one read of its facts. What follows from them is in explain.py."""

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from payments.models import Difference
from payments.states import Reversal, ShownState, Status, shown_state
from registry.data import database

NEVER = 9999  # year of `run_at` where no worker acts any more
SQL = database.statements(Path(__file__).parent / "sql" / "facts.sql")


# What the statement `facts` returns as JSON. Amounts in minor units.


class LastAttempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The latest attempt."""

    outcome: str = ""  # empty: not known yet
    code: str = ""
    reference: str = ""  # the processor's id
    action: dict[str, Any] | None = None
    at: datetime
    asked: int = 0  # look-ups of the same send so far


class LetterFact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The latest dead letter."""

    id: int
    code: str = ""
    resolution: str = ""  # empty: open
    resolved_by: str = ""
    resolved_at: datetime | None = None
    at: datetime


class RefundFact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The refund that workers gave up, else the latest one."""

    id: int
    amount: int
    status: str
    code: str = ""
    attempt: int = 0
    stopped: bool = False
    external: bool = False


class DisputeFact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The open dispute, else the lost one, else the latest one."""

    reference: str
    amount: int
    currency: str
    reason: str = ""
    status: str
    due_by: datetime | None = None
    withdrawn: int = 0
    closed: bool = False


class DiscrepancyFact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The latest open difference between the processor's books and ours."""

    id: int
    kind: str
    processor: str = ""
    our_status: str = ""
    our_amount: int | None = None
    our_currency: str = ""
    our_refunded: int | None = None
    their_amount: int | None = None
    their_currency: str = ""
    their_refunded: int | None = None
    reference: str = ""


class RouteFact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A processor of the tenant, as routing sees it."""

    name: str
    enabled: bool
    only_by_name: bool | None = None
    breaker: str = "closed"
    failing: bool = False

    def is_meant(self, wanted: str) -> bool:
        """Whether a payment that names this processor (empty: any) may go to it."""
        return self.name == wanted if wanted else not self.only_by_name

    @property
    def works(self) -> bool:
        return self.enabled and self.breaker == "closed" and not self.failing


class PaymentFacts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A payment and everything that explains its state."""

    now: datetime
    id: int
    status: Status
    code: str = ""
    amount: int
    currency: str
    attempt: int = 0
    tries: int = 0  # since it was accepted or replayed
    created_at: datetime
    changed_at: datetime
    due_at: datetime
    scheduled_for: datetime | None = None
    wanted: str = ""  # processor requested by name
    canceling: bool = False
    fee: int = 0
    refunded: int = 0
    owed_back: int = 0
    mode: str = "sandbox"
    processor: str = ""
    kind: str = ""  # of the processor
    url: str = ""
    last: LastAttempt | None = None
    letter: LetterFact | None = None
    refund: RefundFact | None = None
    dispute: DisputeFact | None = None
    discrepancy: DiscrepancyFact | None = None
    processors: list[RouteFact] = []

    @property
    def shown(self) -> ShownState:
        """The state that the pill shows to members of the tenant."""
        open_one = self.dispute is not None and not self.dispute.closed
        lost = self.dispute is not None and self.dispute.closed and self.dispute.withdrawn > 0
        return shown_state(self.status, amount=self.amount, refunded=self.refunded, disputed=open_one, lost=lost)

    @property
    def shown_to_payers(self) -> ShownState:
        """The same without disputes."""
        found = shown_state(self.status, amount=self.amount, refunded=self.refunded)
        assert found not in (Reversal.DISPUTED, Reversal.DISPUTE_LOST)
        return found

    @property
    def given_up(self) -> bool:
        """Whether no worker acts on a payment in doubt. A look-up that somebody asked for makes it due again."""
        return self.status is Status.UNCERTAIN and self.due_at.year == NEVER

    @property
    def open_letter(self) -> LetterFact | None:
        """The dead letter that waits for an operator."""
        return self.letter if self._given_up_or_failed and self.letter and not self.letter.resolution else None

    @property
    def closed_letter(self) -> LetterFact | None:
        """The dead letter that an operator closed, unless something happened since."""
        return self.letter if self._given_up_or_failed and self.letter and self.letter.resolution == "closed" else None

    @property
    def _given_up_or_failed(self) -> bool:
        return self.given_up or self.status is Status.FAILED

    @property
    def charge_unknown(self) -> bool:
        """Whether nobody knows, and no worker asks, if the payer was charged; or the processor says so against our books."""
        charged_there = self.discrepancy is not None and self.discrepancy.kind == Difference.Kind.MISSING_HERE
        return self.given_up or (charged_there and self.status in (Status.FAILED, Status.CANCELED))

    @property
    def action(self) -> dict[str, Any] | None:
        """The action that the payment requires; None if it requires none."""
        return (self.last and self.last.action) or {} if self.status is Status.REQUIRES_ACTION else None


async def facts_of(tenant_id: int, correlation_id: UUID) -> PaymentFacts | None:
    rows = await database.fetch(SQL["facts"], {"tenant": tenant_id, "correlation": correlation_id})
    return msgspec.convert(rows[0][0], PaymentFacts) if rows else None
