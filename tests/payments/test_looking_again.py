"""A reported change makes a waiting payment due once, and changes nothing else."""

import asyncio
from uuid import UUID

import pytest

from payments.models import Attempt, Payment, PaymentEvent
from payments.settle import lifecycle
from payments.states import CANCELED, FAILED, PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN, Status
from registry.data import database
from tests.bed.stripe import sandbox_stripe
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_payment, make_processor, make_stripe, make_tenant
from tests.settling import tries

LATER = "2030-01-01T00:00:00Z"


def waiting(tenant, status: Status = REQUIRES_ACTION, **fields) -> Payment:
    payment = make_payment(tenant, status=status, processor=make_processor(tenant, f"at-{status}"), **fields)
    Attempt.objects.filter(payment_id=payment.pk).update(reference="pi_1", action={"type": "authenticate"})
    return payment


async def look(tenant, *payments: Payment) -> set[UUID]:
    return await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[one.correlation_id for one in payments])


async def row(payment: Payment) -> tuple[str, int, bool, bool]:
    """Status, sequence, whether it is due, whether it is in doubt."""
    sql = "SELECT status, sequence, run_at <= now(), in_doubt_since IS NOT NULL FROM payments_payment WHERE id = %s"
    return (await database.fetch(sql, [payment.pk]))[0]


async def test_a_look_up_makes_a_payment_that_requires_an_action_due_with_an_event(tenant):
    payment = await in_thread(waiting, tenant, run_at=LATER)

    found = await look(tenant, payment)

    events = await in_thread(
        lambda: list(PaymentEvent.objects.filter(payment_id=payment.pk).order_by("position").values())
    )
    assert found == {payment.correlation_id}
    assert await row(payment) == (PROCESSING, 3, True, True)
    assert [(e["sequence"], e["position"], e["status"]) for e in events][-1] == (3, 3, PROCESSING)


async def test_a_look_up_makes_an_uncertain_payment_due_without_an_event(tenant):
    payment = await in_thread(waiting, tenant, UNCERTAIN, run_at=LATER)

    found = await look(tenant, payment)

    assert found == {payment.correlation_id}
    assert await row(payment) == (UNCERTAIN, 2, True, False)


@pytest.mark.parametrize("status", [QUEUED, SUCCEEDED, FAILED, CANCELED])
async def test_a_payment_at_no_processor_is_not_looked_up(tenant, status):
    payment = await in_thread(waiting, tenant, status, run_at=LATER)
    before = await row(payment)

    found = await look(tenant, payment)

    assert (found, await row(payment)) == (set(), before)


async def test_a_payment_of_another_tenant_is_not_looked_up(tenant):
    stranger = await in_thread(make_tenant)
    payment = await in_thread(waiting, stranger)

    found = await look(tenant, payment)

    assert found == set()
    assert (await row(payment))[0] == REQUIRES_ACTION


async def test_ten_concurrent_reports_are_one_event(tenant):
    payments = [await in_thread(make_payment, tenant, status=REQUIRES_ACTION) for _ in range(5)]

    await asyncio.gather(*(look(tenant, *payments) for _ in range(10)))

    assert {await row(payment) for payment in payments} == {(PROCESSING, 3, True, True)}
    positions = await database.fetch(
        "SELECT position FROM payments_paymentevent WHERE tenant_id = %s ORDER BY position", [tenant.pk]
    )
    assert [position for (position,) in positions] == list(range(1, 16))


async def test_look_ups_without_a_change_leave_the_payment_waiting_with_all_of_its_tries(api: Api, worker, tenant):
    async with sandbox_stripe() as stripe:
        await in_thread(make_stripe, tenant, stripe.url)
        payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
        await api.until(payment["correlationId"], "requires_action")

        for number in range(2, 5):
            await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[UUID(payment["correlationId"])])
            await eventually(lambda number=number: is_answered(payment, number))

    counted = await database.fetch(
        "SELECT status, attempt - tries_from FROM payments_payment WHERE tenant_id = %s", [tenant.pk]
    )
    assert counted == [(REQUIRES_ACTION, 0)]
    assert len(stripe.all("payment_intent")) == 1


async def is_answered(payment: dict, number: int) -> bool:
    return [attempt.outcome for attempt in await tries(payment["correlationId"])][number - 1 :] == ["requires_action"]
