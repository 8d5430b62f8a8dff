"""The checker: pure functions over the history of a run and what was stored at its end. It asks nobody and changes nothing."""

from collections.abc import Callable, Iterable

from tests.histories.checker.books import books
from tests.histories.checker.events import events
from tests.histories.checker.faults import Fault, Kind
from tests.histories.checker.history import History
from tests.histories.checker.jobs import jobs
from tests.histories.checker.payments import bookings, conflicts, steps
from tests.histories.checker.queue import queue
from tests.histories.checker.reads import reads
from tests.histories.checker.refunds import refunds
from tests.histories.checker.webhooks import webhooks
from tests.histories.entries import Line

__all__ = ["PAYMENTS", "Fault", "Kind", "check"]

CHECKS = (bookings, conflicts, steps, reads, events, refunds, webhooks, books, queue, jobs)


PAYMENTS = (
    bookings,
    conflicts,
    steps,
    events,
    books,
)  # where nobody receives webhooks, reads, refunds, or uses the queue


def check(lines: Iterable[Line], checks: Iterable[Callable[[History], Iterable[Fault]]] = CHECKS) -> list[Fault]:
    """All that is wrong with a history."""
    history = History(lines)
    return [fault for one in checks for fault in one(history)]
