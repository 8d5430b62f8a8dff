"""Routing: the choice of a processor with its reason, with several workers, tenants and outages."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.models import Endpoint as EndpointRow
from payments.processors.base import Account, Health, Outcome, Result
from payments.processors.http import LONGEST_SAID
from payments.routing import routing
from payments.routing.endpoint import EndpointCondition
from payments.routing.pace import OVERDUE_MS, SEVERAL, next_number
from payments.routing.routing import choose
from payments.settle.concurrency import Slots
from payments.settle.work import PaymentWork
from registry.data import database
from registry.data.breaker import Breaker, BreakerState
from tests.bed import HttpProcessor
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, configure, count, hasten, payments, tries, until_settled

NOW = 1000.0


# -- The choice by itself -----------------------------------------------------------------------------------


@st.composite
def pairs(draw):
    """A tenant's accounts, cheapest first, each with an endpoint in some condition."""
    fees = sorted(draw(st.lists(st.integers(0, 300_000), min_size=0, max_size=5)))
    return [(_account(f"p{n}", fee, draw(st.booleans())), draw(endpoints())) for n, fee in enumerate(fees)]


def _account(name: str, fee: int = 50_000, enabled: bool = True, tenant: int = 1) -> Account:
    return Account(
        id=hash((tenant, name)), tenant_id=tenant, name=name, kind="http", url="", fee_ppm=fee, options={},
        enabled=enabled, endpoint=name,
    )  # fmt: skip


def answers(endpoint: EndpointCondition, account: Account, *ms: float, now: float = NOW) -> None:
    """One payment after another was booked, each after so many ms; the last one just now."""
    for one in ms:
        endpoint.answered(next_number(), account, one, Outcome(Result.BOOKED), ms=one, now=now)


@st.composite
def endpoints(draw):
    state = draw(st.sampled_from(BreakerState))
    breaker = Breaker(state=state, probe_at=NOW + draw(st.sampled_from([-1.0, 1.0])))
    speed = draw(st.integers(0, 3000))
    return EndpointCondition(
        "e", breaker=breaker, failing=draw(st.booleans()), min_response_ms=speed, polled_at=NOW - 1
    )


@given(pairs(), st.sampled_from(["", "p0", "p3", "nobody"]))
def test_a_chosen_processor_can_be_sent_to(accounts, wanted):
    able = [a.name for a, e in accounts if a.enabled and e.allows(a.id, NOW) and wanted in ("", a.name)]

    route = choose(accounts, wanted=wanted, now=NOW)

    assert (route is None) == (not able)
    assert route is None or route.account.name in able


@given(pairs())
def test_a_dearer_processor_is_chosen_only_where_cheaper_ones_try_the_tenants_patience(accounts):
    able = [(a, e) for a, e in accounts if a.enabled and e.allows(a.id, NOW)]
    speeds = {a.name: e.expected_ms(a.id, NOW) for a, e in able}

    route = choose(accounts, now=NOW)

    for account, _ in able:
        if account.name == route.account.name:
            break
        assert speeds[account.name] > account.patience_ms
        assert speeds[route.account.name] < speeds[account.name] or "probe" in route.reason


@given(pairs())
def test_an_open_breaker_lets_one_payment_through_as_a_probe(accounts):
    first, second = choose(accounts, now=NOW), choose(accounts, now=NOW)

    if first and first.reason.startswith("probe"):
        assert second is None or second.account is not first.account


@given(pairs())
def test_every_choice_has_a_reason_that_names_what_was_passed_over(accounts):
    route = choose(accounts, now=NOW)

    if (
        route
        and route.account.fee_ppm > accounts[0][0].fee_ppm
        and accounts[0][0].enabled
        and "probe" not in route.reason
    ):
        assert route.reason.startswith("p")
    assert route is None or 0 < len(route.reason) <= 200


@given(st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=60))
def test_an_expected_delay_needs_several_measured_payments(measured):
    endpoint, account = EndpointCondition("e"), _account("e")

    answers(endpoint, account, *sorted(measured, reverse=True))  # in the order in which they began

    assert 0 <= endpoint.pace.usual_ms <= max(measured) + 1e-6
    latest = sorted(measured)[:SEVERAL]
    assert endpoint.expected_ms(account.id, NOW) == (latest[0] if len(latest) == SEVERAL else 0)


