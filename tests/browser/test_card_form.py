"""The card form of Stripe on the payment's page, with a stand-in for Stripe's script. Payments are real ones."""

import pytest
from playwright.async_api import Page, Route, expect

from payments.pages.facts import PaymentFacts
from tests.bed.stripe import sandbox_stripe
from tests.browser.conftest import audit
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_stripe

# Stripe.js as far as a page sees it. It confirms at the sandbox as the real one does at Stripe, which takes its word by CORS.
STRIPE_JS = """
window.asked = [];
window.Stripe = (key) => ({
  elements: (options) => ({ create: (kind) => ({ mount: (place) => {
    window.asked.push(["mount", key, kind, options.clientSecret]);
    document.querySelector(place).textContent = "card number, date, code";
  } }) }),
  confirmPayment: async ({ confirmParams }) => window.answer("confirm", confirmParams.return_url),
  handleNextAction: async ({ clientSecret }) => window.answer("authenticate", clientSecret),
});
"""


@pytest.fixture
async def stripe(tenant, page: Page, guard, monkeypatch):
    """The tenant's account at "Stripe itself": the page is not told that it is another's address."""

    asked = PaymentFacts.action.fget

    def action(facts: PaymentFacts) -> dict | None:
        return (found := asked(facts)) and {**found, "url": ""}

    async def script(route: Route) -> None:
        await route.fulfill(body=STRIPE_JS, content_type="text/javascript")

    monkeypatch.setattr(PaymentFacts, "action", property(action))
    guard.allowed.append("outside: https://js.stripe.com/v3/")
    await page.route("https://js.stripe.com/**", script)
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url, options={"publishableKey": "pk_test_bed"})
        yield sandbox


async def answers(page: Page, **steps) -> None:
    """What Stripe.js does when it is asked to confirm or to authenticate."""

    async def answer(step: str, *of: str) -> dict:
        return await steps[step](*of) or {}

    await page.expose_function("answer", answer)


async def test_a_page_that_is_open_gets_the_form_once_the_payment_waits_for_its_payer(page: Page, stripe, api: Api):
    payment = await api.pay(processor="stripe")
    await page.goto(payment["liveUrl"])

    async with at_work():
        await expect(page.get_by_role("button", name="Pay R$19.90")).to_be_enabled()

    [intent] = stripe.all("payment_intent")
    assert await page.evaluate("window.asked") == [["mount", "pk_test_bed", "payment", intent["client_secret"]]]
    assert await audit(page) == []


async def test_a_payer_authenticates_and_sees_the_payment_booked(page: Page, stripe, api: Api):
    async def authenticate(secret: str) -> None:
        [intent] = stripe.all("payment_intent", client_secret=secret)
        await stripe.authenticates(intent["id"])

    await answers(page, authenticate=authenticate)
    async with at_work():
        payment = await api.pay(processor="stripe", paymentMethod="pm_card_threeDSecure2Required")
        await api.until(payment["correlationId"], "requires_action")
        await page.goto(payment["liveUrl"])
        await page.get_by_role("button", name="Confirm at your bank").click()

        await expect(page.locator("[data-pill-here] .pill")).to_have_text("●succeeded")

    await expect(page.locator("#action")).to_be_hidden()


async def test_a_declined_card_is_reported_beside_the_form(page: Page, stripe, api: Api):
    async def confirm(address: str) -> dict:
        return {"error": {"message": "Your card was declined."}}

    await answers(page, confirm=confirm)
    async with at_work():
        payment = await api.pay(processor="stripe")
        await api.until(payment["correlationId"], "requires_action")
        await page.goto(payment["liveUrl"])
        await page.get_by_role("button", name="Pay R$19.90").click()

        await expect(page.get_by_role("alert")).to_have_text("Your card was declined.")

    await expect(page.get_by_role("button", name="Pay R$19.90")).to_be_enabled()
    assert (await api.status(payment["correlationId"]))["sequence"] == 3


async def test_a_script_that_does_not_load_is_explained(page: Page, stripe, guard, api: Api):
    guard.allowed.append("net::ERR_FAILED")
    await page.unroute("https://js.stripe.com/**")
    await page.route("https://js.stripe.com/**", lambda route: route.abort())
    async with at_work():
        payment = await api.pay(processor="stripe")
        await api.until(payment["correlationId"], "requires_action")

    await page.goto(payment["liveUrl"])

    await expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    await expect(page.get_by_role("button", name="Pay R$19.90")).to_be_disabled()
