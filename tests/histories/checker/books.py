"""The ledger adds up and says what the processors booked; no summary counts more than was asked for, or less than was seen."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain

from payments.states import Status
from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History, Verdict, cents
from tests.histories.entries import Lines, Operation, Returned

SUMMARY = "/payments-summary"


def books(history: History) -> Iterator[Fault]:
    yield from of(Kind.LEDGER, [*_unbalanced(history), *_unlike(history)])
    yield from of(Kind.SUMMARY, [*_final(history), *chain.from_iterable(_bounds(history))])
    yield from of(Kind.BOOKS, history.end.books)
    yield from of(Kind.DIFFERENCES, history.end.differences)
    yield from of(Kind.TRACE, history.end.traces)
    yield from of(Kind.ANSWER, [*history.end.surprises, *_surprises(history)])


# -- Ledger ------------------------------------------------------------------------------------------------------


def _unbalanced(history: History) -> Iterator[str]:
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in history.of(Lines):
        sums[one.payment, one.cause] += one.amount
    yield from (
        f"{payment}: its lines for the {cause} add up to {sum_}" for (payment, cause), sum_ in sums.items() if sum_
    )


def _unlike(history: History) -> Iterator[str]:
    """The lines of processors' accounts against their own books: what they booked, less what they returned."""
    ours: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in history.of(Lines):
        if one.account == "processor":
            ours[one.payment, one.cause] += one.amount
    back: Counter[str] = Counter()
    for returned in {one.refund: one for one in history.of(Returned)}.values():  # refunds.py names what came twice
        back[returned.payment] += returned.amount
    for payment, stored in history.stored.items():
        came = sum(one.amount for one in history.booked.get(payment, ()) if one.processor == stored.processor)
        said = ours[payment, "payment"], -ours[payment, "refund"], stored.refunded
        theirs = came, back[payment], back[payment]
        if said != theirs:
            yield f"{payment}: booked, returned and refunded are {said} in ours, {theirs} in theirs"


# -- Summaries ---------------------------------------------------------------------------------------------------


def _final(history: History) -> Iterator[str]:
    ours: dict[str, Counter[str]] = defaultdict(Counter)
    for one in history.stored.values():
        if one.status == Status.SUCCEEDED:
            ours[one.processor] += Counter(totalRequests=1, totalAmount=one.amount)
    for name, said in history.end.summary.items():
        found = {"totalRequests": said["totalRequests"], "totalAmount": cents(said["totalAmount"])}
        if any(found[what] != ours[name][what] for what in found):
            yield f"{name} at the end: {found}, and its payments are {dict(ours[name])}"


def _bounds(history: History) -> Iterator[Iterator[str]]:
    for one in history.asked("GET", SUMMARY):
        if one.status == 200 and not _meets_purge(history, one):
            yield _too_much(history, one)
            yield _too_little(history, one)


def _meets_purge(history: History, one: Operation) -> bool:
    return history.purge is not None and history.purge.meets(one.invoked, one.completed)


def _too_much(history: History, one: Operation) -> Iterator[str]:
    """More than was asked for until the answer, and is in the processor's books at the end."""
    asked = {payment for payment, several in history.accepts.items() if _was_asked_for(several, one.completed)}
    for name, said in one.answer.items():
        booked = [b for payment in asked for b in history.booked.get(payment, ()) if b.processor == name]
        most = len(booked), sum(b.amount for b in booked)
        found = said["totalRequests"], cents(said["totalAmount"])
        if found > most or found[1] > most[1]:
            yield f"{name} at {one.invoked:.2f} s: {found}, and at most {most} can have been booked"


def _was_asked_for(several: list, until: float) -> bool:
    return any(one.invoked < until and one.verdict is not Verdict.REFUSED for one in several)


def _too_little(history: History, one: Operation) -> Iterator[str]:
    """Less than somebody saw succeed before."""
    seen = {payment for payment in history.shown if _was_seen(history, payment, one.invoked)}
    counts = Counter(history.stored[payment].processor for payment in seen if payment in history.stored)
    for name, least in counts.items():
        found = one.answer.get(name, {}).get("totalRequests", 0)
        if found < least:
            yield f"{name} at {one.invoked:.2f} s: {found}, after {least} were seen to have succeeded"


def _was_seen(history: History, payment: str, before: float) -> bool:
    if history.may_be_purged(payment):
        return False
    return any(one.status == Status.SUCCEEDED and one.completed < before for one in history.shown[payment])


# -- Answers -----------------------------------------------------------------------------------------------------

EXPECTED = (None, 200, 201, 202, 204, 503)
MORE = {"/payments": (409,), "/refunds": (404, 409)}  # by the end of a path


def _surprises(history: History) -> Iterator[str]:
    for one in history.operations:
        if one.status not in EXPECTED and one.status not in _more(one):
            yield f"{one.client}: {one.method} {one.path} at {one.invoked:.2f} s: {one.status} {one.answer}"[:300]


def _more(one: Operation) -> tuple[int, ...]:
    """A payment that is gone, or not known yet, is 404: reads.py judges that."""
    if one.method == "GET":
        return (404,)
    return next((more for path, more in MORE.items() if one.path.endswith(path)), ())