def test_one_slow_payment_does_not_make_the_processor_slow():
    endpoint, account = EndpointCondition("e"), _account("e")
    answers(endpoint, account, *[5.0] * 20)

    answers(endpoint, account, 5000.0)

    assert not endpoint.is_slow(account, NOW)


def test_a_payment_without_a_response_is_ignored_once_a_later_one_has_one():
    endpoint, account = EndpointCondition("e"), _account("e")
    for n in range(SEVERAL):
        endpoint.sent(account, NOW + n / 1000)
    before = endpoint.is_slow(account, NOW + 1)

    number = endpoint.sent(account, NOW + 0.9)
    endpoint.answered(number, account, "p", Outcome(Result.BOOKED), ms=5, now=NOW + 0.905)

    assert (before, endpoint.is_slow(account, NOW + 1)) == (True, False)


def test_answers_that_are_overdue_make_it_slow_before_patience_ends():
    endpoint, account = EndpointCondition("e"), _account("e")
    answers(endpoint, account, *[5.0] * SEVERAL)

    for _ in range(SEVERAL):
        endpoint.sent(account, NOW)

    assert not endpoint.is_slow(account, NOW + OVERDUE_MS / 1000 - 0.001)
    assert endpoint.is_slow(account, NOW + OVERDUE_MS / 1000 + 0.001)


def test_a_report_of_a_slow_processor_is_tested_with_one_payment():
    endpoint, account, dear, other = (
        EndpointCondition("e"),
        _account("e"),
        _account("dear", 90_000),
        EndpointCondition("dear"),
    )
    answers(endpoint, account, *[5000.0] * SEVERAL)
    endpoint.health_reported(Health(failing=False, min_response_ms=2000), NOW)
    pairs = [(account, endpoint), (dear, other)]
    while_it_says_slow = [choose(pairs, now=NOW + n).account.name for n in range(5)]

    endpoint.health_reported(Health(failing=False, min_response_ms=10), NOW + 5)
    then = [choose(pairs, now=NOW + 5.1) for _ in range(3)]
    answers(endpoint, account, 10.0, now=NOW + 5.2)

    assert while_it_says_slow == ["dear"] * 5
    assert [route.account.name for route in then] == ["e", "dear", "dear"]
    assert then[0].reason == "probe: is e fast again?"
    assert choose(pairs, now=NOW + 5.2).account.name == "e"


def test_a_patient_tenant_stays_at_the_cheap_processor():
    endpoint, account = EndpointCondition("e"), _account("e")
    answers(endpoint, account, *[2000.0] * SEVERAL)
    pairs = [
        (msgspec.structs.replace(account, patience_ms=2500), endpoint),
        (_account("dear", 90_000), EndpointCondition("dear")),
    ]

    assert choose(pairs, now=NOW).account.name == "e"


@pytest.mark.parametrize("ill", ["slow", "failing"])
def test_no_payment_waits_for_the_slot_of_a_probe(ill):
    endpoint, account, dear = EndpointCondition("e"), _account("e"), _account("dear", 90_000)
    if ill == "slow":
        answers(endpoint, account, *[5000.0] * SEVERAL)
    else:
        endpoint.breaker.trip(NOW - 60)
    pairs = [(account, endpoint), (dear, EndpointCondition("dear"))]

    while_full = choose(pairs, now=NOW, full=lambda one: one is account)

    assert while_full == routing.Route(dear, while_full.reason)
    assert choose(pairs, now=NOW).reason.startswith("probe")
    assert choose(pairs, now=NOW).account is dear


