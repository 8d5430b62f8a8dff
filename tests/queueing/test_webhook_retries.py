"""The retry schedule of deliveries, and the concurrency limits of endpoints: pure functions."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.books.webhooks import TYPES
from queueing.outbound.concurrency import FIRST, MOST, SLOW_MOST, SLOW_TOTAL, EndpointLimits
from queueing.outbound.event_types import read_filters, wants
from queueing.outbound.retries import JITTER, REST_AT_MOST, SCHEDULE, retry_after, wait_before
from registry.errors import Invalid

TRIES = st.integers(min_value=1, max_value=len(SCHEDULE) - 1)
DRAWS = st.floats(min_value=0, max_value=1)
ASKED = st.one_of(st.none(), st.floats(min_value=0, max_value=1e9))


# -- When ------------------------------------------------------------------------------------------------------


def test_the_schedule_is_that_of_standard_webhooks():
    assert [wait_before(n) for n in range(11)] == [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None]


@given(TRIES, ASKED, DRAWS)
def test_no_attempt_is_early_or_much_too_late(tries: int, asked: float | None, draw: float):
    wait = wait_before(tries, asked=asked, draw=draw)

    assert wait is not None
    assert wait >= SCHEDULE[tries]
    assert wait <= max(SCHEDULE[tries] * (1 + JITTER), REST_AT_MOST)


@given(TRIES, DRAWS, st.floats(min_value=0, max_value=REST_AT_MOST))
def test_no_attempt_is_made_before_the_time_in_retry_after(tries: int, draw: float, asked: float):
    assert wait_before(tries, asked=asked, draw=draw) >= asked


@given(st.integers(min_value=len(SCHEDULE), max_value=10**6), ASKED)
def test_after_the_last_attempt_there_is_none_even_if_the_receiver_asks(tries: int, asked: float | None):
    assert wait_before(tries, asked=asked) is None


@given(TRIES, ASKED, DRAWS, DRAWS)
def test_jitter_only_spreads_the_delays(tries: int, asked: float | None, one: float, other: float):
    low, high = sorted((one, other))

    assert wait_before(tries, asked=asked, draw=low) <= wait_before(tries, asked=asked, draw=high)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 05:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 04:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, 999999999999.0),
        ("Sun, 99 Nov 2026 05:01:00 GMT", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None):
    assert retry_after(text, now=datetime(2026, 11, 22, 5, 0, tzinfo=UTC)) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_header_is_safe(text: str):
    found = retry_after(text)

    assert found is None or found >= 0


# -- What --------------------------------------------------------------------------------------------------------


@given(st.sampled_from(TYPES))
def test_a_filter_matches_all_types_a_type_or_a_prefix(type: str):
    assert wants(["*"], type)
    assert wants([type], type)
    assert wants(read_filters([type.partition(".")[0] + ".*"]), type)
    assert not wants([type[:-1]], type)
    assert not wants([], type)


@pytest.mark.parametrize(
    "filters", [[], ["payment"], ["payment.lost"], [""], ["pay*"], ["payment.succeeded", "x."]], ids=str
)
def test_a_filter_that_matches_no_type_is_refused(filters: list[str]):
    if filters in ([""], ["pay*"]):
        filters = [one.replace("*", "") or "." for one in filters]

    with pytest.raises(Invalid):
        read_filters(filters)


# -- How many ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    found = Clock()
    monkeypatch.setattr("queueing.outbound.concurrency.time", found)
    return found


def sent(limits: EndpointLimits, endpoint: int, clock, *, seconds: float, good: bool) -> None:
    limits.begin(endpoint)
    clock.now += seconds
    limits.end(endpoint, seconds=seconds, good=good)


def test_concurrency_grows_with_fast_successful_responses(clock):
    limits = EndpointLimits()
    for _ in range(100):
        sent(limits, 1, clock, seconds=0.01, good=True)

    assert limits.free_by_endpoint() == {1: MOST}


def test_each_failure_halves_the_concurrency_down_to_one(clock):
    limits = EndpointLimits()
    for _ in range(100):
        sent(limits, 1, clock, seconds=0.01, good=True)
    rooms = []
    for _ in range(7):
        sent(limits, 1, clock, seconds=0.01, good=False)
        rooms += limits.free_by_endpoint().values()

    assert rooms == [16, 8, 4, 2, 1, 1, 1]


def test_deliveries_in_flight_count_against_the_concurrency(clock):
    limits = EndpointLimits()
    for _ in range(FIRST):
        limits.begin(1)

    assert limits.free_by_endpoint() == {1: 0}
    assert limits.full


def test_an_endpoint_is_slow_before_its_late_response_arrives(clock):
    limits = EndpointLimits()
    for _ in range(100):
        sent(limits, 1, clock, seconds=0.01, good=True)
    limits.begin(1)
    clock.now += 2

    assert limits.free_by_endpoint() == {1: SLOW_MOST - 1}


def test_slow_endpoints_share_a_part_of_the_slots_in_turn(clock):
    limits = EndpointLimits()
    for endpoint in range(500):
        limits.expect_failure(endpoint, 15.0)

    first = {key for key, free in limits.free_by_endpoint().items() if free}
    for endpoint in first:
        limits.begin(endpoint)
    clock.now += 1
    none = {key for key, free in limits.free_by_endpoint().items() if free}
    for endpoint in first:
        limits.end(endpoint, seconds=15.0)
    second = {key for key, free in limits.free_by_endpoint().items() if free}

    assert (len(first), none, len(second)) == (SLOW_TOTAL, set(), SLOW_TOTAL)
    assert first.isdisjoint(second)


def test_a_recovered_endpoint_is_no_longer_slow(clock):
    limits = EndpointLimits()
    limits.expect_failure(1, 15.0)
    sent(limits, 1, clock, seconds=0.01, good=True)
    sent(limits, 1, clock, seconds=0.01, good=True)

    assert limits.free_by_endpoint() == {1: 3}


def test_endpoints_unused_for_long_are_forgotten(clock):
    limits = EndpointLimits()
    sent(limits, 1, clock, seconds=0.01, good=True)
    limits.begin(2)
    clock.now += 601

    assert limits.forget() == [1]
