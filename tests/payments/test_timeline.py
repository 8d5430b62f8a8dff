"""The timeline of a payment's page: states in order, attempts where they were made, repetitions folded."""

from datetime import UTC, datetime, timedelta
from typing import Any

from payments.books.history import HistoryAttempt, HistoryEvent
from payments.pages.timeline import payers_timeline, timeline
from payments.states import FAILED, PROCESSING, QUEUED, SUCCEEDED, UNCERTAIN, Status

AT = datetime(2026, 7, 15, 12, tzinfo=UTC)
CHEAPEST, IN_DOUBT = "cheapest, 5 % fee", "same processor: the outcome of an earlier send is unknown"


def event(number: int, status: Status, attempt: int = 0, detail: str = "", kind: str = "") -> HistoryEvent:
    at = AT + timedelta(seconds=number)
    return HistoryEvent(sequence=number, at=at, status=status, detail=detail, kind=kind, attempt=attempt)


def attempt(number: int, outcome: str, code: str = "", *, reason: str = CHEAPEST, **more: Any) -> HistoryAttempt:
    fields: dict[str, Any] = {"processor": "default", "requested_at": AT, "latency_ms": 7, **more}
    return HistoryAttempt(
        number=number, reason=reason, outcome=outcome, code=code, started_at=AT + timedelta(seconds=number), **fields
    )


def look_up(number: int, outcome: str = "unknown", code: str = "not_there_yet") -> HistoryAttempt:
    return attempt(number, outcome, code, reason=IN_DOUBT)


def told(steps: list[Any]) -> list[tuple[str, list[str]]]:
    return [(step.word, [tries.label for tries in step.attempts]) for step in steps]


def test_each_attempt_stands_under_the_state_that_sent_it():
    events = [event(1, QUEUED), event(2, PROCESSING, 1, CHEAPEST), event(3, SUCCEEDED, 1)]

    steps = timeline(events, [attempt(1, "booked", "http_200")])

    assert told(steps) == [("Accepted", []), ("Processing", ["Attempt 1 at default"]), ("Succeeded", [])]
    assert (steps[1].detail, steps[1].attempts[0].word) == ("", "booked")


def test_look_ups_of_a_payment_in_doubt_are_folded_between_the_doubt_and_its_end():
    events = [
        event(1, QUEUED),
        event(2, PROCESSING, 1, CHEAPEST),
        event(3, UNCERTAIN, 1, "default gave no clear answer (timeout)"),
        event(4, SUCCEEDED, 16, "Booked at default"),
    ]
    attempts = [attempt(1, "unknown", "timeout"), *map(look_up, range(2, 16)), look_up(16, "booked", "looked_up")]

    steps = timeline(events, attempts)

    assert told(steps) == [
        ("Accepted", []),
        ("Processing", ["Attempt 1 at default"]),
        ("Uncertain", ["Attempts 2–15 at default", "Attempt 16 at default"]),
        ("Succeeded", []),
    ]
    folded = steps[2].attempts[0]
    assert (folded.repeated, folded.at) == ("asked 14 times", AT + timedelta(seconds=15))


def test_a_look_up_in_progress_counts_with_those_before_it():
    events = [event(1, QUEUED), event(2, PROCESSING, 1, CHEAPEST), event(3, UNCERTAIN, 1)]

    steps = timeline(events, [attempt(1, "unknown", "timeout"), look_up(2), look_up(3), look_up(4, "", "")])

    assert [(tries.label, tries.word) for tries in steps[2].attempts] == [
        ("Attempts 2–4 at default", "no clear answer: not known there yet")
    ]


def rounds(first: int, count: int, code: str = "http_500") -> tuple[list[HistoryEvent], list[HistoryAttempt]]:
    """Attempts that were not booked, from this one on."""
    events, attempts = [], []
    for number in range(first, first + count):
        events.append(event(2 * number, PROCESSING, number, f"reason {number}"))
        events.append(event(2 * number + 1, QUEUED, number, f"Not booked at default ({code})"))
        attempts.append(attempt(number, "not_booked", code, reason=f"reason {number}"))
    return events, attempts


def test_rounds_that_end_alike_are_folded_and_the_states_stay_in_order():
    retried, attempts = rounds(1, 24)
    events = [event(1, QUEUED), *retried, event(50, PROCESSING, 25, CHEAPEST), event(51, FAILED, 25, "Gave up")]

    steps = timeline(events, [*attempts, attempt(25, "not_booked", "http_500")])

    assert told(steps) == [
        ("Accepted", []),
        ("Processing", ["Attempts 1–24 at default"]),
        ("Queued", []),
        ("Processing", ["Attempt 25 at default"]),
        ("Failed", []),
    ]
    assert (steps[1].attempts[0].repeated, steps[1].attempts[0].reason) == ("tried 24 times", "reason 24")
    assert [step.sequence for step in steps] == sorted(step.sequence for step in steps)


def test_rounds_that_end_otherwise_are_not_folded():
    first, one = rounds(1, 2)
    second, two = rounds(3, 2, "http_503")

    steps = timeline([event(1, QUEUED), *first, *second], [*one, *two])

    assert [tries.label for step in steps for tries in step.attempts] == [
        "Attempts 1–2 at default",
        "Attempts 3–4 at default",
    ]


def test_the_timeline_names_refunds_and_disputes():
    events = [
        event(1, QUEUED),
        event(2, SUCCEEDED, 1),
        event(3, SUCCEEDED, 1, "Refunded at sandbox", "refund.returned"),
        event(4, SUCCEEDED, 1, "The payer's bank disputes 5.00 BRL", "dispute.opened"),
    ]

    *_, refund, dispute = timeline(events, [])

    assert (refund.word, refund.detail) == ("Refunded", "Refunded at sandbox")
    assert (dispute.word, dispute.look.colour) == ("Disputed", "amber")


def test_the_payers_timeline_has_states_alone():
    retried, _ = rounds(1, 5)
    money = [
        event(12, PROCESSING, 6, CHEAPEST),
        event(13, SUCCEEDED, 6, "Booked at default"),
        event(14, SUCCEEDED, 6, "Refund of 5.00 BRL requested", "refund.created"),
        event(15, SUCCEEDED, 6, "Refunded at default", "refund.returned"),
        event(16, SUCCEEDED, 6, "The payer's bank disputes 5.00 BRL", "dispute.opened"),
    ]

    steps = payers_timeline([event(1, QUEUED), *retried, *money])

    assert told(steps) == [
        (word, []) for word in ("Accepted", "Processing", "Queued", "Processing", "Succeeded", "Refunded")
    ]
    assert {step.detail for step in steps} == {""}
