"""The circuit breaker: in every order of events, half open over HTTP, and shared between workers."""

import asyncio
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from payments.processors import http
from payments.processors.base import Outcome, Result
from payments.routing.routing import RoutingTable
from payments.settle import decisions
from registry.data import database
from registry.data.breaker import FAILURES, LONGEST_PAUSE, PROBE_LOST_AFTER, Breaker, BreakerState
from tests.conftest import eventually
from tests.depth import deep
from tests.settling import accept, count, until, until_settled


class EveryOrderOfEvents(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 100.0
        self.in_a_row = 0
        self.probe_sent_at: float | None = None

    @rule(seconds=st.floats(0.01, 12.0))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def a_send_succeeds(self):
        self.breaker.succeeded()
        self.in_a_row, self.probe_sent_at = 0, None
        assert self.breaker.state is BreakerState.CLOSED

    @rule()
    def a_send_fails(self):
        was = self.breaker.state
        self.in_a_row += 1
        self.breaker.failed(self.now, payment=self.in_a_row)
        self.probe_sent_at = None
        if was is BreakerState.HALF_OPEN or self.in_a_row >= FAILURES:
            assert self.breaker.state is BreakerState.OPEN
        if was is BreakerState.HALF_OPEN:
            assert not self.breaker.allows(self.now)

    @precondition(lambda self: self.breaker.is_probe() and self.breaker.allows(self.now))
    @rule()
    def a_probe_is_sent(self):
        self.breaker.probing(self.now)
        self.probe_sent_at = self.now
        assert not self.breaker.allows(self.now)

    @rule()
    def another_worker_opens_it(self):
        self.breaker.trip(self.now)
        assert self.breaker.state is not BreakerState.CLOSED

    @rule()
    def another_worker_closes_it(self):
        self.breaker.reset()
        self.in_a_row, self.probe_sent_at = 0, None
        assert self.breaker.allows(self.now)

    @precondition(lambda self: self.breaker.state is BreakerState.OPEN)
    @rule()
    def the_endpoint_says_that_it_is_well(self):
        self.breaker.recovered(self.now)
        assert self.breaker.allows(self.now)

    @invariant()
    def closed_means_allowed(self):
        assert self.breaker.state is not BreakerState.CLOSED or self.breaker.allows(self.now)

    @invariant()
    def a_probe_on_its_way_is_the_only_one_until_it_is_lost(self):
        if self.breaker.state is BreakerState.HALF_OPEN and self.probe_sent_at is not None:
            assert self.breaker.allows(self.now) == (self.now >= self.probe_sent_at + PROBE_LOST_AFTER)

    @invariant()
    def it_never_stays_shut_for_good(self):
        assert self.breaker.allows(self.now + PROBE_LOST_AFTER + LONGEST_PAUSE * 1.2)


TestEveryOrderOfEvents = EveryOrderOfEvents.TestCase
TestEveryOrderOfEvents.settings = settings(max_examples=deep(20, 500), stateful_step_count=30, deadline=None)


# -- Over HTTP -------------------------------------------------------------------------------------------------


async def test_an_open_breaker_lets_a_single_payment_through_however_many_wait(
    tenant, quick, worker, default, monkeypatch
):
    monkeypatch.setattr(decisions, "LONGEST_BACKOFF", 0.1)
    default.says_of_its_health(failing=False)
    default.answers(500)
    await accept(tenant, 40)
    await eventually(lambda: _is_open(default))
    answered = await eventually(lambda: _quiet(default))

    default.delays(200)  # the probe is on its way for that long, while all the others are due
    await eventually(lambda: len(default.received) > answered)
    most = 0
    async with asyncio.timeout(5):
        while default.in_progress:
            most = max(most, default.in_progress)
            await asyncio.sleep(0.005)
    default.recovers()
    await until_settled(tenant)

    assert most == 1


async def test_uncertain_payments_respect_the_open_breaker_too(tenant, quick, worker, default, monkeypatch):
    monkeypatch.setattr(decisions, "LONGEST_BACKOFF", 0.1)
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.6)
    default.says_of_its_health(failing=False)
    default.resets_connections(books=False)
    await accept(tenant, 40)
    await until(tenant, "uncertain")
    await eventually(lambda: _is_open(default))
    answered = await eventually(lambda: _quiet(default))

    default.delays(200)
    await eventually(lambda: len(default.received) > answered)
    most = 0
    async with asyncio.timeout(5):
        while default.in_progress:
            most = max(most, default.in_progress)
            await asyncio.sleep(0.005)
    default.recovers()
    await until_settled(tenant)

    assert most == 1
    assert len(default.booked) == 40


