"""Refunds and disputes reported by the processor: booked once, reversed when they fail later, the same in any order."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from payments.books import ledger
from payments.errors import NotRefundable, UnknownPayment
from payments.processors.reports import DisputeReport, RefundReport, Subject
from payments.refunds import disputes, operate, refunds
from payments.refunds.work import RefundWork
from registry.data import database
from tests.factories import in_thread, make_processor
from tests.payments.refunding import (
    book,
    booked,
    given_back,
    kinds,
    lines,
    pay_back,
    paying_back,
    refunds_of,
    sums,
    until_all,
)
from tests.settling import accept


@pytest.fixture
async def sandbox(tenant):
    return await in_thread(make_processor, tenant, "sandbox", fee="0.05")


@pytest.fixture
async def payment(tenant, sandbox) -> UUID:
    """A payment of 10.00 that has succeeded."""
    [one] = await booked(tenant)
    return one


def of_refund(tenant, payment: UUID, reference: str = "re_1", amount: int = 400, **fields) -> RefundReport:
    return RefundReport(
        **{
            "reference": reference,
            "subject": Subject(tenant_id=tenant.pk, correlation_id=payment),
            "refund_id": None,
            "amount": amount,
            "pending": False,
            "failed": False,
            **fields,
        }
    )


@pytest.fixture
def hear(tenant, sandbox):
    """Book one piece of report of a refund."""

    async def hear(report: RefundReport) -> bool:
        return await book(refunds, tenant, sandbox, report)

    return hear


async def is_sound(tenant) -> bool:
    return (await ledger.prove(tenant_id=tenant.pk)).sound


# -- Refunds that others made ----------------------------------------------------------------------------------


async def test_a_refund_made_at_the_processor_is_booked_once(tenant, payment, hear):
    report = of_refund(tenant, payment)

    changed = [await hear(report), await hear(report)]

    [one] = await refunds_of(payment)
    assert changed == [True, False]
    assert (one.status, one.amount, one.external, one.reference) == ("returned", 400, True, "re_1")
    assert (await sums(payment), await lines(payment)) == ((400, 400), [("balance", 400), ("processor", -400)])
    assert await kinds(payment) == ["refund.returned"]


async def test_fifty_concurrent_reports_book_a_refund_once(tenant, payment, hear):
    changed = await asyncio.gather(*(hear(of_refund(tenant, payment)) for _ in range(50)))

    assert changed.count(True) == 1
    assert await sums(payment) == (400, 400)


async def test_a_refund_that_fails_after_it_was_returned_is_reversed_and_final(tenant, payment, hear):
    report = of_refund(tenant, payment)
    await hear(report)

    reversed_ = await hear(replace(report, failed=True, code="expired_or_canceled_card"))
    late = await hear(report)

    [one] = await refunds_of(payment)
    assert (reversed_, late) == (True, False)
    assert (one.status, one.code) == ("failed", "expired_or_canceled_card")
    assert await sums(payment) == (0, 0)
    assert await lines(payment) == [("balance", -400), ("balance", 400), ("processor", -400), ("processor", 400)]
    assert await kinds(payment) == ["refund.returned", "refund.failed"]
    assert await is_sound(tenant)


@pytest.mark.parametrize("state", [{"pending": True}, {"failed": True}], ids=["on its way", "failed at once"])
async def test_a_refund_that_moved_no_money_is_not_booked(tenant, payment, hear, state):
    changed = await hear(of_refund(tenant, payment, **state))

    assert (changed, await refunds_of(payment), await sums(payment)) == (False, [], (0, 0))


async def test_refunds_made_at_the_processor_reduce_the_refundable_amount(tenant, payment, hear):
    await hear(of_refund(tenant, payment, amount=400))

    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)

    assert [one.amount for one in await refunds_of(payment)] == [400, 600]


async def test_a_report_about_a_payment_that_is_not_booked_yet_is_postponed(tenant, sandbox, hear):
    [waiting] = await accept(tenant)

    with pytest.raises(NotRefundable):
        await hear(of_refund(tenant, waiting))
    with pytest.raises(UnknownPayment):
        await hear(of_refund(tenant, uuid4()))


# -- What operators gave up ------------------------------------------------------------------------------------


async def given_up(tenant, payment: UUID) -> UUID:
    """Our id of a refund of 4.00 that was on its way as re_1 when an operator closed it."""
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)
    await database.fetch(
        """UPDATE payments_refund SET status = 'uncertain', reference = 're_1', stopped_at = now(), run_at = '9999-12-31Z'
        WHERE tenant_id = %s""",
        [tenant.pk],
    )
    [one] = await refunds_of(payment)
    assert await operate.close(tenant_id=tenant.pk, refund_id=one.id, actor="olga", reason="nobody answers")
    return receipt.refund_id


async def test_a_refund_given_up_here_and_returned_at_the_processor_is_booked_as_returned(tenant, payment, hear):
    report = of_refund(tenant, payment, refund_id=await given_up(tenant, payment))

    changed = [await hear(report), await hear(report)]

    [one] = await refunds_of(payment)
    assert changed == [True, False]
    assert (one.status, one.code, one.external) == ("returned", "", False)
    assert (await sums(payment), await lines(payment)) == ((400, 400), [("balance", 400), ("processor", -400)])
    assert await is_sound(tenant)


async def test_a_refund_given_up_here_and_failed_at_the_processor_is_final(tenant, payment, hear):
    report = of_refund(tenant, payment, refund_id=await given_up(tenant, payment))

    changed = [await hear(replace(report, failed=True)), await hear(report)]

    [one] = await refunds_of(payment)
    assert (changed, one.status) == ([False, False], "failed")
    assert (await sums(payment), await lines(payment)) == ((0, 0), [])


# -- Ours, and both at once ------------------------------------------------------------------------------------


async def test_a_report_of_our_own_refund_settles_it_before_or_after_the_worker(tenant, payment, hear):
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)

    changed = await hear(of_refund(tenant, payment, refund_id=receipt.refund_id))
    left = await claimed()

    [one] = await refunds_of(payment)
    assert (changed, left) == (True, [])
    assert (one.status, one.external, one.reference, one.attempt) == ("returned", False, "re_1", 0)
    assert await sums(payment) == (400, 400)
    assert await given_back(payment) == []


async def claimed() -> list[Any]:
    """What a worker would pay back now."""
    work = RefundWork()
    try:
        return list(await work.claim(1, 10))
    finally:
        await work.close()


async def test_a_report_after_the_workers_outcome_changes_nothing(tenant, payment, hear):
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)
    [one] = await pay_back(payment, "returned")

    changed = await hear(of_refund(tenant, payment, one.reference, refund_id=receipt.refund_id))

    assert not changed
    assert await sums(payment) == (400, 400)


async def test_where_the_processor_lost_our_id_the_money_is_still_counted_once(tenant, payment, hear):
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)
    await hear(of_refund(tenant, payment, f"sandbox-{receipt.refund_id}"))

    async with paying_back():
        external, ours = sorted(await until_all(payment, "returned", "failed"), key=lambda one: not one.external)

    assert (external.status, ours.status, ours.code) == ("returned", "failed", "booked_already")
    assert await sums(payment) == (400, 400)
    assert await is_sound(tenant)


async def test_a_refund_here_and_one_at_the_processor_at_once_both_count(tenant, payment, hear):
    await asyncio.gather(
        *(refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=100) for _ in range(10)),
        *(hear(of_refund(tenant, payment, f"re_{n % 3}", amount=100)) for n in range(12)),
        return_exceptions=True,
    )

    found = await refunds_of(payment)
    owed, returned = await sums(payment)
    assert [one.reference for one in found if one.external] and returned == 300
    assert owed == sum(one.amount for one in found)
    assert owed <= 1000 + 300  # what the processor gave back is a fact; it will decline what is too much of ours
    assert await is_sound(tenant)


# -- Disputes --------------------------------------------------------------------------------------------------


def of_dispute(tenant, payment: UUID, status: str, withdrawn: int = 0, movements: int = 0, **fields) -> DisputeReport:
    return DisputeReport(
        **{
            "reference": "du_1",
            "subject": Subject(tenant_id=tenant.pk, correlation_id=payment),
            "amount": 1000,
            "currency": "BRL",
            "reason": "fraudulent",
            "status": status,
            "withdrawn": withdrawn,
            "movements": movements,
            "opened_at": datetime(2026, 7, 15, tzinfo=UTC),
            **fields,
        }
    )


@pytest.fixture
def book_dispute(tenant, sandbox):
    async def hear(report: DisputeReport) -> bool:
        return await book(disputes, tenant, sandbox, report)

    return hear


async def dispute_of(tenant) -> tuple:
    sql = "SELECT status, withdrawn, closed_at IS NOT NULL FROM payments_dispute WHERE tenant_id = %s"
    [row] = await database.fetch(sql, [tenant.pk])
    return row


async def test_a_dispute_withdraws_the_money_until_it_is_won(tenant, payment, book_dispute):
    balances = [await ledger.balance(tenant_id=tenant.pk)]
    for report in (
        of_dispute(tenant, payment, "needs_response", 1000, 1),
        of_dispute(tenant, payment, "under_review", 1000, 1),
        of_dispute(tenant, payment, "won", 1000, 1),
        of_dispute(tenant, payment, "won", 0, 2),
    ):
        assert await book_dispute(report)
        balances.append(await ledger.balance(tenant_id=tenant.pk))

    assert [balance["BRL"] for balance in balances] == [950, -50, -50, -50, 950]
    assert await dispute_of(tenant) == ("won", 0, True)
    assert await kinds(payment) == ["dispute.opened", "dispute.updated", "dispute.closed", "dispute.updated"]
    assert await is_sound(tenant)


async def test_a_lost_dispute_keeps_the_money(tenant, payment, book_dispute):
    await book_dispute(of_dispute(tenant, payment, "needs_response", 1000, 1))
    await book_dispute(of_dispute(tenant, payment, "lost", 1000, 1))

    assert await lines(payment, "dispute") == [("balance", 1000), ("processor", -1000)]
    assert await dispute_of(tenant) == ("lost", 1000, True)


async def test_an_inquiry_moves_no_money(tenant, payment, book_dispute):
    await book_dispute(of_dispute(tenant, payment, "warning_needs_response"))
    await book_dispute(of_dispute(tenant, payment, "warning_closed"))

    assert await lines(payment, "dispute") == []
    assert await kinds(payment) == ["dispute.opened", "dispute.closed"]


async def test_a_reopened_dispute_withdraws_the_money(tenant, payment, book_dispute):
    over = of_dispute(tenant, payment, "warning_closed")
    anew = of_dispute(tenant, payment, "needs_response", 1000, 1)

    changed = [await book_dispute(report) for report in (over, anew, over)]

    assert changed == [True, True, False]
    assert await dispute_of(tenant) == ("needs_response", 1000, False)
    assert await lines(payment, "dispute") == [("balance", 1000), ("processor", -1000)]
    assert await kinds(payment) == ["dispute.opened", "dispute.closed", "dispute.updated"]
    assert await is_sound(tenant)


async def test_disputes_that_arrive_shuffled_and_twice_always_end_the_same(tenant, sandbox, book_dispute):
    states = (
        ("warning_closed", 0, 0),
        ("needs_response", 0, 0),
        ("needs_response", 1000, 1),
        ("under_review", 1000, 1),
        ("won", 1000, 1),
        ("won", 0, 2),
    )
    payments = await booked(tenant, 24)
    dice = random.Random(7)
    for number, payment in enumerate(payments):
        told = [of_dispute(tenant, payment, *state, reference=f"du_{number}") for state in states]
        told += dice.choices(told, k=3)
        dice.shuffle(told)
        for report in told:
            await book_dispute(report)

    ended = await database.fetch(
        "SELECT DISTINCT status, withdrawn, movements FROM payments_dispute WHERE tenant_id = %s", [tenant.pk]
    )
    held = [sum(amount for account, amount in await lines(one, "dispute") if account == "balance") for one in payments]
    assert ended == [("won", 0, 2)]
    assert set(held) == {0}
    assert await is_sound(tenant)


async def test_two_concurrent_reports_of_a_dispute_write_it_once(tenant, payment, book_dispute):
    report = of_dispute(tenant, payment, "needs_response", 1000, 1)

    changed = await asyncio.gather(*(book_dispute(report) for _ in range(20)))

    assert changed.count(True) == 1
    assert await lines(payment, "dispute") == [("balance", 1000), ("processor", -1000)]
    assert await kinds(payment) == ["dispute.opened"]
