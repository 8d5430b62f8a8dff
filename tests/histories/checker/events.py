"""The numbers of events have no gaps, and every reader gets them in the one order in which they are stored."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History
from tests.histories.entries import Seen, StoredEvent


def events(history: History) -> Iterator[Fault]:
    readers: defaultdict[str, list[Seen]] = defaultdict(list)
    for seen in history.of(Seen):
        if not seen.early:
            readers[seen.reader].append(seen)
    gaps = [gap for reader, several in readers.items() for gap in _missed(history, reader, several)]
    yield from of(Kind.GAP, [*gaps, *_missing(history), *_of_payments(history), *_polled(history)])
    again = [one for reader, several in readers.items() for one in _again(reader, several)]
    yield from of(Kind.DISORDER, [*again, *_different(history, readers.values()), *_unordered(history)])


# -- The tenant's stream -----------------------------------------------------------------------------------------


def _missed(history: History, reader: str, several: list[Seen]) -> Iterator[str]:
    numbers = [0, *(seen.position for seen in several), history.end.position + 1]
    times = [*(seen.at for seen in several), float("inf")]
    for (before, after), at in zip(pairwise(numbers), times, strict=True):
        if after > before + 1 and not _purged(history, after - 1, at):
            yield f"{reader} got {after} after {before} at {at:.2f} s"


def _purged(history: History, last: int, at: float) -> bool:
    """Whether a purge explains that a reader did not get the events up to this number, by that time."""
    return history.purge is not None and history.purge.began < at and last <= history.end.purged_until


def _again(reader: str, several: list[Seen]) -> Iterator[str]:
    for one, other in pairwise(several):
        if other.position <= one.position:
            yield f"{reader} got {other.position} after {one.position} at {other.at:.2f} s"


def _different(history: History, readers: Iterable[list[Seen]]) -> Iterator[str]:
    stored = {one.position: (one.payment, one.sequence, one.status) for one in history.of(StoredEvent)}
    for several in readers:
        for one in several:
            what = one.payment, one.sequence, one.status
            if stored.setdefault(one.position, what) != what:
                yield f"number {one.position} is {what} to {one.reader}, and {stored[one.position]} to others"


def _missing(history: History) -> Iterator[str]:
    stored = {one.position for one in history.of(StoredEvent)}
    for number in range(1, history.end.position + 1):
        if number not in stored and number > history.end.purged_until:
            yield f"no event has the number {number}"


def _unordered(history: History) -> Iterator[str]:
    latest: dict[str, int] = {}
    for one in sorted(history.of(StoredEvent), key=lambda one: one.position):
        if one.sequence < latest.get(one.payment, 0):
            yield f"{one.payment} number {one.sequence} is stored after {latest[one.payment]}"
        latest[one.payment] = one.sequence


# -- Payments ------------------------------------------------------------------------------------------------------


def _of_payments(history: History) -> Iterator[str]:
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for one in history.of(StoredEvent):
        numbers[one.payment].add(one.sequence)
    for payment, stored in history.stored.items():
        if numbers[payment] != set(range(1, stored.sequence + 1)):
            yield f"{payment} has the events {sorted(numbers[payment])}, and its latest is {stored.sequence}"


def _polled(history: History) -> Iterator[str]:
    for one in history.asked("GET", "/payments/", "/events"):
        if one.status != 200:
            continue
        after = int(one.query.get("after", 0))
        numbers = [event["sequence"] for event in one.answer["events"]]
        if numbers != list(range(after + 1, after + 1 + len(numbers))):
            yield f"{one.client}: GET {one.path} after {after} at {one.invoked:.2f} s gave {numbers}"