async def _breaker(processor) -> str:
    rows = await database.fetch("SELECT breaker FROM payments_endpoint WHERE key = %s", [f"http:{processor.url}"])
    return rows[0][0] if rows else ""


async def _is_open(processor) -> bool:
    return await _breaker(processor) == "open"


async def _quiet(processor) -> int:
    """How much it received by now, once that has not grown for a moment."""
    before = len(processor.received)
    await asyncio.sleep(0.1)
    return before if len(processor.received) == before else 0


# -- Shared ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def tables(tenant, default):
    """What two workers know of the same tenant."""
    pair = RoutingTable(), RoutingTable()
    for routes in pair:
        await routes.load({tenant.pk})
        await routes.share()
    return pair


def _endpoint(routes: RoutingTable, default):
    return routes.endpoints[f"http:{default.url}"]


ILL, WELL = Outcome(Result.NOT_BOOKED, healthy=False), Outcome(Result.BOOKED)


def _answers(routes: RoutingTable, tenant, outcome: Outcome, count: int = 1) -> None:
    """`count` different payments of `tenant` are answered so."""
    [(account, endpoint)] = routes.of(tenant.pk)
    for payment in range(count):
        endpoint.answered(0, account, payment, outcome, ms=100, now=time.monotonic())


async def test_a_breaker_opened_by_one_worker_opens_and_closes_in_the_others(tables, tenant, default):
    _mine, other = (_endpoint(routes, default) for routes in tables)

    _answers(tables[0], tenant, ILL, FAILURES)
    for routes in tables:
        await routes.share()
    opened = other.breaker.state
    _answers(tables[0], tenant, WELL)
    for routes in tables:
        await routes.share()

    assert (opened, other.breaker.state) == (BreakerState.OPEN, BreakerState.CLOSED)


async def test_a_worker_without_observations_does_not_overwrite_those_of_another(tables, tenant, default):
    mine, other = (_endpoint(routes, default) for routes in tables)

    _answers(tables[0], tenant, ILL, FAILURES)
    await tables[0].share()
    for _ in range(3):
        await tables[1].share()
        await tables[0].share()

    assert (mine.breaker.state, other.breaker.state, await _breaker(default)) == (
        BreakerState.OPEN,
        BreakerState.OPEN,
        "open",
    )


async def test_a_change_while_the_last_one_is_being_shared_is_shared_next(tables, tenant, default):
    _answers(tables[0], tenant, ILL, FAILURES)

    async with database.transaction() as conn:
        await conn.execute("SELECT 1 FROM payments_endpoint FOR UPDATE")
        sharing = asyncio.create_task(tables[0].share())
        await eventually(lambda: _waits_for_a_lock())
        _answers(tables[0], tenant, WELL)
    await sharing
    await tables[0].share()

    assert await _breaker(default) == "closed"


async def _waits_for_a_lock() -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return (await database.fetch(sql))[0][0] > 0


async def test_a_breaker_that_opens_stops_all_sending_and_its_payments_just_wait(tenant, quick, worker, default):
    default.says_of_its_health(failing=False)
    default.answers(500)

    await accept(tenant, 50)
    await eventually(lambda: _is_open(default))
    await eventually(lambda: _quiet(default))
    failed = await count(tenant, "failed", "uncertain", "processing")
    default.recovers()
    await until_settled(tenant)

    assert failed == 0
    assert len(default.booked) == 50