def test_a_breaker_is_not_probed_with_a_payment_while_the_processor_says_that_it_is_slow():
    endpoint, account, dear = EndpointCondition("e"), _account("e"), _account("dear", 90_000)
    endpoint.breaker.trip(NOW - 60)
    endpoint.health_reported(Health(failing=False, min_response_ms=2000), NOW)
    alone, both = [(account, endpoint)], [(account, endpoint), (dear, EndpointCondition("dear"))]

    while_slow = [choose(both, now=NOW + n).account.name for n in range(5)]
    endpoint.health_reported(Health(failing=False, min_response_ms=10), NOW + 5)

    assert while_slow == ["dear"] * 5
    assert choose(both, now=NOW + 5.1).reason == "probe: has e recovered?"
    endpoint.health_reported(Health(failing=False, min_response_ms=2000), NOW + 20)
    assert choose(alone, now=NOW + 20).account is account


def test_a_payment_without_a_slot_waits_for_the_tenants_patience_and_then_uses_the_next_processor():
    pairs = [(_account("e"), EndpointCondition("e")), (_account("dear", 90_000), EndpointCondition("dear"))]

    def choice(waited: float, *full: str):
        return choose(pairs, now=NOW, waited=waited, full=lambda account: account.name in full)

    assert choice(0.0, "e") == routing.Wait(0.3)
    assert choice(0.29, "e") == routing.Wait(pytest.approx(0.01))
    assert choice(0.31, "e") == routing.Route(pairs[1][0], "e has no free slot")
    assert choice(0.31, "e", "dear") is None


def test_a_patient_payment_is_retried_for_a_slot_until_the_patience_ends():
    pairs = [(msgspec.structs.replace(_account("e"), patience_ms=60_000), EndpointCondition("e"))]

    looks, waited = 0, 0.0
    while isinstance(wait := choose(pairs, now=NOW, waited=waited, full=lambda _: True), routing.Wait):
        assert 0 < wait.seconds <= max(routing.SLOT_EVERY, waited / 2)
        waited, looks = waited + wait.seconds, looks + 1

    assert (waited, wait) == (60.0, None)
    assert looks < 20


# -- Over HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_polls(monkeypatch, default, fallback):
    """A health call in 0.1 s where there would be one in 5 s, and a larger share of that for a busy machine."""
    hasten(monkeypatch)
    monkeypatch.setattr(routing, "POLL_EVERY", 0.15)
    default.health_every = fallback.health_every = 0.1


async def known(name: str, tenant, **expected) -> None:
    """Wait until the workers share that knowledge of the endpoint."""

    async def so() -> bool:
        await database.release()
        processor = (await in_thread(lambda: tenant.processors.get(name=name))).endpoint
        rows = [row async for row in EndpointRow.async_objects.filter(key=processor)]
        await database.release()
        return bool(rows) and all(getattr(rows[0], field) == value for field, value in expected.items())

    await eventually(so)


async def test_one_caller_polls_the_health_however_many_workers_run(monkeypatch, default, quick_polls):
    tenants = [await in_thread(make_tenant) for _ in range(3)]
    for tenant in tenants:
        await in_thread(make_processor, tenant, "default", kind="http", url=default.url)

    async with AsyncExitStack() as workers:
        for _ in range(4):
            await workers.enter_async_context(at_work())
        for _ in range(8):  # enough for every worker to have had payments of some tenant
            for tenant in tenants:
                await accept(tenant, 10)
        await eventually(lambda: len(default.health_calls) >= 5)
        for tenant in tenants:
            await until_settled(tenant)

    gaps = [later - earlier for earlier, later in zip(default.health_calls, default.health_calls[1:], strict=False)]
    assert min(gaps) >= default.health_every
    assert default.health_refused == 0


async def test_a_health_call_that_hangs_is_not_made_twice(monkeypatch, tenant, default, quick_polls):
    arrived, release = [], asyncio.Event()

    async def hangs() -> bytes:
        arrived.append(1)
        await release.wait()
        return HttpProcessor.state_of_health(default)

    monkeypatch.setattr(default, "health", hangs)
    async with at_work():
        await accept(tenant, 5)
        await until_settled(tenant)
        await eventually(lambda: arrived)
        first = len(arrived)
        release.set()

    assert first == 1


async def test_a_slow_processor_is_left_for_a_faster_one_with_the_reason_written_down(
    tenant, quick_polls, worker, default, fallback
):
    await accept(tenant)
    await until_settled(tenant)
    default.says_of_its_health(min_response_ms=1500)
    await known("default", tenant, min_response_ms=1500)

    [one] = await accept(tenant)
    await until_settled(tenant)

    assert list(fallback.booked) == [str(one)]
    assert (await tries(one))[0].reason == "default needs 1500 ms, fallback 0 ms"


