"""The checker: pure functions over the history of a run and what was stored at its end. It asks nobody and changes nothing."""

from collections.abc import Iterable

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

__all__ = ["Fault", "Kind", "check"]

CHECKS = (bookings, conflicts, steps, reads, events, refunds, webhooks, books, queue, jobs)


def check(lines: Iterable[Line]) -> list[Fault]:
    """All that is wrong with a history."""
    history = History(lines)
    return [fault for one in CHECKS for fault in one(history)]
