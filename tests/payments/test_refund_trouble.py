"""Refunds while workers die, processors hang and requests are concurrent: each is returned once, and the sums hold."""

import asyncio
import random
from uuid import UUID

import pytest

from payments.books import ledger
from payments.errors import PaymentError
from payments.processors import sandbox as sandbox_kind
from payments.processors.base import Outcome, Result
from payments.refunds import operate, refunds
from payments.refunds import work as refund_work
from payments.refunds.balance import lock
from payments.refunds.decisions import MAX_ATTEMPTS, after_send, unknown
from payments.settle import lifecycle
from queueing.work.drain import CLAIM_EVERY
from registry.data import database
from tests.conftest import eventually
from tests.factories import by_hand, in_thread, make_processor
from tests.payments.refunding import booked, given_back, pay_back, paying_back, refunds_of, sums, until_all
from tests.settling import accept, configure, opened, settle_due


@pytest.fixture
async def sandbox(tenant):
    return await in_thread(make_processor, tenant, "sandbox", fee="0.05")


@pytest.fixture
async def payment(tenant, sandbox) -> UUID:
    """A payment of 10.00 that has succeeded."""
    [one] = await booked(tenant)
    return one


async def refund(tenant, payment: UUID, amount: int | None = None) -> refunds.RefundReceipt:
    return await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=amount)


async def is_sound(tenant) -> bool:
    return (await ledger.prove(tenant_id=tenant.pk)).sound


# -- A worker dies ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a worker in the middle of a step: nothing after it is run."""


def kill_at(step: str, monkeypatch) -> None:
    """Have the worker die before it sends, after the processor has booked, or before the outcome is committed."""
    real = sandbox_kind.SandboxProcessor.refund
    write = refund_work.RefundWork._write

    async def refund(self, order, account):
        if step == "before it sends":
            raise Killed
        outcome = await real(self, order, account)
        if step == "before the answer":
            raise Killed
        return outcome

    async def written(self, verdicts):
        if step == "before the commit":
            raise Killed
        return await write(self, verdicts)

    monkeypatch.setattr(sandbox_kind.SandboxProcessor, "refund", refund)
    monkeypatch.setattr(refund_work.RefundWork, "_write", written)


@pytest.mark.parametrize("step", ["before it sends", "before the answer", "before the commit"])
async def test_a_worker_that_dies_at_any_step_leaves_exactly_one_refund(tenant, payment, step):
    await refund(tenant, payment)
    work = refund_work.RefundWork()
    [claim] = await work.claim(1, 10)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(step, patch)
        with pytest.raises(Killed):
            await work.run([claim])
    await work.close()
    [left] = await refunds_of(payment)

    await _leases_lapse(tenant)
    [returned] = await pay_back(payment, "returned")

    assert (left.status, returned.requested_at) == ("processing", left.requested_at)
    assert (await given_back(payment), await sums(payment)) == ([1000], (1000, 1000))
    assert await is_sound(tenant)


async def _leases_lapse(tenant) -> None:
    await database.fetch("UPDATE payments_refund SET leased_until = now() WHERE tenant_id = %s", [tenant.pk])


async def test_a_worker_that_lost_the_lease_of_a_refund_changes_nothing(tenant, payment):
    await refund(tenant, payment)
    late, next_one = refund_work.RefundWork(), refund_work.RefundWork()
    [old] = await late.claim(1, 10)
    await _leases_lapse(tenant)
    [new] = await next_one.claim(2, 10)

    outcomes = await next_one.run([new]) + await late.run([old])
    await late.close()
    await next_one.close()

    assert outcomes == [True, False]
    assert (await given_back(payment), await sums(payment)) == ([1000], (1000, 1000))


async def test_a_stopped_worker_gives_back_its_refunds_as_uncertain(tenant, payment, monkeypatch):
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.1)
    await configure(tenant, "sandbox", refundHang=True)
    await refund(tenant, payment)
    async with paying_back():
        await eventually(lambda: given_back(payment))
    [left] = await refunds_of(payment)
    await configure(tenant, "sandbox", refundHang=False)

    await pay_back(payment, "returned")

    assert (left.status, left.code) == ("uncertain", "worker_left")
    assert await given_back(payment) == [1000]


async def test_a_refusal_of_a_repeat_proves_nothing_about_the_first_send(tenant, payment):
    """The first may still be on its way, and may be what the repeat is refused for."""
    await sent_without_an_answer(tenant, payment)
    await configure(tenant, "sandbox", delay=0, refundDecline=1.0)
    await one_round(tenant, dies=False)
    [refused] = await refunds_of(payment)
    await configure(tenant, "sandbox", refundDecline=0)
    await pay_back(payment, "returned")

    assert (refused.status, refused.code) == ("uncertain", "refund_declined")
    assert await given_back(payment) == [1000]