@pytest.mark.parametrize(("said", "taken_for"), [(10**12, LONGEST_SAID), (-5, 0)])
async def test_a_reported_delay_beyond_any_number_is_accepted(tenant, quick_polls, worker, default, said, taken_for):
    default.says_of_its_health(failing=True, min_response_ms=said)
    await accept(tenant)

    await known("default", tenant, failing=True, min_response_ms=taken_for)


async def test_a_slightly_slower_processor_keeps_its_payments_for_its_lower_fee(
    tenant, quick_polls, worker, default, fallback
):
    await accept(tenant)
    await until_settled(tenant)
    default.says_of_its_health(min_response_ms=300)
    await known("default", tenant, min_response_ms=300)

    await accept(tenant, 5)
    await until_settled(tenant)

    assert not fallback.received


async def test_answers_that_grow_slow_move_payments_before_any_poll_says_so(tenant, quick, worker, default, fallback):
    default.delays(450)

    for _ in range(8):
        await accept(tenant, 5)
        await until_settled(tenant)

    assert fallback.booked
    reasons = {(await tries(one))[0].reason for one in fallback.booked}
    assert all(reason.startswith("default needs ") for reason in reasons)


async def test_payments_leave_a_processor_that_does_not_answer_long_before_it_does(tenant, worker, default, fallback):
    default.says_of_its_health()  # that all is well
    default.delays(5000)
    await accept(tenant, SEVERAL)
    await eventually(lambda: len(default.received) == SEVERAL)
    await asyncio.sleep(0.31)  # what the tenant's patience is

    await accept(tenant, 20)

    await eventually(lambda: len(fallback.booked) >= 19, within=4)  # one may be a probe
    assert not default.booked
    assert len(default.received) <= SEVERAL + 1


async def test_a_payment_without_a_slot_stays_queued_for_the_tenants_patience(tenant, default, fallback):
    await in_thread(lambda: type(tenant).objects.update(patience=60_000))
    await accept(tenant, 6)
    work = PaymentWork(Slots(8, 8))

    first, second = await work.claim(1, 6), await work.claim(1, 6)
    await database.fetch("UPDATE payments_payment SET created_at = now() - interval '1 minute', run_at = now()")
    third = await work.claim(1, 6)
    await work.close()

    assert [claim.account.name for claim in first] == ["default"] * 4
    assert second == []
    assert [claim.account.name for claim in third] == ["fallback"] * 2
    assert {claim.reason for claim in third} == {"default has no free slot"}


async def test_patience_with_a_payment_that_was_scheduled_begins_at_its_date(tenant, default, fallback):
    await in_thread(lambda: type(tenant).objects.update(patience=60_000))
    await accept(tenant, 6)
    await database.fetch("UPDATE payments_payment SET created_at = now() - interval '1 day', scheduled_for = now()")
    work = PaymentWork(Slots(8, 8))

    claimed = await work.claim(1, 6)
    await work.close()

    assert [claim.account.name for claim in claimed] == ["default"] * 4


async def test_a_failed_claim_holds_no_slots(tenant, default):
    await accept(tenant, 3)
    work = PaymentWork(Slots(8, 8))

    with pytest.raises(OverflowError):  # as it is written down
        await work.claim(2**63, 3)
    await work.close()

    assert work.slots.free(tenant.pk, f"http:{default.url}") == 4


async def test_during_an_outage_of_all_processors_payments_wait_and_then_settle(
    tenant, quick_polls, worker, default, fallback
):
    await accept(tenant)
    await until_settled(tenant)
    for processor in (default, fallback):
        processor.fails()
    for name in ("default", "fallback"):
        await known(name, tenant, failing=True)
    before = len(default.received) + len(fallback.received)

    ids = await accept(tenant, 30)
    calls = len(default.health_calls)
    await eventually(lambda: len(default.health_calls) > calls + 3)
    sent = len(default.received) + len(fallback.received) - before
    waiting = await count(tenant, "queued")
    fallback.recovers()
    settled = await until_settled(tenant)

    assert (sent, waiting) == (0, 30)
    assert set(map(str, ids)) == set(fallback.booked)
    assert {row.attempt for row in settled} == {1}


