"""Reconciliation with Stripe."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from payments.books import ledger
from payments.books.purge import purge
from payments.models import (
    Attempt,
    Difference,
    Payment,
    Refund,
)
from payments.reconciliation import comparison, operate
from payments.reconciliation.comparison import Window
from payments.reconciliation.matching import UNDER_WAY
from payments.refunds import refunds
from payments.refunds.work import RefundWork
from registry.edge.api import iso
from tests.bed.stripe import sandbox_stripe
from tests.factories import by_hand, in_thread, make_stripe
from tests.payments.comparing import HOUR, WHY, compare, found, the_difference
from tests.settling import accept, opened, settle_all, settle_due


@pytest.fixture
async def stripe(tenant):
    async with sandbox_stripe() as running:
        await in_thread(make_stripe, tenant, running.url)
        yield running


@pytest.fixture
async def paid(tenant, stripe) -> list[UUID]:
    """Two payments by card."""
    ids = await accept(tenant, 2, method={"paymentMethod": "pm_card_visa"})
    await settle_all(tenant)
    return ids


async def compare_now(tenant):
    now = datetime.now(UTC)
    return await compare(tenant, "stripe", Window(now - HOUR, now + HOUR))


def intent_of(stripe, correlation_id: UUID):
    return next(i for i in stripe.all("payment_intent") if i["metadata"]["registry_payment"] == str(correlation_id))


async def test_bookings_at_stripe_and_here_agree(tenant, stripe, paid):
    outcome = await compare_now(tenant)

    assert (outcome.records, outcome.payments, outcome.differences) == (2, 2, 0)


async def test_an_intent_made_by_others_at_stripe_is_missing_here_and_can_be_booked(tenant, stripe, paid):
    intent_of(stripe, paid[0])["metadata"] = {}
    await compare_now(tenant)
    kinds = {one.kind: one for one in await in_thread(found)}

    done = await by_hand(operate.book, difference_id=kinds["missing_here"].pk, actor="olga", reason=WHY)

    assert done
    assert kinds["missing_here"].correlation_id is None
    assert (await ledger.prove(tenant_id=tenant.pk)).sound
    again = await compare_now(tenant)
    assert (again.records, again.differences) == (2, 0)


async def test_a_refund_made_at_stripe_is_a_difference(tenant, stripe, paid):
    charge = stripe[intent_of(stripe, paid[1])["latest_charge"]]
    charge["amount_refunded"] = 300

    await compare_now(tenant)

    one = await the_difference("refunded")
    assert (one.correlation_id, one.our_refunded, one.their_refunded) == (paid[1], 0, 300)


async def test_a_refund_in_progress_is_no_difference_until_it_is_stuck(tenant, stripe, paid):
    await refunds.refund(tenant_id=tenant.pk, correlation_id=paid[1], amount=300)
    stripe.fails("drop_after", on="POST /v1/refunds*")  # returned there, and we never hear of it
    await send_refunds()

    assert (await compare_now(tenant)).differences == 0

    await in_thread(Refund.objects.update, changed_at=datetime.now(UTC) - UNDER_WAY)
    await compare_now(tenant)
    one = await the_difference("refunded")
    assert (one.our_refunded, one.their_refunded) == (0, 300)


async def test_a_refund_that_is_returned_while_its_payment_is_compared_is_no_difference(
    tenant, stripe, paid, monkeypatch
):
    read = comparison._ours

    async def read_before_it(*arguments, **options):
        ours = await read(*arguments, **options)
        await refunds.refund(tenant_id=tenant.pk, correlation_id=paid[1], amount=300)
        await send_refunds()
        return ours

    monkeypatch.setattr(comparison, "_ours", read_before_it)

    assert (await compare_now(tenant)).differences == 0
    assert (await in_thread(Payment.objects.get, correlation_id=paid[1])).refunded == 300


async def test_bookings_of_payments_that_were_purged_are_no_differences(tenant, stripe, paid):
    await purge(tenant_id=tenant.pk)
    await accept(tenant, 1, method={"paymentMethod": "pm_card_visa"})
    await settle_all(tenant)
    intent_of(stripe, paid[0])["metadata"] = {}  # nor one that nobody could know

    outcome = await compare_now(tenant)

    assert (outcome.records, outcome.payments, outcome.differences) == (1, 1, 0)


async def send_refunds() -> None:
    async with opened(RefundWork()) as work:
        await settle_due(work)


async def test_a_second_intent_for_the_same_payment_is_a_duplicate(tenant, stripe, paid):
    intent_of(stripe, paid[0])["metadata"] = intent_of(stripe, paid[1])["metadata"]

    await compare_now(tenant)

    assert "duplicate" in {one.kind for one in await in_thread(found)}


async def booked_twice(stripe, *, earlier: timedelta) -> tuple[Payment, str]:
    """The later payment, and the intent of the other as if it were a second booking of that one, asked for `earlier`."""
    other, payment = await in_thread(lambda: list(Payment.objects.order_by("requested_at")))
    second = intent_of(stripe, other.correlation_id)
    at = iso(payment.requested_at - earlier)
    second["metadata"] |= {"registry_payment": str(payment.correlation_id), "registry_requested_at": at}
    return payment, second["id"]


async def test_a_second_intent_is_a_duplicate_also_where_it_stands_in_another_slice(tenant, stripe, paid, monkeypatch):
    monkeypatch.setattr(comparison, "SLICE", 1)
    payment, second = await booked_twice(stripe, earlier=HOUR / 2)

    await compare_now(tenant)

    one = await the_difference("duplicate")
    assert (one.payment_id, one.key, one.reference) == (payment.pk, second, second)


@pytest.mark.parametrize("named", [True, False], ids=["by its name", "without one"])
async def test_rechecking_a_duplicate_resolves_it_only_once_the_second_booking_is_gone(tenant, stripe, paid, named):
    await booked_twice(stripe, earlier=HOUR / 2)
    if not named:
        await in_thread(Attempt.objects.update, reference="")
    await compare_now(tenant)
    one = await in_thread(Difference.objects.get, kind="duplicate")

    still = await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    stripe[one.reference]["status"] = "canceled"
    now = await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert (still, now) == (False, True)
    assert (await in_thread(Difference.objects.get, pk=one.pk)).resolution == "gone"
