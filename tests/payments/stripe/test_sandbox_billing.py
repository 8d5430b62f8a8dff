"""The sandbox's subscriptions, through the real library: a trial, renewals, dunning, Checkout, the portal."""

import re

import pytest
import stripe as library

from tests.bed.stripe import SandboxStripe

DAY = 86_400
MONTHLY = {
    "currency": "usd",
    "unit_amount": 2900,
    "recurring": {"interval": "month"},
    "product_data": {"name": "Registry"},
    "lookup_key": "registry_monthly",
}


async def subscribed(client, card: str = "pm_card_visa", **more) -> library.Subscription:
    price = await client.prices.create_async(MONTHLY)
    customer = await client.customers.create_async({"payment_method": card})
    (method,) = (await client.customers.payment_methods.list_async(customer.id)).data
    return await client.subscriptions.create_async(
        {"customer": customer.id, "items": [{"price": price.id}], "default_payment_method": method.id, **more}
    )


async def test_a_subscription_is_active_once_its_first_invoice_is_paid(client):
    subscription = await subscribed(client, expand=["latest_invoice"])

    invoice = subscription.latest_invoice
    assert (subscription.status, invoice.status, invoice.amount_paid) == ("active", "paid", 2900)
    assert invoice.parent.subscription_details.subscription == subscription.id


async def test_a_trial_costs_nothing_until_it_ends(client, stripe: SandboxStripe):
    subscription = await subscribed(client, trial_period_days=14)
    assert (subscription.status, stripe.all("charge")) == ("trialing", [])

    await stripe.puts_clock_forward(15 * DAY)

    assert stripe[subscription.id]["status"] == "active"
    assert [charge["amount"] for charge in stripe.all("charge")] == [2900]
    assert "customer.subscription.trial_will_end" in {event["type"] for event in stripe.all("event")}


async def test_a_renewal_that_is_declined_is_tried_again_until_the_subscription_ends(client, stripe: SandboxStripe):
    subscription = await subscribed(client, "pm_card_chargeCustomerFail", trial_period_days=1)
    statuses = []

    for days in (2, 3, 5, 7):
        await stripe.puts_clock_forward(days * DAY + 1)
        statuses.append(stripe[subscription.id]["status"])

    assert statuses == ["past_due", "past_due", "past_due", "canceled"]
    failed = [event for event in stripe.all("event") if event["type"] == "invoice.payment_failed"]
    assert len(failed) == 4


async def test_an_open_invoice_can_be_paid_with_another_card(client, stripe: SandboxStripe):
    subscription = await subscribed(client)
    await stripe.renews(subscription.id, paid=False)
    assert stripe[subscription.id]["status"] == "past_due"

    await client.invoices.pay_async(stripe[subscription.id]["latest_invoice"], {"payment_method": "pm_card_visa"})

    assert stripe[subscription.id]["status"] == "active"


async def test_a_subscription_canceled_at_period_end_ends_with_its_period(client, stripe: SandboxStripe):
    subscription = await subscribed(client)
    await client.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})

    await stripe.puts_clock_forward(31 * DAY)

    assert stripe[subscription.id]["status"] == "canceled"
    assert len(stripe.all("charge")) == 1


async def test_a_subscription_can_be_canceled_at_once(client):
    subscription = await subscribed(client)

    canceled = await client.subscriptions.cancel_async(subscription.id)

    assert canceled.status == "canceled"


async def test_a_price_is_found_by_its_lookup_key(client):
    price = await client.prices.create_async(MONTHLY)

    found = await client.prices.list_async({"lookup_keys": ["registry_monthly"], "expand": ["data.product"]})

    assert [(one.id, one.product.name) for one in found.data] == [(price.id, "Registry")]


@pytest.fixture
async def session(client) -> library.checkout.Session:
    price = await client.prices.create_async(MONTHLY)
    return await client.checkout.sessions.create_async(
        {
            "mode": "subscription",
            "line_items": [{"price": price.id, "quantity": 1}],
            "subscription_data": {"trial_period_days": 14, "metadata": {"tenant": "shop"}},
            "success_url": "https://registry.example/welcome?session={CHECKOUT_SESSION_ID}",
            "client_reference_id": "tenant-1",
            "customer_email": "owner@shop.example",
        }
    )


async def test_a_customer_subscribes_in_checkout(client, session, http, stripe: SandboxStripe):
    async with http.get(session.url) as answer:
        assert "The first 14 days are free." in await answer.text()

    async with http.post(session.url, data={"card": "pm_card_visa"}, allow_redirects=False) as answer:
        assert answer.headers["Location"] == f"https://registry.example/welcome?session={session.id}"

    done = await client.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription"]})
    assert (done.status, done.subscription.status) == ("complete", "trialing")
    assert done.subscription.metadata["tenant"] == "shop"
    assert [event["data"]["object"]["client_reference_id"] for event in stripe.all("event")
            if event["type"] == "checkout.session.completed"] == ["tenant-1"]  # fmt: skip


async def test_a_declined_card_leaves_the_session_open(client, session, http):
    async with http.post(session.url, data={"card": "pm_card_chargeDeclined"}) as answer:
        html = await answer.text()

    assert "Your card was declined." in html
    assert (await client.checkout.sessions.retrieve_async(session.id)).status == "open"


async def test_the_portal_pays_what_is_open_with_another_card(client, http, stripe: SandboxStripe):
    subscription = await subscribed(client)
    await stripe.renews(subscription.id, paid=False)
    portal = await client.billing_portal.sessions.create_async({"customer": subscription.customer})

    async with http.post(portal.url, data={"card": "pm_card_visa"}) as answer:
        html = await answer.text()

    assert stripe[subscription.id]["status"] == "active"
    assert re.search("<b>active</b>", html)


async def test_a_destination_charge_transfers_the_share_of_the_connected_account(client, stripe: SandboxStripe):
    from sandbox.connect import balance_of

    account = await client.accounts.create_async({"type": "express", "country": "BR"})

    intent = await client.payment_intents.create_async(
        {
            "amount": 10_000,
            "currency": "brl",
            "payment_method": "pm_card_visa",
            "allowed_payment_method_types": ["card"],
            "confirm": True,
            "transfer_data": {"destination": account.id},
            "application_fee_amount": 500,
        }
    )

    assert balance_of(stripe.state, account.id) == 9_500
    await client.refunds.create_async(
        {"payment_intent": intent.id, "reverse_transfer": True, "refund_application_fee": True}
    )
    assert balance_of(stripe.state, account.id) == 0
