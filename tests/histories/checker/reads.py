"""No answer is older than one that was complete before it was asked for; one number is one state, whoever shows it."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History, cents
from tests.histories.entries import Operation, StoredEvent


def reads(history: History) -> Iterator[Fault]:
    known = Known(history)
    yield from of(Kind.STALE, (*_older(history, known), *_missing(history, known), *_left_out(history, known)))
    yield from of(Kind.STALE, (*_polls(history, known), *_refunded(history)))
    yield from of(Kind.TWO_STATES, _two_states(history))


class Known:
    """The highest number of each payment that somebody was shown before a moment; 0: accepted, and not seen yet."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._times: dict[str, list[float]] = {}
        self._highest: dict[str, list[int]] = {}
        for payment in {*history.shown, *history.accepted}:
            self._note(payment)

    def _note(self, payment: str) -> None:
        facts = [(one.completed, one.sequence) for one in self.history.shown.get(payment, ())]
        if first := self.history.accepted.get(payment):
            facts.append((first.completed, 0))
        facts.sort()
        self._times[payment] = [at for at, _ in facts]
        highest, found = -1, []
        for _, sequence in facts:
            highest = max(highest, sequence)
            found.append(highest)
        self._highest[payment] = found

    def before(self, payment: str, at: float) -> int | None:
        """None: nobody knew of it, or a purge came in between."""
        place = bisect_left(self._times.get(payment, ()), at)
        if not place or not self.history.same_count(payment, self._times[payment][place - 1], at):
            return None
        purge = self.history.purge
        if purge and at > purge.ended and self.history.may_be_purged(payment):
            return None  # what was known before it may be higher than what came after
        return self._highest[payment][place - 1]


def _older(history: History, known: Known) -> Iterator[str]:
    for payment, several in history.shown.items():
        for one in several:
            if one.invoked is None:
                continue
            before = known.before(payment, one.invoked)
            if before is not None and one.sequence < before:
                yield f"{payment}: {one.by} at {one.invoked:.2f} s showed {one.sequence}, after {before}"


def _missing(history: History, known: Known) -> Iterator[str]:
    for one in history.asked("GET", "/payments/"):
        payment = one.path.split("/")[2]
        if one.status == 404 and known.before(payment, one.invoked) is not None:
            yield f"{payment}: {one.client}: GET {one.path} at {one.invoked:.2f} s knew nothing of it"


# -- Lists -------------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """A list, read from its first page to its last."""

    began: float
    payments: set[str]


def _left_out(history: History, known: Known) -> Iterator[str]:
    """A payment that was shown once, and so is in PostgreSQL, is in every list that is read from then on."""
    for walk in _walks(history):
        for payment in history.shown.keys() - walk.payments:
            if (known.before(payment, walk.began) or 0) > 0:
                yield f"{payment} is not in the list of {walk.began:.2f} s"


def _walks(history: History) -> Iterator[Walk]:
    walks: dict[str, tuple[Walk, str]] = {}  # by client, with the cursor of the next page
    for one in history.asked("GET", "/payments"):
        if one.path != "/payments":
            continue
        cursor = one.query.get("cursor", "")
        walk, wanted = walks.pop(one.client, (Walk(one.invoked, set()), ""))
        if cursor != wanted:
            walk = Walk(one.invoked, set())
        if one.status != 200 or (cursor and cursor != wanted):
            continue
        walk.payments.update(item["correlationId"] for item in one.answer["items"])
        if one.answer["next"]:
            walks[one.client] = walk, one.answer["next"]
        else:
            yield walk


# -- Long polls and refunds ----------------------------------------------------------------------------------------


def _polls(history: History, known: Known) -> Iterator[str]:
    for one in history.asked("GET", "/payments/", "/events"):
        payment = one.path.split("/")[2]
        before = known.before(payment, one.invoked)
        if one.status == 200 and before is not None and one.answer["next"] < before:
            yield f"{payment}: {one.client}: GET {one.path} at {one.invoked:.2f} s ended at {one.answer['next']}, after {before}"


def _refunded(history: History) -> Iterator[str]:
    """The sum that went back only grows, in the payment as in the list of its refunds."""
    facts: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for one in history.asked("GET", "/payments/"):
        if (found := _sum_of(one)) is not None:
            payment = one.path.split("/")[2]
            facts[payment].append((one.completed, found))
    for one in history.asked("GET", "/payments/"):
        payment, found = one.path.split("/")[2], _sum_of(one)
        earlier = [
            sum for at, sum in facts[payment] if at < one.invoked and history.same_count(payment, at, one.invoked)
        ]
        if found is not None and earlier and found < max(earlier):
            yield f"{payment}: {one.client}: GET {one.path} at {one.invoked:.2f} s showed {found} refunded, after {max(earlier)}"


def _sum_of(one: Operation) -> int | None:
    """Minor units that an answer shows as refunded."""
    if one.status != 200:
        return None
    if one.path.endswith("/refunds"):
        return sum(cents(refund["amount"]) for refund in one.answer["items"] if refund["status"] == "returned")
    return cents(one.answer["refunded"]) if "refunded" in one.answer else None


def _two_states(history: History) -> Iterator[str]:
    stored = {(one.payment, one.sequence): one.status for one in history.of(StoredEvent)}
    for payment, several in history.shown.items():
        if history.may_be_purged(payment):
            continue
        for one in several:
            status = stored.setdefault((payment, one.sequence), one.status)
            if status != one.status:
                yield f"{payment} number {one.sequence}: {status}, and {one.status} by {one.by}"
