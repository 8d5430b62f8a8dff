"""Refunds and disputes at Stripe through its library: returned once, and booked from signed webhooks."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from payments.books import ledger
from payments.refunds.decisions import MAX_QUESTIONS
from registry.data import database
from tests.bed.stripe import WEBHOOK_SECRET, SandboxStripe, sandbox_stripe
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_stripe
from tests.payments.refunding import (
    RefundRow,
    ask,
    hearing,
    kinds,
    lines,
    pay_back,
    paying_back,
    refunds_of,
    sums,
    until_all,
)
from tests.settling import configure, settle_all


@pytest.fixture
async def stripe(tenant, server) -> AsyncIterator[SandboxStripe]:
    """The tenant's account at the sandbox Stripe, which tells us of everything that happens there."""
    async with sandbox_stripe() as sandbox:
        keys = {"secretKey": sandbox.secret_key, "webhookSecrets": [WEBHOOK_SECRET]}
        await in_thread(make_stripe, tenant, sandbox.url, secrets=keys)
        sandbox.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")
        yield sandbox


@pytest.fixture
async def payment(api: Api, tenant, stripe) -> UUID:
    """A card payment of 10.00 that has succeeded."""
    paid = await api.pay("10.00", paymentMethod="pm_card_visa")
    await settle_all(tenant)
    return UUID(paid["correlationId"])


async def is_sound(tenant) -> bool:
    return (await ledger.prove(tenant_id=tenant.pk)).sound


async def test_a_refund_is_returned_once_and_its_webhooks_change_nothing(api: Api, tenant, stripe, payment):
    async with hearing(), paying_back():
        _, asked, _ = await ask(api, payment, {"amount": "4.00"})
        [returned] = await until_all(payment, "returned")
        await eventually(lambda: all_handled(tenant))

    [refund] = stripe.all("refund")
    assert (refund["amount"], refund["metadata"]["registry_refund"]) == (400, asked["id"])
    assert returned.reference == refund["id"]
    assert (await sums(payment), await kinds(payment)) == ((400, 400), ["refund.created", "refund.returned"])
    assert await is_sound(tenant)


async def all_handled(tenant) -> bool:
    sql = """SELECT count(*) FILTER (WHERE closed IS NULL), count(*) FILTER (WHERE type LIKE 'refund%%')
        FROM payments_inboundevent WHERE tenant_id = %s"""
    [(waiting, of_refunds)] = await database.fetch(sql, [tenant.pk])
    return not waiting and bool(of_refunds)


@pytest.mark.parametrize("trouble", ["drop_before", "drop_after", "error_before", "error_after", "rate_limit"])
async def test_trouble_at_any_step_ends_in_exactly_one_refund(api: Api, stripe, payment, trouble):
    stripe.fails(trouble, on="POST /v1/refunds", times=2)

    await ask(api, payment, {"amount": "4.00"})
    await pay_back(payment, "returned")

    assert [refund["amount"] for refund in stripe.all("refund")] == [400]
    assert await sums(payment) == (400, 400)


async def test_a_refund_whose_key_always_returns_500_is_requested_under_a_new_key(api: Api, tenant, stripe, payment):
    await configure(tenant, "stripe", longestDelay=0.1)
    stripe.fails("error_kept", on="POST /v1/refunds", times=1)

    await ask(api, payment, {"amount": "4.00"})
    await pay_back(payment, "returned")

    assert [refund["amount"] for refund in stripe.all("refund")] == [400]
    assert len({request.idempotency_key for request in stripe.received("POST /v1/refunds")}) == 2
    assert await sums(payment) == (400, 400)


async def test_a_refund_in_stripes_own_dashboard_is_booked_from_its_webhook(tenant, stripe, payment):
    async with hearing():
        await refund_there(stripe, 300)
        [one] = await eventually(lambda: refunds_of(payment))

    assert (one.status, one.amount, one.external) == ("returned", 300, True)
    assert (await sums(payment), await lines(payment)) == ((300, 300), [("balance", 300), ("processor", -300)])
    assert await is_sound(tenant)


async def refund_there(stripe: SandboxStripe, amount: int) -> None:
    from stripe import AIOHTTPClient, StripeClient

    http = AIOHTTPClient()
    client = StripeClient(stripe.secret_key, base_addresses={"api": stripe.url}, http_client=http)
    try:
        [intent] = stripe.all("payment_intent")
        await client.v1.refunds.create_async({"payment_intent": intent["id"], "amount": amount})
    finally:
        await http.close_async()


async def test_a_refund_that_fails_days_later_is_reversed(api: Api, tenant, stripe, payment):
    async with hearing(), paying_back():
        await ask(api, payment)
        await until_all(payment, "returned")
        [refund] = stripe.all("refund")
        await stripe.fails_refund(refund["id"])
        [failed] = await until_all(payment, "failed")

    assert failed.code == "expired_or_canceled_card"
    assert (await sums(payment), await kinds(payment)) == (
        (0, 0),
        ["refund.created", "refund.returned", "refund.failed"],
    )
    assert await is_sound(tenant)


async def test_a_pending_refund_is_never_given_up_however_often_a_look_up_fails(api: Api, tenant, stripe):
    payment = UUID((await api.pay("10.00", paymentMethod="pm_card_pendingRefund"))["correlationId"])
    await settle_all(tenant)
    async with paying_back():
        await ask(api, payment)
        on_its_way = await eventually(lambda: the_refund(payment, pending=True))
        stripe.fails("error_before", on="GET /v1/refunds*")
        await ask_again(tenant, attempt=MAX_QUESTIONS)
        unanswered = await eventually(lambda: the_refund(payment, pending=False))
        stripe.recovers()
        await stripe.completes_refund(on_its_way.reference)
        await ask_again(tenant, attempt=MAX_QUESTIONS + 1)
        await until_all(payment, "returned")

    assert on_its_way.reference.startswith("re_")
    assert (unanswered.status, unanswered.stopped, unanswered.reference) == ("uncertain", False, on_its_way.reference)
    assert await sums(payment) == (1000, 1000)


async def the_refund(payment: UUID, *, pending: bool) -> RefundRow | None:
    """The payment's only refund, once the latest answer was, or was not, that it is on its way."""
    return next((one for one in await refunds_of(payment) if one.code and (one.code == "pending") is pending), None)


async def ask_again(tenant, *, attempt: int) -> None:
    """As if that many questions had been asked, and the next one were due."""
    sql = "UPDATE payments_refund SET attempt = %s, run_at = now() WHERE tenant_id = %s"
    await database.fetch(sql, [attempt, tenant.pk])
    await database.fetch("NOTIFY refunds")


@pytest.mark.parametrize(("won", "held"), [(True, 0), (False, 1000)], ids=["won", "lost"])
async def test_a_dispute_is_booked_from_its_webhooks_to_its_end(tenant, stripe, payment, won, held):
    [charge] = stripe.all("charge")
    async with hearing():
        dispute = await stripe.disputes(charge["id"])
        await eventually(lambda: held_back(payment, 1000))
        await stripe.decides(dispute["id"], won=won)
        await eventually(lambda: ended(tenant, "won" if won else "lost", held))

    assert await kinds(payment) != []
    assert await is_sound(tenant)


async def held_back(payment: UUID, amount: int) -> bool:
    return sum(units for account, units in await lines(payment, "dispute") if account == "balance") == amount


async def ended(tenant, status: str, held: int) -> bool:
    sql = "SELECT status, withdrawn FROM payments_dispute WHERE tenant_id = %s"
    return await database.fetch(sql, [tenant.pk]) == [(status, held)]
