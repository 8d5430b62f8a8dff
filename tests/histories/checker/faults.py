"""What can be wrong with a history."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

SHOWN = 3  # examples of a fault


class Kind(StrEnum):
    BOOKED_TWICE = "booked twice"
    LOST = "accepted and never booked"
    INVENTED = "booked and never accepted"
    OTHER_CONTENT = "booked with other content than was accepted"
    UNSETTLED = "accepted, and not succeeded at the end"
    CONFLICT_ACCEPTED = "accepted under an id that had other content"
    REPLAY_REFUSED = "refused under an id that had the same content"
    STALE = "an answer older than one before"
    TWO_STATES = "two states under one number"
    STEP = "a step that no payment takes"
    GAP = "a gap in the numbers of events"
    DISORDER = "events in different orders"
    REFUNDED_TWICE = "refunded twice"
    REFUND_LOST = "a refund accepted and not returned"
    REFUND_INVENTED = "refunded without a refund"
    WEBHOOK_LOST = "an event without a webhook"
    WEBHOOK_TWICE = "an event with two webhooks"
    WEBHOOK_ORDER = "webhooks of one payment out of order"
    LEDGER = "the ledger is not what the processors booked"
    SUMMARY = "a summary that cannot be"
    BOOKS = "check_books found differences"
    DIFFERENCES = "reconciliation found differences"
    QUEUE = "messages of the queue"
    JOBS = "jobs"
    ANSWER = "an answer no client should get"
    TRACE = "an error that nobody expected, with its stack trace in the service's log"


class Fault(NamedTuple):
    kind: Kind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def of(kind: Kind, wrong: Iterable[object]) -> Iterator[Fault]:
    """One fault for all examples of one kind."""
    if found := sorted(map(str, wrong)):
        yield Fault(kind, f"{len(found)}: {'; '.join(found[:SHOWN])}")
