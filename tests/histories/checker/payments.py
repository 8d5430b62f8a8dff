"""Every accepted payment is booked once, with the content that was accepted, whatever else is asked under its id."""

from collections.abc import Iterator

from payments.states import ARROWS, Status
from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import Accept, History, Verdict
from tests.histories.entries import StoredEvent


def bookings(history: History) -> Iterator[Fault]:
    yield from of(Kind.BOOKED_TWICE, _twice(history))
    kept = [payment for payment in history.accepted if not history.is_gone(payment)]
    booked = [payment for payment in kept if payment in history.booked]
    yield from of(Kind.LOST, (_ends(history, payment) for payment in kept if payment not in history.booked))
    yield from of(Kind.UNSETTLED, (_ends(history, payment) for payment in booked if not _succeeded(history, payment)))
    yield from of(Kind.INVENTED, (payment for payment in history.booked if not _asked_for(history, payment)))
    yield from of(Kind.OTHER_CONTENT, _other_content(history))


def _twice(history: History) -> Iterator[str]:
    for payment, several in history.booked.items():
        if len(several) > 1 and not _comes_again(history, payment):
            yield f"{payment} at {', '.join(one.processor for one in several)}"


def _comes_again(history: History, payment: str) -> bool:
    """A request that was never answered may have been carried out after the purge, as another payment under this id."""
    unknown = any(one.verdict is Verdict.UNKNOWN for one in history.accepts.get(payment, ()))
    return unknown and history.may_be_purged(payment)


def _succeeded(history: History, payment: str) -> bool:
    return payment in history.stored and history.stored[payment].status == Status.SUCCEEDED


def _ends(history: History, payment: str) -> str:
    stored = history.stored.get(payment)
    return f"{payment} is {stored.status}" if stored else f"{payment} does not exist"


def _asked_for(history: History, payment: str) -> bool:
    return any(one.verdict in (Verdict.ACCEPTED, Verdict.UNKNOWN) for one in history.accepts.get(payment, ()))


def _other_content(history: History) -> Iterator[str]:
    for payment, several in history.booked.items():
        good = _content(history.accepts.get(payment, []))
        for one in several:
            if good and one.amount not in good:
                yield f"{payment}: {one.amount} and not {', '.join(map(str, sorted(good)))}"


def _content(several: list[Accept]) -> set[int]:
    """The amounts that may have won: the one that was accepted before any other was asked for, else all that were not refused."""
    accepted = [one for one in several if one.verdict is Verdict.ACCEPTED]
    for one in accepted:
        if all(other.invoked > one.completed for other in several if other.amount != one.amount):
            return {one.amount}
    return {one.amount for one in several if one.verdict in (Verdict.ACCEPTED, Verdict.UNKNOWN)}


# -- Conflicts -------------------------------------------------------------------------------------------------


def conflicts(history: History) -> Iterator[Fault]:
    """Other content is refused for ever, the same content never. While PostgreSQL is away nobody can know what it holds: what was
    accepted then is set aside."""
    yield from of(Kind.CONFLICT_ACCEPTED, _judged(history, Verdict.ACCEPTED, same=False))
    yield from of(Kind.REPLAY_REFUSED, _judged(history, Verdict.CONFLICT, same=True))


def _judged(history: History, verdict: Verdict, *, same: bool) -> Iterator[str]:
    for payment, first in history.accepted.items():
        for later in history.accepts[payment]:
            if (
                later.verdict is verdict
                and later.invoked > first.completed
                and (later.amount == first.amount) is same
                and history.same_count(payment, first.completed, later.invoked)
                and payment not in history.set_aside
            ):
                yield f"{payment} with {later.amount} at {later.invoked:.2f} s, after {first.amount}"


# -- Steps -------------------------------------------------------------------------------------------------------


def steps(history: History) -> Iterator[Fault]:
    """Each change of a payment is one of those that the table of its states allows."""
    yield from of(Kind.STEP, _steps(history.of(StoredEvent)))


def _steps(events: list[StoredEvent]) -> Iterator[str]:
    latest: dict[str, Status] = {}
    for event in events:
        status = Status(event.status)
        before = latest.get(event.payment)
        allowed = {before} if event.kind and before else ARROWS[before] if before else {Status.QUEUED}
        if status not in allowed:
            yield f"{event.payment} from {before or 'nothing'} to {status}"
        latest[event.payment] = status
