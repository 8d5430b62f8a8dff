"""Payments at a processor of kind stripe, through the stripe library and over HTTP, with their intents."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from payments.models import Plan, Subscription
from payments.settle import lifecycle
from registry.models import Tenant
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api
from tests.factories import in_thread, make_stripe
from tests.settling import configure, settle_one


@pytest.fixture
async def stripe(tenant) -> AsyncIterator[SandboxStripe]:
    """The tenant's account at the sandbox Stripe."""
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url)
        yield sandbox


async def ask(api: Api, verb: str, payment: dict) -> tuple[int, dict]:
    async with api.post(f"/payments/{payment['correlationId']}/{verb}") as response:
        return response.status, await response.json(content_type=None)


async def test_a_card_is_charged_once_and_the_intent_names_the_payment(api: Api, tenant, stripe):
    payment = await api.pay("19.90", paymentMethod="pm_card_visa", description="Two books")

    settled = await settle_one(api, payment, "succeeded")

    [intent] = stripe.all("payment_intent")
    assert settled["processor"] == "stripe"
    assert (intent["amount"], intent["currency"], intent["status"]) == (1990, "brl", "succeeded")
    assert intent["description"] == "Two books"
    assert intent["metadata"]["registry_payment"] == payment["correlationId"]
    assert intent["metadata"]["registry_tenant"] == str(tenant.pk)


async def test_the_fee_is_that_of_stripe(api: Api, stripe):
    payment = await api.pay("100.00", paymentMethod="pm_card_visa")

    await settle_one(api, payment, "succeeded")

    [transaction] = stripe.all("balance_transaction", type="charge")
    told = await api.detail(payment["correlationId"])
    assert told["fee"] == f"{transaction['fee'] / 100:.2f}"
    assert transaction["fee"] != 500  # the account's share would be


async def test_a_connected_account_receives_the_amount_less_the_fee_of_the_plan(api: Api, tenant, stripe):
    stripe.state.add({"id": "acct_shop", "object": "account"})
    await in_thread(subscribe, tenant, "0.02")
    await configure(tenant, "stripe", destination="acct_shop")
    payment = await api.pay("50.00", paymentMethod="pm_card_visa")

    await settle_one(api, payment, "succeeded")

    assert (await api.detail(payment["correlationId"]))["fee"] == "1.00"


def subscribe(tenant: Tenant, share: str) -> None:
    plan = Plan.objects.create(slug="grow", name="Grow", fee_share=share)
    Subscription.objects.create(tenant=tenant, plan=plan, status="active")


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
async def test_a_declined_card_fails_the_payment_with_its_reason_and_leaves_nothing_to_be_paid(
    api: Api, stripe, card, code
):
    payment = await api.pay(paymentMethod=card)

    await settle_one(api, payment, "failed")

    told = await api.detail(payment["correlationId"])
    assert (told["code"], told["attempts"][0]["outcome"]) == (code, "declined")
    assert [intent["status"] for intent in stripe.all("payment_intent")] == ["canceled"]


async def test_a_card_that_requires_authentication_waits_and_is_booked_afterwards(api: Api, tenant, stripe):
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    waiting = await settle_one(api, payment, "requires_action")
    [intent] = stripe.all("payment_intent")
    await stripe.authenticates(intent["id"])

    await look_again(tenant, payment)
    settled = await settle_one(api, payment, "succeeded")

    told = await api.detail(payment["correlationId"])
    assert [event["status"] for event in told["timeline"]] == [
        "queued", "processing", "requires_action", "processing", "succeeded",
    ]  # fmt: skip
    assert (waiting["attempts"], settled["attempts"]) == (1, 2)
    assert len(stripe.received("POST /v1/payment_intents")) == 1


async def look_again(tenant, payment: dict) -> None:
    await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[UUID(payment["correlationId"])])


async def test_a_payment_without_a_method_waits_for_the_payer(api: Api, stripe):
    payment = await api.pay()

    await settle_one(api, payment, "requires_action")

    told = await api.detail(payment["correlationId"])
    assert told["attempts"][0]["outcome"] == "requires_action"
    assert told["attempts"][0]["code"] == "requires_payment_method"


async def test_an_authorized_payment_is_captured_on_request(api: Api, tenant, stripe):
    await configure(tenant, "stripe", capture="manual")
    payment = await api.pay("7.00", paymentMethod="pm_card_visa")
    await settle_one(api, payment, "requires_action")
    [intent] = stripe.all("payment_intent")
    assert intent["status"] == "requires_capture"

    first = await ask(api, "capture", payment)
    await settle_one(api, payment, "succeeded")
    again = await ask(api, "capture", payment)

    assert (first[0], first[1]["status"]) == (202, "processing")
    assert (again[0], again[1]["status"]) == (202, "succeeded")
    assert stripe[intent["id"]]["amount_received"] == 700
    assert len(stripe.received(f"POST /v1/payment_intents/{intent['id']}/capture")) == 1


async def test_a_payment_that_does_not_wait_for_a_capture_is_not_captured(api: Api, stripe):
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    await settle_one(api, payment, "requires_action")

    status, said = await ask(api, "capture", payment)

    assert (status, said["detail"]) == (409, "it is requires_action")


@pytest.mark.parametrize("card", [None, "pm_card_threeDSecure2Required"])
async def test_a_payment_that_waits_is_canceled_at_stripe(api: Api, stripe, card):
    payment = await api.pay(**({"paymentMethod": card} if card else {}))
    await settle_one(api, payment, "requires_action")

    status, said = await ask(api, "cancel", payment)
    await settle_one(api, payment, "canceled")
    again = await ask(api, "cancel", payment)

    [intent] = stripe.all("payment_intent")
    assert (status, said["status"]) == (202, "processing")
    assert (again[0], again[1]["status"]) == (200, "canceled")
    assert (intent["status"], intent["cancellation_reason"]) == ("canceled", "requested_by_customer")


async def test_a_cancel_after_the_payer_paid_books_the_payment(api: Api, stripe):
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    await settle_one(api, payment, "requires_action")
    await stripe.authenticates(stripe.all("payment_intent")[0]["id"])

    status, _ = await ask(api, "cancel", payment)
    settled = await settle_one(api, payment)

    assert (status, settled["status"]) == (202, "succeeded")
