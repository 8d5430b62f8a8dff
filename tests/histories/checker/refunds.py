"""Every accepted refund is returned once, by the processor that booked its payment, and none without one."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from payments.states import RefundStatus
from tests.histories.checker.faults import Fault, Kind, of
from tests.histories.checker.history import History, cents
from tests.histories.entries import Returned, StoredRefund


class Owed(NamedTuple):
    """A refund that was accepted."""

    refund: str
    payment: str
    amount: int
    key: str


def refunds(history: History) -> Iterator[Fault]:
    owed = {one.refund: one for one in _owed(history) if not history.is_gone(one.payment)}
    stored = {one.refund: one for one in history.of(StoredRefund)}
    returned = Counter(one.refund for one in history.of(Returned))
    amounts = {one.refund: one.amount for one in history.of(Returned)}
    yield from of(Kind.REFUNDED_TWICE, [*_twice(returned), *_two_of_one_key(history), *_too_much(history)])
    yield from of(Kind.REFUND_LOST, (refund for refund in owed if not _is_returned(stored.get(refund), returned)))
    yield from of(Kind.REFUND_INVENTED, (one for one in returned if not _is_known(history, one, stored)))
    yield from of(Kind.OTHER_CONTENT, (one for one in owed if one in amounts and amounts[one] != owed[one].amount))
    yield from of(Kind.STALE, _forgotten(history))


def _owed(history: History) -> Iterator[Owed]:
    for one in history.asked("POST", "/payments/", "/refunds"):
        if one.status in (200, 202):
            said = one.answer
            yield Owed(said["id"], said["correlationId"], cents(said["amount"]), one.key)


def _twice(returned: Counter[str]) -> Iterator[str]:
    yield from (f"{refund}, {times} times" for refund, times in returned.items() if times > 1)


def _two_of_one_key(history: History) -> Iterator[str]:
    names: defaultdict[str, set[str]] = defaultdict(set)
    for one in _owed(history):
        names[one.key].add(one.refund)
    yield from (f"key {key} is {sorted(several)}" for key, several in names.items() if len(several) > 1)


def _too_much(history: History) -> Iterator[str]:
    """More went back than came."""
    sums: Counter[str] = Counter()
    for one in history.of(Returned):
        sums[one.payment] += one.amount
    for payment, sum_ in sums.items():
        came = sum(one.amount for one in history.booked.get(payment, ()))
        if sum_ > came:
            yield f"{payment}: {sum_} of {came}"


def _is_returned(stored: StoredRefund | None, returned: Counter[str]) -> bool:
    return stored is not None and stored.status == RefundStatus.RETURNED and returned[stored.refund] > 0


def _is_known(history: History, refund: str, stored: dict[str, StoredRefund]) -> bool:
    payments = {one.payment for one in history.of(Returned) if one.refund == refund}
    return refund in stored or any(history.is_gone(payment) for payment in payments)


def _forgotten(history: History) -> Iterator[str]:
    """A refund that was accepted, or returned, is in every list of its payment's refunds from then on, and stays returned."""
    for one in history.asked("GET", "/payments/", "/refunds"):
        if one.status != 200:
            continue
        payment = one.path.split("/")[2]
        states = {refund["id"]: refund["status"] for refund in one.answer["items"]}
        for refund, at, returned in _facts(history).get(payment, ()):
            if at >= one.invoked or not history.same_count(payment, at, one.invoked):
                continue
            if refund not in states or (returned and states[refund] != RefundStatus.RETURNED):
                yield f"{refund} is {states.get(refund, 'missing')} to {one.client} at {one.invoked:.2f} s"


def _facts(history: History) -> dict[str, list[tuple[str, float, bool]]]:
    """By payment: a refund, when it was known to be accepted, and whether it was known to be returned."""
    if "refund facts" not in history.memory:
        found: defaultdict[str, list[tuple[str, float, bool]]] = defaultdict(list)
        for one in history.operations:
            if one.path.endswith("/refunds") and one.status in (200, 202):
                refunds = one.answer["items"] if one.method == "GET" else [one.answer]
                for refund in refunds:
                    fact = refund["id"], one.completed, refund["status"] == RefundStatus.RETURNED
                    found[one.path.split("/")[2]].append(fact)
        history.memory["refund facts"] = found
    return history.memory["refund facts"]
