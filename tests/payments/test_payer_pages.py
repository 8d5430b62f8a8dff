"""The page of a payment that waits for its payer: its content, its policy, and the return of the payer."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from payments.pages import payer
from payments.pages.facts import PaymentFacts
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api
from tests.factories import in_thread, make_stripe
from tests.settling import configure, settle_due, settle_one, tries

CARD = "pm_card_threeDSecure2Required"


@pytest.fixture
async def stripe(tenant) -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url, options={"publishableKey": "pk_test_bed"})
        yield sandbox


@pytest.fixture
def stripe_itself(monkeypatch):
    """As if the account were at Stripe: its action names no other address."""

    asked = PaymentFacts.action.fget

    def action(facts: PaymentFacts) -> dict | None:
        return (found := asked(facts)) and {**found, "url": ""}

    monkeypatch.setattr(PaymentFacts, "action", property(action))


async def page_of(api: Api, payment: dict) -> tuple[str, str]:
    """The page behind the payment's link, and its Content-Security-Policy."""
    address = urlsplit(payment["liveUrl"])
    async with api.get(f"{address.path}?{address.query}") as response:
        assert response.status == 200
        return await response.text(), response.headers["Content-Security-Policy"]


async def come_back(api: Api, payment: dict, token: str | None = None, **options) -> int:
    name, link = payment["correlationId"], parse_qs(urlsplit(payment["liveUrl"]).query)["token"][0]
    async with api.post(f"/payments/{name}/look", params={"token": token or link}, **options) as response:
        return response.status


async def waiting(api: Api, card: str | None = CARD) -> dict:
    payment = await api.pay(**({"paymentMethod": card} if card else {}))
    await settle_one(api, payment, "requires_action")
    return payment


@pytest.mark.parametrize(("card", "words"), [(CARD, "Confirm at your bank"), (None, "Pay R$19.90")])
async def test_stripes_script_is_on_the_page_with_the_keys_that_it_needs(api, stripe, stripe_itself, card, words):
    payment = await waiting(api, card)

    html, policy = await page_of(api, payment)

    [intent] = stripe.all("payment_intent")
    assert '<script src="https://js.stripe.com/v3/"></script>' in html
    assert f'data-secret="{intent["client_secret"]}"' in html and 'data-key="pk_test_bed"' in html
    assert words in html
    assert "script-src 'self' https://js.stripe.com" in policy and "frame-src https://js.stripe.com" in policy
    assert "unsafe" not in policy and "sk_test" not in html


async def test_no_other_page_allows_scripts_of_stripe(api: Api, stripe, stripe_itself):
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_one(api, payment, "succeeded")

    html, policy = await page_of(api, payment)

    assert "stripe.com" not in html + policy


async def test_the_sandbox_of_stripe_has_its_own_page_and_needs_no_exception(api: Api, stripe):
    payment = await waiting(api)

    html, policy = await page_of(api, payment)

    [intent] = stripe.all("payment_intent")
    assert (
        f'href="{stripe.url}/sandbox/pay/{intent["id"]}?client_secret={intent["client_secret"]}&amp;return_url=' in html
    )
    assert "stripe.com" not in html + policy


async def test_a_payment_that_waits_for_its_capture_asks_nothing_of_the_payer(api: Api, tenant, stripe):
    await configure(tenant, "stripe", capture="manual")
    payment = await waiting(api, "pm_card_visa")

    html, _ = await page_of(api, payment)

    assert "until the seller collects it" in html
    assert "client_secret" not in html and "stripe.com" not in html


async def test_the_return_of_the_payer_starts_a_look_up(api: Api, stripe):
    payment = await waiting(api)
    await stripe.authenticates(stripe.all("payment_intent")[0]["id"])

    status = await come_back(api, payment, headers={"X-Requested-With": "fetch"})

    assert status == 204
    await settle_one(api, payment, "succeeded")


async def test_a_payer_who_returns_without_paying_finds_the_payment_waiting(api: Api, stripe):
    payment = await waiting(api)

    await come_back(api, payment)
    await settle_due()

    assert await is_answered(payment, 2)
    assert (await api.status(payment["correlationId"]))["status"] == "requires_action"
    assert len(stripe.all("payment_intent")) == 1


async def is_answered(payment: dict, number: int) -> bool:
    return [attempt.outcome for attempt in await tries(payment["correlationId"])][number - 1 :] == ["requires_action"]


async def test_returning_requires_the_token_of_the_link(api: Api, stripe):
    payment = await waiting(api)

    other = await waiting(api)
    token = parse_qs(urlsplit(other["liveUrl"]).query)["token"][0]

    assert await come_back(api, payment, token=token) == 404
    assert await come_back(api, payment, token="1.AAAA") == 404
    assert (await api.status(payment["correlationId"]))["sequence"] == 3


async def test_returning_to_a_settled_payment_changes_nothing(api: Api, stripe):
    payment = await api.pay(paymentMethod="pm_card_visa")
    settled = await settle_one(api, payment, "succeeded")

    await come_back(api, payment)

    assert await api.status(payment["correlationId"]) == settled


async def test_a_payer_cannot_start_look_ups_without_limit(api: Api, stripe, monkeypatch):
    monkeypatch.setattr(payer, "LOOKS", 1)
    payment = await waiting(api)

    status = await come_back(api, payment)

    assert status == 200
    assert len(await tries(payment["correlationId"])) == 1
