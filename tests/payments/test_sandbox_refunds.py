"""Refunds of processors of kind sandbox: returned once, with trouble on request, and listed."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from payments.processors import KINDS, sandbox
from payments.processors.base import Account, CanRefund, Order, RefundOrder, Result, ShowsBooks
from registry.data import database
from tests.factories import in_thread, make_processor

NOON = datetime(2026, 7, 15, 12, tzinfo=UTC)


@pytest.fixture
async def account(tenant) -> Account:
    row = await in_thread(make_processor, tenant, "sandbox")
    return Account(
        id=row.pk,
        tenant_id=tenant.pk,
        name="sandbox",
        kind="sandbox",
        url="",
        fee_ppm=0,
        options={},
        enabled=True,
        endpoint="s",
    )


@pytest.fixture
async def processor():
    async with sandbox.SandboxProcessor() as one:
        yield one


async def book(processor, account: Account, *, at: datetime = NOON, amount: int = 1000) -> UUID:
    order = Order(correlation_id=uuid4(), amount=amount, currency="BRL", requested_at=at)
    assert (await processor.send(order, account)).result is Result.BOOKED
    return order.correlation_id


def refund_order(payment: UUID, amount: int = 300, refund: UUID | None = None) -> RefundOrder:
    return RefundOrder(
        refund_id=refund or uuid4(),
        payment_id=payment,
        payment_reference="",
        amount=amount,
        currency="BRL",
        reason="",
        requested_at=NOON,
        tenant_id=1,
    )


def with_options(account: Account, **options) -> Account:
    return Account(**{**{f: getattr(account, f) for f in account.__struct_fields__}, "options": options})


async def given_back(account: Account) -> list[int]:
    sql = "SELECT amount FROM payments_sandboxrefund WHERE processor_id = %s ORDER BY amount"
    return [amount for (amount,) in await database.fetch(sql, [account.id])]


def test_the_kind_sandbox_refunds_and_lists_bookings_and_the_kind_http_does_neither():
    offers = {kind: (issubclass(KINDS[kind], CanRefund), issubclass(KINDS[kind], ShowsBooks)) for kind in KINDS}

    assert offers["sandbox"] == (True, True)
    assert offers["http"] == (False, False)


async def test_a_refund_that_is_sent_twice_is_returned_once(processor, account):
    one = refund_order(await book(processor, account))

    outcomes = [await processor.refund(one, account) for _ in range(2)]

    assert [o.result for o in outcomes] == [Result.BOOKED, Result.BOOKED]
    assert len({o.reference for o in outcomes}) == 1
    assert await given_back(account) == [300]


async def test_a_look_up_returns_refunds_that_were_returned_only(processor, account):
    one = refund_order(await book(processor, account))
    before = await processor.look_up_refund(one, account)
    sent = await processor.refund(one, account)

    after = await processor.look_up_refund(one, account)

    assert (before.result, after.result) == (Result.NOT_BOOKED, Result.BOOKED)
    assert after.reference == sent.reference


async def test_a_payment_that_was_never_booked_cannot_be_refunded(processor, account):
    outcome = await processor.refund(refund_order(uuid4()), account)

    assert (outcome.result, outcome.code) == (Result.DECLINED, "no_such_payment")
    assert await given_back(account) == []


async def test_a_failing_sandbox_returns_no_refund_and_an_error(processor, account):
    failing = with_options(account, refundFailing=True)

    outcome = await processor.refund(refund_order(await book(processor, account)), failing)

    assert (outcome.result, outcome.outage) == (Result.NOT_BOOKED, True)
    assert await given_back(account) == []


async def test_a_hanging_sandbox_returns_the_refund_and_never_responds(processor, account, monkeypatch):
    monkeypatch.setattr(sandbox, "ANSWER_TIMEOUT", 0.3)
    hanging = with_options(account, refundHang=True)

    outcome = await processor.refund(refund_order(await book(processor, account)), hanging)

    assert (outcome.result, outcome.code) == (Result.UNKNOWN, "timeout")
    assert await given_back(account) == [300]


async def test_a_share_is_declined_the_same_ones_at_every_try(processor, account):
    declining = with_options(account, refundDecline=0.5)
    payment = await book(processor, account)

    outcomes = [await processor.refund(refund_order(payment, refund=UUID(int=n)), declining) for n in (400, 400, 600)]

    assert [o.result for o in outcomes] == [Result.DECLINED, Result.DECLINED, Result.BOOKED]


async def test_bookings_and_refunds_of_a_window_are_listed(processor, account, monkeypatch):
    monkeypatch.setattr(sandbox, "RECORDS", 2)
    step = timedelta(milliseconds=1)
    inside = [await book(processor, account, at=NOON + n * step) for n in range(5)]
    await book(processor, account, at=NOON - step)
    await book(processor, account, at=NOON + 5 * step)
    await processor.refund(refund_order(inside[1], 300), account)
    await processor.refund(refund_order(inside[1], 200), account)

    records = [one async for one in processor.records(account, NOON, NOON + 4 * step)]

    assert {one.correlation_id for one in records} == set(inside)
    assert {one.correlation_id: one.refunded for one in records if one.refunded} == {inside[1]: 500}
    assert {(one.amount, one.currency) for one in records} == {(1000, "BRL")}
    assert {one.requested_at for one in records} == {NOON + n * step for n in range(5)}
