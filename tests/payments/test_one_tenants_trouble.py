"""Tenants that share a processor: trouble of one does not affect the others, nor does one payment affect its tenant."""

import time

import pytest

from payments.processors.base import Account, Outcome, Result
from payments.routing.endpoint import EndpointCondition
from payments.routing.pace import SEVERAL, next_number
from payments.routing.routing import RoutingTable
from registry.data import database
from registry.data.breaker import FAILURES, BreakerState
from tests.bed import HttpProcessor
from tests.bed.books import read_order
from tests.bed.wire import response
from tests.conftest import eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, payments, until_settled

SPOILED = 6660  # minor units
ILL, WELL = Outcome(Result.NOT_BOOKED, healthy=False), Outcome(Result.BOOKED)


class Picky(HttpProcessor):
    """Answers `status` to payments of one amount, and books all others."""

    status = 500

    def take(self, body: bytes):
        order = read_order(body)
        if order.amount != SPOILED:
            return super().take(body)
        self.books.requests.append(order)
        return response(self.status)


@pytest.fixture
async def picky(tenant):
    async with Picky() as processor:
        await in_thread(make_processor, tenant, "default", kind="http", url=processor.url, fee="0.05")
        yield processor


@pytest.fixture
async def neighbour(picky, fallback):
    """Another tenant with accounts at the same two processors."""
    found = await in_thread(make_tenant)
    await in_thread(make_processor, found, "default", kind="http", url=picky.url, fee="0.05")
    await in_thread(make_processor, found, "fallback", kind="http", url=fallback.url, fee="0.15")
    return found


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_refusals_of_one_tenant_do_not_reroute_others(tenant, neighbour, quick, worker, picky, fallback, status):
    picky.status = status
    refused = await accept(tenant, 3 * FAILURES, amount=SPOILED)
    await eventually(lambda: len(picky.received) >= FAILURES)

    for _ in range(3):
        await accept(neighbour, 5)
        await until_settled(neighbour)

    assert {row.processor for row in await payments(neighbour)} == {"default"}
    assert {row.attempt for row in await payments(neighbour)} == {1}
    assert await _state(picky) == "closed"
    assert {row.processor for row in await until_settled(tenant)} == {"fallback"}  # its own breaker is open
    assert len(fallback.booked) == len(refused)


async def test_one_payment_that_always_fails_costs_its_tenant_no_more_than_itself(
    tenant, quick, worker, picky, fallback
):
    [spoiled] = await accept(tenant, amount=SPOILED)
    await eventually(lambda: picky.received.count(str(spoiled)) > FAILURES)

    others = await accept(tenant, 10)
    await eventually(lambda: set(map(str, others)) <= set(picky.booked))

    assert not fallback.received
    assert await _state(picky) == "closed"


async def _state(processor: HttpProcessor) -> str:
    """Its breaker as workers share it, once they do."""

    async def shared() -> str:
        rows = await database.fetch("SELECT breaker FROM payments_endpoint WHERE key = %s", [f"http:{processor.url}"])
        return rows[0][0] if rows else ""

    return await eventually(shared)


# -- The endpoint by itself ------------------------------------------------------------------------------------


def account(tenant: int) -> Account:
    return Account(
        id=tenant, tenant_id=tenant, name="p", kind="http", url="", fee_ppm=0, options={}, enabled=True, endpoint="p"
    )


def test_an_address_that_fails_for_two_tenants_is_failing_for_all():
    endpoint = EndpointCondition("p")
    endpoint.mark_shared()

    for payment in range(FAILURES):
        endpoint.answered(0, account(1), payment, ILL, ms=5, now=100)
    one = endpoint.breaker.state
    endpoint.answered(0, account(2), "another", ILL, ms=5, now=100)

    assert (one, endpoint.breaker.state) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert not endpoint.allows(3, 100)


def test_when_an_address_recovers_accounts_that_failed_there_are_tried_at_once():
    endpoint = EndpointCondition("p")
    endpoint.mark_shared()
    for tenant in (1, 2):
        for payment in range(FAILURES):
            endpoint.answered(0, account(tenant), payment, ILL, ms=5, now=100)

    endpoint.answered(0, account(2), "another", WELL, ms=5, now=100.1)

    assert endpoint.allows(1, 100.1)
    assert endpoint.is_probe(1)


def test_a_second_tenant_at_an_address_does_not_inherit_failures_of_the_first():
    endpoint = EndpointCondition("p")
    for payment in range(FAILURES):
        endpoint.answered(0, account(1), payment, ILL, ms=5, now=100)
    alone = endpoint.breaker.state

    endpoint.mark_shared()

    assert alone is BreakerState.OPEN
    assert endpoint.allows(2, 100)
    assert not endpoint.allows(1, 100)


def test_an_inconclusive_response_does_not_delay_the_next_probe():
    endpoint = EndpointCondition("p")
    for payment in range(FAILURES):
        endpoint.answered(0, account(1), payment, ILL, ms=5, now=100)
    assert endpoint.admits(1, 110)
    waiting = endpoint.allows(1, 110)

    endpoint.answered(0, account(1), "declined", Outcome(Result.DECLINED), ms=5, now=110)

    assert (waiting, endpoint.allows(1, 110)) == (False, True)


def test_payments_of_one_tenant_that_are_slow_make_the_processor_slow_for_that_tenant_alone():
    endpoint = EndpointCondition("p")
    endpoint.mark_shared()

    for payment in range(SEVERAL):
        endpoint.answered(next_number(), account(1), payment, WELL, ms=2000, now=100)
        endpoint.sent(account(1), 99)

    assert endpoint.is_slow(account(1), 100)
    assert not endpoint.is_slow(account(2), 100)


def test_payments_that_are_refused_at_once_hide_no_slow_processor():
    endpoint = EndpointCondition("p")
    for payment in range(SEVERAL):
        endpoint.answered(next_number(), account(1), payment, WELL, ms=2000, now=100)

    for result in (Result.DECLINED, Result.NOT_BOOKED):
        endpoint.answered(endpoint.sent(account(1), 100), account(1), "p", Outcome(result), ms=1, now=100.001)

    assert endpoint.is_slow(account(1), 101)


# -- Between workers -------------------------------------------------------------------------------------------


async def test_outcomes_of_refunds_do_not_affect_the_routing_of_payments(tenant, default):
    sends, refunds = RoutingTable(), RoutingTable()
    for routes in (sends, refunds):
        await routes.load({tenant.pk})
    await sends.share()

    def answers(routes: RoutingTable, outcome: Outcome) -> None:
        [(mine, endpoint)] = routes.of(tenant.pk)
        for number in range(FAILURES):
            endpoint.answered(0, mine, number, outcome, ms=5, now=time.monotonic())

    answers(refunds, ILL)
    await refunds.read_shared()
    await sends.share()
    after_failed_refunds = await _state(default)
    answers(sends, ILL)
    await sends.share()
    answers(refunds, WELL)
    await refunds.read_shared()

    assert (after_failed_refunds, await _state(default)) == ("closed", "open")


async def test_that_several_tenants_share_an_address_is_known_before_the_others_pay(tenant, default):
    await in_thread(make_processor, await in_thread(make_tenant), "theirs", kind="http", url=default.url)
    routes = RoutingTable()

    await routes.load({tenant.pk})

    [(_, endpoint)] = routes.of(tenant.pk)
    assert endpoint.breaker.parties == endpoint.pace.parties == 2
