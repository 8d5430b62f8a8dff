"""The checker reports every kind of fault, and reports nothing that is allowed."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tests.bed.journal import Moment, What
from tests.histories.checker import Kind, check
from tests.histories.entries import (
    Booked,
    DeadLetter,
    Delivered,
    End,
    Line,
    Lines,
    Operation,
    Ran,
    Returned,
    Seen,
    SetAside,
    StoredEvent,
    StoredJob,
    StoredPayment,
    StoredRefund,
)

A, B = "aaaaaaaa-0000-4000-8000-000000000000", "bbbbbbbb-0000-4000-8000-000000000000"
R = "cccccccc-0000-4000-8000-000000000000"
STATUSES = ("queued", "processing", "succeeded")


def asked(method: str, path: str, at: float, status: int | None = 200, answer: Any = None, **more: Any) -> Operation:
    """A request of a tenth of a second."""
    times = {"invoked": at, "completed": at + 0.1}
    return Operation(client="c", method=method, path=path, status=status, answer=answer, **times, **more)


def accept(payment: str, at: float, status: int | None = 202, *, amount: str = "10.00") -> Operation:
    body = {"correlationId": payment, "amount": amount}
    return asked("POST", "/payments", at, status, body if status == 202 else None, asked=body)


def state(payment: str, sequence: int, **more: Any) -> dict[str, Any]:
    status = STATUSES[min(sequence, 3) - 1]
    return {"correlationId": payment, "sequence": sequence, "status": status, "processor": "default", **more}


def look(payment: str, at: float, sequence: int) -> Operation:
    return asked("GET", f"/payments/{payment}/status", at, 200, state(payment, sequence))


def listed(at: float, *states: dict[str, Any]) -> Operation:
    return asked("GET", "/payments", at, 200, {"items": list(states), "next": None})


def poll(payment: str, at: float, *sequences: int, after: int = 0) -> Operation:
    events = [{"sequence": n, "payment": state(payment, n)} for n in sequences]
    answer = {"events": events, "next": sequences[-1] if sequences else after}
    return asked("GET", f"/payments/{payment}/events", at, 200, answer, query={"after": str(after)})


def summary(at: float, count: int, amount: float) -> Operation:
    return asked("GET", "/payments-summary", at, 200, {"default": {"totalRequests": count, "totalAmount": amount}})


def seen(reader: str, position: int, payment: str, sequence: int, at: float = 2.0) -> Seen:
    one = state(payment, sequence)
    return Seen(
        reader=reader, connection=0, at=at, position=position, payment=payment, sequence=sequence, status=one["status"]
    )


def delivered(payment: str, sequence: int, at: float, id: str = "") -> Delivered:
    status = STATUSES[min(sequence, 3) - 1]
    name = id or f"{payment}-{sequence}"
    return Delivered(at=at, id=name, type=f"payment.{status}", payment=payment, sequence=sequence, status=status)


def ledger(payment: str, cause: str, amount: int) -> list[Lines]:
    names = {"payment": payment, "processor": "default", "cause": cause, "count": 1}
    return [Lines(account="processor", amount=amount, **names), Lines(account="balance", amount=-amount, **names)]


def paid(payment: str, first: int) -> list[Line]:
    """A payment of 10.00 as it ends, whose events have the numbers from `first` on; both watchers saw them."""
    numbers = range(1, 4)
    return [
        Booked(processor="default", payment=payment, amount=1000),
        StoredPayment(payment=payment, status="succeeded", sequence=3, amount=1000, refunded=0, processor="default"),
        *(
            StoredEvent(position=first + n - 1, payment=payment, sequence=n, status=STATUSES[n - 1], kind="")
            for n in numbers
        ),
        *(seen(reader, first + n - 1, payment, n) for reader in ("x", "y") for n in numbers),
        *(delivered(payment, n, 2.0 + n) for n in numbers),
        *ledger(payment, "payment", 1000),
    ]


def end(**changed: Any) -> End:
    summary = {"default": {"totalRequests": 2, "totalAmount": 20.0}}
    fields = {
        "seed": 1,
        "commit": "",
        "position": 6,
        "purged_until": 0,
        "summary": summary,
        "books": [],
        "waiting": 0,
        "lease": 1.0,
        "surprises": [],
    }
    return End(**{**fields, **changed})


def clean() -> list[Line]:
    """Two payments, of which somebody saw one succeed."""
    return [
        accept(A, 1.0),
        accept(B, 1.0),
        look(A, 3.0, 3),
        *paid(A, 1),
        *paid(B, 4),
        end(),
    ]


def kinds(lines: Iterable[Line]) -> set[Kind]:
    return {fault.kind for fault in check(lines)}


def without(lines: list[Line], *gone: Line) -> list[Line]:
    assert all(line in lines for line in gone)
    return [line for line in lines if line not in gone]


def ended(lines: list[Line], **changed: Any) -> list[Line]:
    return [end(**changed) if isinstance(line, End) else line for line in lines]


def test_a_clean_history_has_no_fault():
    assert check(clean()) == []


# -- Faults --------------------------------------------------------------------------------------------------------

REFUND = {"id": R, "correlationId": A, "amount": "4.00", "status": "returned"}
REFUNDED = asked("POST", f"/payments/{A}/refunds", 4.0, 202, {**REFUND, "status": "owed"}, key="k")
RETURNED = Returned(processor="default", payment=A, refund=R, amount=400)
KEPT = StoredRefund(refund=R, payment=A, status="returned", amount=400)
JOB = asked("POST", "/jobs", 1.0, 202, {"id": "j"}, key="k")


def with_refund(*parts: Line) -> list[Line]:
    """The clean history, with a refund of 4.00 that has these parts."""
    stored = StoredPayment(payment=A, status="succeeded", sequence=3, amount=1000, refunded=0, processor="default")
    lines = [
        StoredPayment(payment=A, status="succeeded", sequence=3, amount=1000, refunded=400, processor="default")
        if line == stored
        else line
        for line in clean()
    ]
    return [*lines, *ledger(A, "refund", -400), *parts]


def message(number: int) -> dict[str, str]:
    return {"queue": "q", "partition": "p", "transactionId": f"producer-0:{number}"}


def push(at: float, *numbers: int) -> Operation:
    items = [message(number) for number in numbers]
    return asked("POST", "/api/v1/push", at, 201, [{"status": "queued"}] * len(items), asked={"items": items})


def pop(at: float, group: str, lease: str, *numbers: int) -> list[Operation]:
    """And all of it is acked."""
    answer = {"leaseId": lease, "messages": [message(number) for number in numbers]}
    got = asked("GET", "/api/v1/pop/queue/q", at, 200, answer, query={"consumerGroup": group})
    acks = [{**message(number), "leaseId": lease, "status": "completed"} for number in numbers]
    said = {"consumerGroup": group, "acknowledgments": acks}
    return [got, asked("POST", "/api/v1/ack/batch", at + 0.2, 200, [{"success": True}] * len(acks), asked=said)]


FAULTS: dict[str, tuple[list[Line], set[Kind]]] = {
    "booked at two processors": (
        [*clean(), Booked(processor="fallback", payment=A, amount=1000)],
        {Kind.BOOKED_TWICE},
    ),
    "accepted and nowhere": ([*clean(), accept(R, 1.0)], {Kind.LOST}),
    "accepted by a batch and nowhere": (
        [
            *clean(),
            asked(
                "POST",
                "/payments/batch",
                1.0,
                200,
                {"results": [{"status": "queued"}]},
                asked={"items": [{"correlationId": R, "amount": "1.00"}]},
            ),
        ],
        {Kind.LOST},
    ),
    "booked and never asked for": (
        without(clean(), accept(B, 1.0)),
        {Kind.INVENTED},
    ),
    "booked with the content that was refused": (
        [*without(clean(), accept(A, 1.0)), accept(A, 1.0, amount="9.00"), accept(A, 1.5, 409)],
        {Kind.OTHER_CONTENT},
    ),
    "other content accepted": ([*clean(), accept(A, 3.0, amount="9.00")], {Kind.CONFLICT_ACCEPTED}),
    "the same content refused": ([*clean(), accept(A, 3.0, 409)], {Kind.REPLAY_REFUSED}),
    "an older status": ([*clean(), look(A, 4.0, 2)], {Kind.STALE}),
    "an older status in a list": ([*clean(), listed(4.0, state(A, 2), state(B, 3))], {Kind.STALE}),
    "a list without a payment": ([*clean(), listed(4.0, state(B, 3))], {Kind.STALE}),
    "an accepted payment that is not found": (
        [*clean(), asked("GET", f"/payments/{B}", 1.5, 404)],
        {Kind.STALE},
    ),
    "a long poll that ends before what was seen": ([*clean(), poll(A, 4.0, 1, 2)], {Kind.STALE}),
    "a sum of refunds that shrinks": (
        [
            *clean(),
            asked("GET", f"/payments/{A}", 4.0, 200, state(A, 3, refunded="4.00")),
            asked("GET", f"/payments/{A}", 5.0, 200, state(A, 3, refunded="0.00")),
        ],
        {Kind.STALE},
    ),
    "a number with two states": (
        [*clean(), asked("GET", f"/payments/{A}/status", 4.0, 200, {**state(A, 3), "status": "failed"})],
        {Kind.TWO_STATES},
    ),
    "a watcher that missed an event": (without(clean(), seen("x", 2, A, 2)), {Kind.GAP}),
    "a watcher that missed the last event": (without(clean(), seen("x", 6, B, 3)), {Kind.GAP}),
    "a long poll with a gap": ([*clean(), poll(A, 2.0, 1, 3)], {Kind.GAP}),
    "events in another order": (
        [
            seen("x", 2, A, 2)
            if line == seen("x", 1, A, 1)
            else seen("x", 1, A, 1)
            if line == seen("x", 2, A, 2)
            else line
            for line in clean()
        ],
        {Kind.DISORDER, Kind.GAP},
    ),
    "an event that is another to one watcher": (
        [seen("x", 2, B, 2) if line == seen("x", 2, A, 2) else line for line in clean()],
        {Kind.DISORDER},
    ),
    "an event without a webhook": (without(clean(), delivered(A, 2, 4.0)), {Kind.WEBHOOK_LOST}),
    "an event with two webhooks": ([*clean(), delivered(A, 3, 9.0, "other")], {Kind.WEBHOOK_TWICE, Kind.WEBHOOK_ORDER}),
    "webhooks out of order": (
        [*without(clean(), delivered(A, 2, 4.0)), delivered(A, 2, 9.0)],
        {Kind.WEBHOOK_ORDER},
    ),
    "a ledger that does not add up": (
        without(clean(), ledger(A, "payment", 1000)[1]),
        {Kind.LEDGER},
    ),
    "a ledger that says another sum": (
        [*without(clean(), *ledger(A, "payment", 1000)), *ledger(A, "payment", 900)],
        {Kind.LEDGER},
    ),
    "a summary at the end that is wrong": (
        ended(clean(), summary={"default": {"totalRequests": 2, "totalAmount": 19.0}}),
        {Kind.SUMMARY},
    ),
    "a summary that counts what was not asked for": ([*clean(), summary(0.5, 1, 10.0)], {Kind.SUMMARY}),
    "a summary without what was seen": ([*clean(), summary(4.0, 0, 0.0)], {Kind.SUMMARY}),
    "a difference in the books": (ended(clean(), books=["ledger line 1"]), {Kind.BOOKS}),
    "a difference with a processor": (ended(clean(), differences=["missing_here of 1"]), {Kind.DIFFERENCES}),
    "a stack trace in the log": (ended(clean(), traces=["struct.error"]), {Kind.TRACE}),
    "an error of the server": ([*clean(), asked("GET", "/payments-summary", 1.0, 500)], {Kind.ANSWER}),
    "a refund accepted and lost": (
        [*clean(), REFUNDED],
        {Kind.REFUND_LOST},
    ),
    "a refund twice": (with_refund(REFUNDED, KEPT, RETURNED, RETURNED), {Kind.REFUNDED_TWICE}),
    "a refund of nobody": (with_refund(RETURNED), {Kind.REFUND_INVENTED}),
    "a refund that is not in the list": (
        with_refund(REFUNDED, KEPT, RETURNED, asked("GET", f"/payments/{A}/refunds", 5.0, 200, {"items": []})),
        {Kind.STALE},
    ),
    "a message that is never delivered": ([*clean(), push(1.0, 1)], {Kind.QUEUE}),
    "a message again after it was acked": (
        [*clean(), push(1.0, 1), *pop(2, "billing", "l", 1), *pop(2, "stock", "m", 1), *pop(9, "billing", "n", 1)],
        {Kind.QUEUE},
    ),
    "a message that is set aside": ([*clean(), SetAside(kind="push", reason="400")], {Kind.QUEUE}),
    "a dead letter that nobody gave up": (
        [*clean(), DeadLetter(group="billing", partition="p", transaction="producer-0:1")],
        {Kind.QUEUE},
    ),
    "a job that is lost": ([*clean(), JOB], {Kind.JOBS}),
    "a job that never ran": (
        [*clean(), JOB, StoredJob(job="j", status="succeeded", attempts=1)],
        {Kind.JOBS},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str):
    lines, expected = FAULTS[name]

    assert kinds(lines) == expected


# -- What is allowed -----------------------------------------------------------------------------------------------

ASIDE = SetAside(kind="payment", reason="409", payment=A, amount=900)
ALLOWED: dict[str, list[Line]] = {
    "a request sent again": [*clean(), accept(A, 3.0)],
    "a conflict": [*clean(), accept(A, 3.0, 409, amount="9.00")],
    "other content that was accepted and set aside": [*clean(), ASIDE, accept(A, 3.0, amount="9.00")],
    "requests that were cut before their bodies were sent": [
        *clean(),
        asked("POST", "/payments", 1.0, None),
        asked("POST", "/api/v1/ack/batch", 1.0, None),
    ],
    "a request that nobody answered": [*clean(), accept(R, 3.0, None)],
    "an answer that was begun before a later one was complete": [
        *clean(),
        asked("GET", f"/payments/{A}/status", 1.95, 200, state(A, 2)),
    ],
    "a long poll that found nothing new": [*clean(), poll(A, 4.0, after=3)],
    "a summary that counts what was seen": [*clean(), summary(4.0, 2, 20.0)],
    "a watcher whose resume was overtaken": [msgspec.structs.replace(seen("x", 5, B, 2), early=True), *clean()],
    "a webhook that came again": [*clean(), delivered(A, 1, 9.0)],
    "a refund": with_refund(REFUNDED, KEPT, RETURNED),
    "messages that every group read": [
        *clean(), push(1.0, 1, 2), *pop(2, "billing", "l", 1, 2), *pop(2, "stock", "m", 1, 2)
    ],
    "a job that ran": [
        *clean(),
        JOB,
        StoredJob(job="j", status="succeeded", attempts=1),
        Ran(moment=Moment("j", 1, 7, What.BEGAN, 1.0)),
        Ran(moment=Moment("j", 1, 7, What.ENDED, 1.1)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_is_no_fault(name: str):
    assert check(ALLOWED[name]) == []


# -- Purges --------------------------------------------------------------------------------------------------------


def purged() -> list[Line]:
    """A was purged after it had been seen, B came afterwards and has the numbers from 4 on."""
    kept = (line for line in paid(B, 4) if not isinstance(line, Seen) or line.reader == "x")
    return [
        accept(A, 1.0),
        look(A, 3.0, 3),
        *(line for line in paid(A, 1) if isinstance(line, (Booked, Seen, Delivered)) and not is_of_y(line)),
        asked("POST", "/purge-payments", 5.0, 200, {}),
        accept(B, 6.0),
        *kept,
        *(seen("y", 3 + n, B, n, at=7.0) for n in range(1, 4)),
        end(purged_until=3, summary={"default": {"totalRequests": 1, "totalAmount": 10.0}}),
    ]


def is_of_y(line: Line) -> bool:
    return isinstance(line, Seen) and line.reader == "y"


def test_counting_starts_anew_after_a_purge():
    assert check([*purged(), asked("GET", f"/payments/{A}", 7.0, 404), summary(7.0, 1, 10.0)]) == []


def test_a_purge_hides_no_gap_after_it():
    lines = without(purged(), seen("y", 5, B, 2, at=7.0))

    assert kinds(lines) == {Kind.GAP}


def test_a_purge_hides_no_booking_twice():
    lines = [*purged(), Booked(processor="fallback", payment=A, amount=1000)]

    assert kinds(lines) == {Kind.BOOKED_TWICE}


def test_a_payment_that_was_accepted_after_a_purge_is_never_purged():
    assert kinds([*purged(), accept(R, 6.0)]) == {Kind.LOST}
