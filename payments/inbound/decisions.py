"""Decide what follows from an attempt to handle an event: done, ignored, retried, or a dead letter. No I/O."""

import logging
from datetime import datetime
from typing import NamedTuple

import msgspec

from payments.inbound.handlers import Effect, NotFoundYet, ProcessorEvent, RetryLater
from payments.processors.base import Account
from payments.settle.decisions import GIVE_UP_AFTER, backoff
from queueing.work.keyed import Key
from registry.data import faults

log = logging.getLogger(__name__)

LONGEST_PATIENCE = 300.0  # seconds between attempts during an outage of the processor or the database, at most
MAX_TRIES = 20  # attempts before an event is a dead letter: with the longest backoff well over five minutes


class DueEvent(NamedTuple):
    """A claimed row, in the order of the SQL file's `columns`."""

    tenant_id: int
    id: int
    processor_id: int
    event_id: str
    type: str
    object_id: str
    object_account: str
    livemode: bool
    created: datetime
    received_at: datetime
    received_for: float
    body: bytes
    attempt: int
    tries: int


class EventClaim(msgspec.Struct):
    """A claimed event. `account` is None if its processor was deleted."""

    row: DueEvent
    account: Account | None

    @property
    def key(self) -> Key:
        return self.row.tenant_id, self.row.id

    @property
    def event(self) -> ProcessorEvent:
        assert self.account is not None
        names = (name for name in DueEvent._fields if name != "processor_id")
        return ProcessorEvent(account=self.account, **{name: getattr(self.row, name) for name in names})


class EventSettlement(NamedTuple):
    """The outcome of an attempt, and what is written for it."""

    row: DueEvent
    status: str  # "received": due again after `wait` seconds
    outcome: str = ""
    error: str = ""
    payment_id: int | None = None
    wait: float = 0.0
    failed: bool = False
    effect: Effect | None = None  # written in the same transaction

    @property
    def key(self) -> Key:
        return self.row.tenant_id, self.row.id


def misplaced(claim: EventClaim) -> str:
    """Why a correctly signed event does not belong to this account; empty if it does."""
    row, account = claim.row, claim.account
    if account is None:
        return "its processor was removed"
    if row.object_account and row.object_account != account.options.get("account"):
        return f"it is of another account ({row.object_account})"
    if row.livemode != (account.mode == "live"):
        return f"it is of {'live' if row.livemode else 'test'} mode, and the tenant is in {account.mode} mode"
    return ""


def ignored(row: DueEvent, why: str = "") -> EventSettlement:
    """Settle an event that changes nothing here. It needs no attention, and retention removes it."""
    return EventSettlement(row, "done", "ignored", error=why)


def failed(row: DueEvent, error: Exception) -> EventSettlement:
    """Retry the event; after MAX_TRIES attempts it is a dead letter, or ignored if its object is not known here.

    During an outage of the processor or the database it is retried for GIVE_UP_AFTER.
    """
    away = (
        faults.is_temporary(error)
        or isinstance(error, TimeoutError)
        or (isinstance(error, RetryLater) and error.patient)
    )
    if not away and not isinstance(error, RetryLater):
        log.warning("an event could not be handled", extra={"event": row.event_id, "type": row.type}, exc_info=error)
    why = str(error) if isinstance(error, RetryLater) else f"{type(error).__name__}: {error}"
    waits = away and row.received_for < GIVE_UP_AFTER.total_seconds()
    if row.tries >= MAX_TRIES and isinstance(error, NotFoundYet):
        settlement = ignored(row, why)
    elif row.tries >= MAX_TRIES and not waits:
        settlement = EventSettlement(row, "dead", error=f"gave up after {row.tries} tries: {why}")
    else:
        settlement = EventSettlement(row, "received", error=why, wait=_wait(row, away=away))
    return settlement._replace(failed=True)


def _wait(row: DueEvent, *, away: bool) -> float:
    """Seconds until the next attempt. The longer an outage lasts, the longer they get, for it may last a day."""
    wait = backoff(row.tries)
    return max(wait, min(row.received_for / 8, LONGEST_PATIENCE)) if away else wait
