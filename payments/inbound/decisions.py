"""What follows from a try to handle an event: done, ignored, tried again and when, or a dead letter. No I/O."""

import logging
from datetime import datetime
from typing import NamedTuple

import msgspec

from payments.inbound.handlers import Effect, Event, Later, Missing
from payments.processors.base import Account
from payments.settle.decisions import GIVE_UP_AFTER, backoff
from queueing.work.work import Key
from registry.data import faults

log = logging.getLogger(__name__)

LONGEST_PATIENCE = 300.0  # seconds between tries of what waits for others
MAX_TRIES = 20  # before an event is a dead letter: with the longest backoff well over five minutes


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
    """A claimed event. Without an account, its processor is no more."""

    row: DueEvent
    account: Account | None

    @property
    def key(self) -> Key:
        return self.row.tenant_id, self.row.id

    @property
    def event(self) -> Event:
        assert self.account is not None
        names = (name for name in DueEvent._fields if name != "processor_id")
        return Event(account=self.account, **{name: getattr(self.row, name) for name in names})


class EventSettlement(NamedTuple):
    """The outcome of a try."""

    row: DueEvent
    status: str  # received: it is due again after `wait`
    outcome: str = ""
    error: str = ""
    payment_id: int | None = None
    wait: float = 0.0
    failed: bool = False
    effect: Effect | None = None  # to be written in the same transaction

    @property
    def key(self) -> Key:
        return self.row.tenant_id, self.row.id


def misplaced(taken: EventClaim) -> str:
    """Why an event does not belong to this account, though it was signed for it; empty if it does."""
    row, account = taken.row, taken.account
    if account is None:
        return "its processor was removed"
    if row.object_account and row.object_account != account.options.get("account"):
        return f"it is of another account ({row.object_account})"
    if row.livemode != (account.mode == "live"):
        return f"it is of {'live' if row.livemode else 'test'} mode, and the tenant is in {account.mode} mode"
    return ""


def ignored(row: DueEvent, why: str = "") -> EventSettlement:
    """The end of an event that changes nothing of ours: retention removes it, and nobody has to look at it."""
    return EventSettlement(row, "done", "ignored", error=why)


def failed(row: DueEvent, error: Exception) -> EventSettlement:
    """Tried again later; after MAX_TRIES a dead letter, or ignored where it is about nothing that is here. While others are
    away, it is tried for a day."""
    away = faults.is_temporary(error) or isinstance(error, TimeoutError) or (isinstance(error, Later) and error.patient)
    if not away and not isinstance(error, Later):
        log.warning("an event could not be handled", extra={"event": row.event_id, "type": row.type}, exc_info=error)
    why = str(error) if isinstance(error, Later) else f"{type(error).__name__}: {error}"
    waits = away and row.received_for < GIVE_UP_AFTER.total_seconds()
    if row.tries >= MAX_TRIES and isinstance(error, Missing):
        ending = ignored(row, why)
    elif row.tries >= MAX_TRIES and not waits:
        ending = EventSettlement(row, "dead", error=f"gave up after {row.tries} tries: {why}")
    else:
        ending = EventSettlement(row, "received", error=why, wait=_wait(row, away=away))
    return ending._replace(failed=True)


def _wait(row: DueEvent, *, away: bool) -> float:
    """Seconds to the next try. The longer others have been away, the less often they are asked: it may be for a day."""
    wait = backoff(row.tries)
    return max(wait, min(row.received_for / 8, LONGEST_PATIENCE)) if away else wait
