"""Compare payments with what they were booked from: their events, ledger lines, booked attempt and refunds."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from payments.books.check.reading import SQL, money
from payments.states import SUCCEEDED
from registry.tenants.books import BookDifference, BookSlice, book_part, ranges, read, slices

ACCOUNTS = ("processor", "fees", "balance")


class _Event(NamedTuple):
    sequence: int
    position: int
    status: str
    kind: str
    subject_id: int | None
    at: str

    @property
    def content(self) -> tuple[Any, ...]:
        return self[2:]


class _Line(NamedTuple):
    id: int
    account: str
    amount: int
    currency: str
    processor_id: int


class _Payment(NamedTuple):
    """A payment that differs from its sources, in the order of `payments`."""

    id: int
    correlation_id: UUID
    status: str
    sequence: int
    amount: int
    currency: str
    fee: int | None
    processor_id: int | None
    requested_at: datetime | None
    refunded: int
    owed_back: int
    refunds_returned: int
    refunds_owed: int
    attempt_booked: bool
    events: str  # JSON
    lines: str

    def differs(self, kind: str, stored: str, expected: str) -> BookDifference:
        return BookDifference(kind=kind, subject=f"payment {self.correlation_id}", stored=stored, expected=expected)


@book_part("payments")
async def payments(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every payment, by id."""
    async for bounds in slices(SQL["payment_page"], SQL["payment_last"], tenant_id, after):
        params = {"tenant": tenant_id, "after": bounds.after, "last": bounds.last}
        rows = await read(SQL["payments"], params)
        differences = [one for row in rows for one in _differences(_Payment._make(row))]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _differences(payment: _Payment) -> Iterator[BookDifference]:
    yield from _of_events(payment, msgspec.json.decode(payment.events, type=list[_Event]))
    yield from _of_lines(payment, msgspec.json.decode(payment.lines, type=list[_Line]))
    yield from _of_booking(payment)
    for kind, words, stored, summed in (
        ("payment.refunded", "refunded", payment.refunded, payment.refunds_returned),
        ("payment.owed_back", "refunds that have not failed", payment.owed_back, payment.refunds_owed),
    ):
        if stored != summed:
            yield payment.differs(
                kind,
                f"{words}: {money(stored, payment.currency)}",
                f"{money(summed, payment.currency)}, as its refunds add up to",
            )


# -- Events ---------------------------------------------------------------------------------------------------------


def _of_events(payment: _Payment, events: list[_Event]) -> Iterator[BookDifference]:
    """Numbers are 1 to the payment's sequence, each once, in the order of the tenant's stream; the last has its status."""
    numbers = Counter(event.sequence for event in events)
    missing = sorted(set(range(1, payment.sequence + 1)) - set(numbers))
    extra = sorted(number for number in numbers if not 1 <= number <= payment.sequence)
    twice = sorted(number for number, count in numbers.items() if count > 1)
    if missing and len(missing) == len(extra):
        yield payment.differs(
            "event.number",
            f"events have the numbers {', '.join(ranges(sorted(numbers)))}",
            f"1 to {payment.sequence}: {', '.join(ranges(extra))} was {', '.join(ranges(missing))}",
        )
        return
    if missing:
        yield payment.differs(
            "event.missing",
            f"{len(events)} events, without {', '.join(ranges(missing))}",
            f"the events 1 to {payment.sequence}",
        )
    if extra or twice:
        yield payment.differs(
            "event.double",
            f"{len(events)} events; too many: {', '.join(_doubled(events, extra, twice))}",
            f"the events 1 to {payment.sequence}",
        )
    if not (missing or extra or twice):
        yield from _of_order(payment, events)


def _doubled(events: list[_Event], extra: list[int], twice: list[int]) -> Iterator[str]:
    yield from (f"{number} twice" for number in twice)
    for number in extra:
        [event] = [one for one in events if one.sequence == number][:1]
        same = [one.sequence for one in events if one.content == event.content and one.sequence < number]
        yield f"{number}, which repeats {same[0]}" if same else str(number)


def _of_order(payment: _Payment, events: list[_Event]) -> Iterator[BookDifference]:
    positions = [event.position for event in events]
    if positions != sorted(positions):
        yield payment.differs(
            "event.number",
            f"its events have the stream's numbers {', '.join(map(str, positions))}",
            "numbers that ascend with the events",
        )
    if events[-1].status != payment.status:
        yield payment.differs("payment.status", f"status {payment.status}", f"{events[-1].status}, by its last event")


# -- Ledger lines -----------------------------------------------------------------------------------------------------


def _of_lines(payment: _Payment, lines: list[_Line]) -> Iterator[BookDifference]:
    """A payment that succeeded has three lines. Where they agree with one another, the payment is what was changed."""
    booked = payment.status == SUCCEEDED
    by_account = {account: [line for line in lines if line.account == account] for account in ACCOUNTS}
    complete = len(lines) == len(ACCOUNTS) and all(len(found) == 1 for found in by_account.values())
    if not booked:
        if lines:
            yield payment.differs("ledger.stray", f"{len(lines)} ledger lines", f"none: its status is {payment.status}")
        return
    if complete and sum(line.amount for line in lines) == 0:
        yield from _of_sums(payment, by_account["processor"][0].amount, -by_account["fees"][0].amount)
    else:
        yield from _of_accounts(payment, by_account)
        for line in lines:
            if line.account not in by_account:
                yield payment.differs("ledger.line", f"ledger line {line.id} on account {line.account}", "none")
    for line in lines:
        if line.currency != payment.currency:
            yield payment.differs("ledger.currency", f"ledger line {line.id} in {line.currency}", payment.currency)
        if line.processor_id != payment.processor_id:
            yield payment.differs(
                "ledger.processor",
                f"ledger line {line.id} of processor {line.processor_id}",
                f"processor {payment.processor_id}, where it was booked",
            )


def _of_sums(payment: _Payment, gross: int, fee: int) -> Iterator[BookDifference]:
    for kind, words, stored, booked in (
        ("payment.amount", "amount", payment.amount, gross),
        ("payment.fee", "fee", payment.fee, fee),
    ):
        if stored != booked:
            yield payment.differs(
                kind,
                f"{words} {money(stored, payment.currency)}",
                f"{money(booked, payment.currency)}, as its ledger lines have it",
            )


def _of_accounts(payment: _Payment, by_account: dict[str, list[_Line]]) -> Iterator[BookDifference]:
    fee = payment.fee or 0
    for account, amount in zip(ACCOUNTS, (payment.amount, -fee, fee - payment.amount), strict=True):
        found, wanted = by_account[account], money(amount, payment.currency)
        if not found:
            yield payment.differs("ledger.missing", f"no ledger line on account {account}", f"a line of {wanted}")
        elif len(found) > 1:
            ids = ", ".join(str(line.id) for line in found)
            yield payment.differs("ledger.double", f"ledger lines {ids} on account {account}", f"one line of {wanted}")
        elif found[0].amount != amount:
            stored = f"ledger line {found[0].id} on account {account} {money(found[0].amount, payment.currency)}"
            yield payment.differs("ledger.amount", stored, wanted)


def _of_booking(payment: _Payment) -> Iterator[BookDifference]:
    if payment.status != SUCCEEDED:
        return
    if payment.fee is None:
        yield payment.differs("payment.fee", "no fee", "the fee that its processor kept")
    if not payment.attempt_booked:
        requested = payment.requested_at.isoformat() if payment.requested_at else "no time"
        yield payment.differs(
            "payment.booking",
            f"booked at processor {payment.processor_id}, requested at {requested}",
            "the processor and requestedAt of an attempt that was booked",
        )