async def test_a_processor_that_is_added_in_an_outage_takes_over(tenant, quick, worker, default):
    default.fails()
    await accept(tenant, 5)
    await known("default", tenant, failing=True)

    async with HttpProcessor() as rescue:
        await in_thread(make_processor, tenant, "rescue", kind="http", url=rescue.url)
        await until_settled(tenant)

        assert len(rescue.booked) == 5


async def test_processors_that_were_switched_off_and_on_again_are_used_again(tenant, quick, worker, default):
    await configure(tenant, "default", enabled=False)
    await accept(tenant, 5)
    await eventually(lambda: _looked_at(tenant))
    assert not default.received

    await configure(tenant, "default", enabled=True)
    await until_settled(tenant)

    assert len(default.booked) == 5


async def _looked_at(tenant) -> bool:
    """A worker found no route for them, or knows that there is none."""
    [[postponed]] = await database.fetch(
        "SELECT count(*) FROM payments_payment WHERE tenant_id = %s AND run_at > created_at", [tenant.pk]
    )
    return postponed > 0


async def test_a_payment_that_names_a_processor_is_sent_to_no_other(tenant, worker, default, fallback):
    [one] = await accept(tenant, processor="fallback")
    await until_settled(tenant)

    assert list(fallback.booked) == [str(one)]
    assert (await tries(one))[0].reason == "asked for by name"


async def test_invalid_options_stop_neither_their_tenant_nor_another(tenant, worker, default):
    careless = await in_thread(make_tenant)
    odd = {"delay": "soon", "decline": [], "longestDelay": "NaN"}
    await in_thread(make_processor, careless, "odd", options=odd)
    odder = await in_thread(make_tenant)
    await in_thread(make_processor, odder, "odder", options=["delay"])

    for one in (careless, odder, tenant):
        await accept(one, 3)

    for one in (careless, odder, tenant):
        assert len(await until_settled(one)) == 3


async def test_a_sandbox_that_was_slowed_down_gets_its_payments_back_when_it_is_quick_again(tenant, quick, worker):
    await in_thread(make_processor, tenant, "cheap", fee="0.01", options={"delay": 450})
    await in_thread(make_processor, tenant, "dear", fee="0.10")
    for _ in range(6):
        await accept(tenant, 3)
        await until_settled(tenant)
    left = {row.processor for row in (await payments(tenant))[-3:]}

    await configure(tenant, "cheap", delay=0)

    async def back() -> bool:
        await accept(tenant)
        return (await until_settled(tenant))[-1].processor == "cheap"

    await eventually(back)
    assert left == {"dear"}


async def test_a_fresh_worker_leaves_the_trend_that_others_measured_as_it_is(tenant, default):
    measured, fresh = routing.RoutingTable(), routing.RoutingTable()
    for routes in (measured, fresh):
        await routes.load({tenant.pk})
    [endpoint] = measured.endpoints.values()
    [(account, _)] = measured.of(tenant.pk)
    answers(endpoint, account, *[400.0] * 20)
    await measured.share()
    known_before = await _trend(endpoint.key)

    await fresh.share()

    assert known_before > 300
    assert await _trend(endpoint.key) == known_before


async def _trend(key: str) -> float:
    return (await database.fetch("SELECT trend_ms FROM payments_endpoint WHERE key = %s", [key]))[0][0]


async def test_the_class_of_a_kind_says_whether_it_is_polled(tenant, default, monkeypatch):
    await in_thread(make_processor, tenant, "silent", kind="http", url="http://127.0.0.1:1")
    await in_thread(make_processor, tenant, "own")
    await in_thread(make_processor, tenant, "odd", kind="nobody-knows")
    routes = routing.RoutingTable()

    await routes.load({tenant.pk})
    polled = {account.name for account in routes.polled()}
    monkeypatch.setattr(routing.KINDS["http"], "polled", False)

    assert polled == {"default", "silent"}
    assert routes.polled() == []
