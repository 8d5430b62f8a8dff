"""A history by its subjects: what was said of a payment, when, and by whom. The checks ask this, and nothing else."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from functools import cached_property
from typing import Any, NamedTuple

from tests.histories.entries import (
    Booked,
    Delivered,
    End,
    Entry,
    Line,
    Operation,
    Seen,
    SetAside,
    StoredPayment,
)


class Verdict(Enum):
    ACCEPTED = auto()
    CONFLICT = auto()
    REFUSED = auto()
    UNKNOWN = auto()


class Accept(NamedTuple):
    """One request for a payment, and what became of it as far as its client knows."""

    payment: str
    amount: int
    invoked: float
    completed: float
    verdict: Verdict


class Shown(NamedTuple):
    """A payment's state, as an answer or a message showed it. Nobody asked for a message: it has no `invoked`."""

    payment: str
    sequence: int
    status: str
    invoked: float | None
    completed: float
    by: str


class Span(NamedTuple):
    began: float
    ended: float

    def meets(self, began: float, ended: float) -> bool:
        return began <= self.ended and self.began <= ended


class History:
    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self.memory: dict[str, Any] = {}  # of checks that ask for the same again

    def of[T: Entry](self, kind: type[T]) -> list[T]:
        return [line for line in self.lines if isinstance(line, kind)]

    @cached_property
    def end(self) -> End:
        [end] = self.of(End)
        return end

    @cached_property
    def operations(self) -> list[Operation]:
        return sorted(self.of(Operation), key=lambda one: one.invoked)

    def asked(self, method: str, begins: str, ends: str = "") -> Iterator[Operation]:
        """Requests by the beginning and the end of their paths, in the order in which they were sent."""
        for one in self.operations:
            if one.method == method and one.path.startswith(begins) and one.path.endswith(ends):
                yield one

    # -- Payments ----------------------------------------------------------------------------------------------

    @cached_property
    def accepts(self) -> dict[str, list[Accept]]:
        """By payment, in the order in which they were sent."""
        found: defaultdict[str, list[Accept]] = defaultdict(list)
        for one in self.operations:
            for accept in _accepts(one):
                found[accept.payment].append(accept)
        return dict(found)

    @cached_property
    def accepted(self) -> dict[str, Accept]:
        """The first request for each payment that was accepted."""
        found = {}
        for payment, several in self.accepts.items():
            good = [one for one in several if one.verdict is Verdict.ACCEPTED]
            if good:
                found[payment] = min(good, key=lambda one: one.completed)
        return found

    @cached_property
    def stored(self) -> dict[str, StoredPayment]:
        return {one.payment: one for one in self.of(StoredPayment)}

    @cached_property
    def set_aside(self) -> set[str]:
        """Payments under whose ids other content was accepted while nobody could know it, and is shown to operators."""
        return {one.payment for one in self.of(SetAside)}

    @cached_property
    def booked(self) -> dict[str, list[Booked]]:
        found: defaultdict[str, list[Booked]] = defaultdict(list)
        for one in self.of(Booked):
            found[one.payment].append(one)
        return dict(found)

    @cached_property
    def shown(self) -> dict[str, list[Shown]]:
        """By payment, in the order in which they were completed."""
        found: defaultdict[str, list[Shown]] = defaultdict(list)
        for one in self.operations:
            for shown in _shown(one):
                found[shown.payment].append(shown)
        for seen in self.of(Seen):
            found[seen.payment].append(_told(seen, f"websocket of {seen.reader}"))
        for told in self.of(Delivered):
            found[told.payment].append(_told(told, f"webhook {told.id}"))
        return {payment: sorted(several, key=lambda one: one.completed) for payment, several in found.items()}

    # -- Purges ------------------------------------------------------------------------------------------------

    @cached_property
    def purge(self) -> Span | None:
        """From the first request for a purge to the end of it. Counting starts anew there."""
        asked = list(self.asked("POST", "/purge-payments"))
        return Span(asked[0].invoked, asked[-1].completed) if asked else None

    def may_be_purged(self, payment: str) -> bool:
        """It was asked for before the purge had ended: it may be gone, or have waited in the spill and be there."""
        if self.purge is None:
            return False
        several = self.accepts.get(payment)
        return not several or several[0].invoked <= self.purge.ended

    def is_gone(self, payment: str) -> bool:
        return payment not in self.stored and self.may_be_purged(payment)

    def same_count(self, payment: str, earlier: float, later: float) -> bool:
        """Whether what was said until `earlier` still holds for what was asked at `later`: no purge was in between."""
        purge = self.purge
        return purge is None or not self.may_be_purged(payment) or later < purge.began or earlier > purge.ended


def cents(amount: Any) -> int:
    return round(float(amount) * 100)


def _accepts(one: Operation) -> Iterator[Accept]:
    if one.method != "POST" or one.path not in ("/payments", "/payments/batch") or one.asked is None:
        return  # a request that was cut before its body was sent is none
    items = one.asked["items"] if one.path.endswith("batch") else [one.asked]
    for item, verdict in zip(items, _verdicts(one, len(items)), strict=True):
        yield Accept(item["correlationId"], cents(item["amount"]), one.invoked, one.completed, verdict)


_OF_ITEM = {"queued": Verdict.ACCEPTED, "replayed": Verdict.ACCEPTED, "conflict": Verdict.CONFLICT}
_OF_STATUS = {202: Verdict.ACCEPTED, 200: Verdict.ACCEPTED, 409: Verdict.CONFLICT, None: Verdict.UNKNOWN}


def _verdicts(one: Operation, items: int) -> list[Verdict]:
    """Nobody knows what becomes of a request that was answered with an error of the server: it may be committed later."""
    if one.path.endswith("batch") and one.status == 200:
        return [_OF_ITEM.get(result["status"], Verdict.REFUSED) for result in one.answer["results"]]
    refused = Verdict.UNKNOWN if one.status is None or one.status >= 500 else Verdict.REFUSED
    return [_OF_STATUS.get(one.status, refused)] * items


def _shown(one: Operation) -> Iterator[Shown]:
    if one.method != "GET" or one.status != 200 or not one.path.startswith("/payments"):
        return
    if one.path == "/payments":
        objects = one.answer["items"]
    elif one.path.endswith("/events"):
        objects = [event["payment"] for event in one.answer["events"]]
    else:
        objects = [one.answer] if "correlationId" in one.answer else []
    asked = None if one.path.endswith("/events") else one.invoked
    for said in objects:
        state = said["correlationId"], said["sequence"], said["status"]
        yield Shown(*state, asked, one.completed, f"{one.client}: GET {one.path}")


def _told(one: Seen | Delivered, by: str) -> Shown:
    return Shown(one.payment, one.sequence, one.status, None, one.at, by)