async def sent_without_an_answer(tenant, payment: UUID) -> None:
    await configure(tenant, "sandbox", delay=1000)
    await refund(tenant, payment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_kind, "ANSWER_TIMEOUT", 0.05)
        await pay_back(payment, "uncertain")


async def test_once_the_longest_delay_has_passed_a_refusal_is_final(tenant, payment):
    await configure(tenant, "sandbox", longestDelay=0.1)
    await sent_without_an_answer(tenant, payment)
    await configure(tenant, "sandbox", delay=0, refundDecline=1.0)
    [failed] = await pay_back(payment, "failed")

    assert failed.code == "refund_declined"
    assert await sums(payment) == (0, 0)


# -- Workers give up -------------------------------------------------------------------------------------------


async def given_up(tenant, payment: UUID) -> int:
    """A refund that was refused MAX_ATTEMPTS times, though not for good."""
    await refund(tenant, payment)
    await database.fetch("UPDATE payments_refund SET attempt = %s WHERE tenant_id = %s", [MAX_ATTEMPTS - 1, tenant.pk])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refund_work.RefundWork, "send_within", -1.0)  # "not sent in time": a certain no, and no outage
        async with opened(refund_work.RefundWork()) as work:
            await settle_due(work)
    [one] = await refunds_of(payment)
    assert one.stopped
    return one.id


async def test_after_the_last_try_a_refund_waits_for_an_operator_and_is_still_owed(tenant, payment):
    await given_up(tenant, payment)

    [one] = await refunds_of(payment)
    work = refund_work.RefundWork()
    assert await work.claim(1, 10) == []
    await work.close()

    assert (one.status, one.stopped, one.code) == ("owed", True, "not_sent_in_time")
    assert (await sums(payment), await given_back(payment)) == ((1000, 0), [])


async def test_a_retry_pays_it_under_the_same_key(tenant, payment):
    refund = await given_up(tenant, payment)
    [before] = await refunds_of(payment)

    retried = [await _retry(tenant, refund), await _retry(tenant, refund)]
    [after] = await pay_back(payment, "returned")

    assert retried == [True, False]
    assert (after.public_id, after.requested_at) == (before.public_id, before.requested_at)
    assert await given_back(payment) == [1000]


async def _retry(tenant, refund: int) -> bool:
    return await operate.retry(tenant_id=tenant.pk, refund_id=refund, actor="olga", reason="it was maintenance")


async def test_either_a_concurrent_close_or_retry_wins(tenant, payment):
    refund = await given_up(tenant, payment)

    async def close() -> bool:
        return await operate.close(tenant_id=tenant.pk, refund_id=refund, actor="olga", reason="paid in cash")

    works = (close, lambda: _retry(tenant, refund))
    outcomes = await asyncio.gather(*(by_hand(work) for _ in range(5) for work in works))

    [one] = await refunds_of(payment)
    assert outcomes.count(True) == 1
    assert (one.status, await sums(payment)) in [("failed", (0, 0)), ("owed", (1000, 0))]
    assert await is_sound(tenant)


# -- The processor's own word at the same moment ---------------------------------------------------------------


async def test_outcomes_wait_for_a_concurrent_report_before_they_lock_a_refund(tenant, sandbox):
    """That one has a payment and the stream in hand and then wants the refund: nobody may have taken that and want the stream."""
    returned, doubtful = await booked(tenant, 2)
    await asyncio.gather(refund(tenant, returned), refund(tenant, doubtful))
    work = refund_work.RefundWork()
    claims = {claim.order.payment_id: claim for claim in await work.claim(1, 10)}
    outcomes = [
        after_send(claims[returned], Outcome(Result.BOOKED, code="http_200", reference="re_1")),
        unknown(claims[doubtful], Outcome(Result.UNKNOWN, code="timeout")),
    ]

    async with database.transaction() as conn:
        await lock(conn, tenant.pk, doubtful)
        await database.rows(conn, "SELECT FROM payments_stream WHERE tenant_id = %s FOR UPDATE", [tenant.pk])
        settling = asyncio.create_task(work.write(outcomes))
        await eventually(_somebody_waits)
        mine = "SELECT id FROM payments_refund WHERE tenant_id = %s AND id = %s FOR UPDATE NOWAIT"
        free = await database.rows(conn, mine, [tenant.pk, claims[doubtful].refund_id])

    assert (len(free), await settling) == (1, [True, True])
    await work.close()
    assert [(await refunds_of(one))[0].status for one in (returned, doubtful)] == ["returned", "uncertain"]
    assert await is_sound(tenant)


