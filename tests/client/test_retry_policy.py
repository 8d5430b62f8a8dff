"""The client's decisions about tries, pauses, positions and deadlines, without a service: time is a number here."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from registry_client import ConnectionFailed, NotConnected, ProblemDetails, RateLimited, Retry, ServiceUnavailable
from registry_client._position import Position
from registry_client._responses import retry_after
from registry_client._retry import Deadline, Safety, Tries


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def longest(_low: float, high: float) -> float:
    """The longest pause that the jitter may choose."""
    return high


def test_pauses_double_up_to_the_longest():
    tries = Tries(Retry(budget=1000, first=0.5, longest=3), clock=Clock(), jitter=longest)

    assert [tries.pause_after(ConnectionFailed()) for _ in range(5)] == [0.5, 1, 2, 3, 3]


def test_no_try_begins_after_the_budget():
    clock = Clock()
    tries = Tries(Retry(budget=10, first=4, longest=4), clock=clock, jitter=longest)
    first = tries.pause_after(ConnectionFailed())
    clock.now += 6

    assert (first, tries.pause_after(ConnectionFailed())) == (4, None)


def test_a_pause_is_at_least_what_the_service_asks_for():
    asked = ServiceUnavailable(ProblemDetails(status=503), retry_after=7)

    assert Tries(Retry(budget=10), clock=Clock()).pause_after(asked) == 7
    assert Tries(Retry(budget=7), clock=Clock()).pause_after(asked) is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (NotConnected(), True),
        (RateLimited(ProblemDetails(status=429)), True),
        (ConnectionFailed(), False),
        (ServiceUnavailable(ProblemDetails(status=503)), False),
    ],
)
def test_what_must_not_be_executed_twice_is_sent_again_only_if_it_certainly_was_not(error: Exception, again: bool):
    assert (Tries(Retry(first=0), Safety.ONCE, clock=Clock()).pause_after(error) is not None) == again


@pytest.mark.parametrize("value", [{"budget": -1}, {"first": -0.1}, {"longest": -5}])
def test_a_policy_with_negative_times_is_refused(value: dict[str, float]):
    with pytest.raises(ValueError, match="not negative"):
        Retry(**value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("5", 5.0),
        (" 5 ", 5.0),
        ("Tue, 01 Dec 2026 00:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2026 00:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None):
    assert retry_after(header, datetime(2026, 12, 1, tzinfo=UTC)) == seconds


def test_a_deadline_gives_its_rest_to_requests_but_tries_nothing_again_for_a_client_that_does_not():
    clock = Clock()
    patient, strict = (Deadline(30, Retry(budget=budget), clock=clock) for budget in (5, 0))
    clock.now += 10

    assert (patient.left, patient.retry.budget, strict.retry.budget) == (20, 20, 0)
    clock.now += 100
    assert patient.left == 0


# -- Positions -------------------------------------------------------------------------------------------------------


class Stream:
    """A service's numbered events, some of which were removed, and a reader that asks for what is missing."""

    def __init__(self, numbers: list[int], position: Position) -> None:
        self.numbers, self.position = numbers, position
        self.read: list[int] = []
        self.resumes = 0

    def offer(self, number: int) -> None:
        if self.position.takes(number):
            self.read.append(number)
        while self.position.lacks_events:
            self.resume()

    def resume(self) -> None:
        self.resumes += 1
        after = self.position.starts_resume()
        for number in self.numbers:
            if number > after and self.position.takes(number):
                self.read.append(number)
        self.position.ends_resume()


@given(
    some.sets(some.integers(1, 60), min_size=1),
    some.lists(some.integers(1, 60), max_size=40),
    some.integers(0, 30),
)
def test_each_number_is_read_once_and_in_order_whatever_arrives_early_or_twice(
    existing: set[int], arriving: list[int], after: int
):
    """Whatever a connection brings before its resume, the reader has everything above its number once it has the latest."""
    numbers = sorted(existing)
    stream = Stream(numbers, Position(after))
    for number in arriving:
        if number in existing:
            stream.offer(number)

    stream.resume()
    while stream.position.lacks_events:
        stream.resume()

    assert stream.read == [number for number in numbers if number > after]


def test_a_reader_without_a_number_begins_with_the_first_event_it_gets():
    stream = Stream([1, 2, 3, 4, 5], Position())
    for number in (3, 5, 4):
        stream.offer(number)

    assert stream.read == [3, 4, 5]


def test_removed_numbers_cost_one_resume_per_gap():
    stream = Stream([*range(1, 5), *range(100, 110), *range(500, 510)], Position(0))

    stream.resume()
    while stream.position.lacks_events:
        stream.resume()

    assert (stream.read, stream.resumes) == (stream.numbers, 3)
