"""Every event of a payment is one webhook, and each payment's come for the first time in their order."""

from collections import defaultdict
from collections.abc import Iterator

from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History
from tests.histories.entries import Delivered, StoredEvent


def webhooks(history: History) -> Iterator[Fault]:
    delivered = sorted(history.of(Delivered), key=lambda one: one.at)
    heard = {(one.payment, one.sequence) for one in delivered}
    events = [one for one in history.of(StoredEvent) if not history.may_be_purged(one.payment)]
    lost = (f"{one.payment} number {one.sequence}" for one in events if (one.payment, one.sequence) not in heard)
    yield from of(Kind.WEBHOOK_LOST, lost)
    yield from of(Kind.WEBHOOK_TWICE, _twice(delivered))
    yield from of(Kind.WEBHOOK_ORDER, _unordered(history, delivered))


def _twice(delivered: list[Delivered]) -> Iterator[str]:
    names: defaultdict[tuple[str, int, str], set[str]] = defaultdict(set)
    for one in delivered:
        names[one.payment, one.sequence, one.type].add(one.id)
    yield from (f"{key} as {sorted(several)}" for key, several in names.items() if len(several) > 1)


def _unordered(history: History, delivered: list[Delivered]) -> Iterator[str]:
    known: set[str] = set()
    latest: dict[str, int] = {}
    for one in delivered:
        if one.id in known or history.may_be_purged(one.payment):
            continue
        known.add(one.id)
        if one.sequence <= latest.get(one.payment, 0):
            yield f"{one.payment} number {one.sequence} at {one.at:.2f} s, after {latest[one.payment]}"
        latest[one.payment] = one.sequence