async def _somebody_waits() -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return (await database.fetch(sql))[0][0] > 0


# -- Everybody at once -----------------------------------------------------------------------------------------


async def test_either_a_concurrent_cancel_or_refund_succeeds(tenant, sandbox):
    [one] = await accept(tenant)

    outcomes = await asyncio.gather(
        *(refund(tenant, one) for _ in range(10)),
        *(lifecycle.cancel(tenant_id=tenant.pk, correlation_id=one) for _ in range(10)),
        return_exceptions=True,
    )

    assert all(isinstance(o, PaymentError) for o in outcomes[:10])
    assert await refunds_of(one) == []


async def test_two_workers_pay_many_debts_once_each(tenant, sandbox):
    payments = await booked(tenant, 40)
    await asyncio.gather(*(refund(tenant, one, amount) for one in payments for amount in (100, 250)))

    async with paying_back(), paying_back():
        await asyncio.gather(*(until_all(one, "returned") for one in payments))

    assert {tuple(await given_back(one)) for one in payments} == {(100, 250)}
    assert {await sums(one) for one in payments} == {(350, 350)}
    assert await is_sound(tenant)


async def test_a_tenant_has_no_more_refunds_in_flight_than_its_processor_can_answer(tenant, sandbox):
    payments = await booked(tenant, 8)
    await configure(tenant, "sandbox", refundHang=True)
    await asyncio.gather(*(refund(tenant, one, 100) for one in payments))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refund_work.RefundWork, "share_limit", 3)
        patch.setattr("queueing.work.drain.GRACE", 0.0)
        async with paying_back() as drain:
            await eventually(lambda: len(drain.in_flight) == 3)
            await asyncio.sleep(3 * CLAIM_EVERY)
            in_flight = len(drain.in_flight)

    assert in_flight == 3
    assert sum([len(await given_back(one)) for one in payments]) == 3


async def test_events_of_refunds_are_numbered_without_gaps(tenant, sandbox):
    payments = await booked(tenant, 10)
    await asyncio.gather(*(refund(tenant, one, 100) for one in payments for _ in range(3)))
    async with opened(refund_work.RefundWork()) as work:
        await settle_due(work)

    positions = await database.fetch(
        "SELECT position FROM payments_paymentevent WHERE tenant_id = %s ORDER BY position", [tenant.pk]
    )
    sequences = await database.fetch(
        """SELECT array_agg(sequence ORDER BY position) FROM payments_paymentevent
        WHERE tenant_id = %s AND kind <> '' GROUP BY payment_id""",
        [tenant.pk],
    )
    assert [position for (position,) in positions] == list(range(1, len(positions) + 1))
    assert {tuple(numbers) for (numbers,) in sequences} == {tuple(range(4, 10))}


@pytest.mark.parametrize("seed", range(3))
async def test_in_any_order_of_events_no_more_is_refunded_than_was_paid(tenant, sandbox, seed, monkeypatch):
    """Refunds of any size, a processor that fails, hangs and declines, workers that die: the sums hold after each step."""
    monkeypatch.setattr(sandbox_kind, "ANSWER_TIMEOUT", 0.05)
    dice = random.Random(seed)
    payments = await booked(tenant, 3, amount=1000)
    moods = ({}, {"refundFailing": True}, {"refundHang": True}, {"refundDecline": 0.5})

    for _ in range(8):
        mood = {"refundFailing": False, "refundHang": False, "refundDecline": 0, **dice.choice(moods)}
        await configure(tenant, "sandbox", **mood)
        asked = [refund(tenant, dice.choice(payments), dice.choice([None, 1, 90, 333, 700])) for _ in range(4)]
        await asyncio.gather(*asked, return_exceptions=True)
        await one_round(tenant, dies=dice.random() < 0.3)
        for one in payments:
            owed, returned = await sums(one)
            assert returned <= owed <= 1000
            assert sum(await given_back(one)) <= owed
        assert await is_sound(tenant)

    await configure(tenant, "sandbox", refundFailing=False, refundHang=False, refundDecline=0)
    for one in payments:
        if await refunds_of(one):
            await pay_back(one, "returned", "failed")
    assert [sum(await given_back(one)) for one in payments] == [(await sums(one))[1] for one in payments]


async def one_round(tenant, *, dies: bool) -> None:
    """A worker claims what is due and handles it, or dies with it in hand."""
    await database.fetch("UPDATE payments_refund SET run_at = now() WHERE tenant_id = %s", [tenant.pk])
    work = refund_work.RefundWork()
    claims = await work.claim(1, 100)
    tasks = [asyncio.create_task(work.run([claim])) for claim in claims]
    if dies:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await work.close()
    await _leases_lapse(tenant)
