"""A card payment in the demo, from the stream to the page of the bank and back, at the sandbox Stripe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Locator, Page, expect

from payments.inbound.work import InboundWork
from queueing.work.drain import Drain
from registry.models import Tenant
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.browser.conftest import Guard, audit
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_stripe


@asynccontextmanager
async def webhooks_taken() -> AsyncIterator[None]:
    """A worker's drain of what processors tell."""
    job = InboundWork()
    drain = Drain(job)
    working = asyncio.create_task(drain.run(seconds=600))
    try:
        yield
    finally:
        drain.stop()
        await working
        await job.close()


@pytest.fixture
async def stripe(tenant: Tenant, server: str, guard: Guard) -> AsyncIterator[SandboxStripe]:
    """As the demo has it: asked for by name only, and telling the service what happens. It comes before the page among the arguments
    of a test, so that it is there until the page is closed."""
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url, fee="0.039", options={"onlyByName": True})
        sandbox.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")
        guard.allowed.append(f"outside: {sandbox.url}/")
        async with at_work(), webhooks_taken():
            yield sandbox


async def choose_card(page: Page, amount: str = "42.00") -> None:
    """From the stream's form to the sandbox's page."""
    await page.goto("/")
    await page.get_by_label("Amount").fill(amount)
    await page.get_by_role("button", name="Pay by card").click()
    await page.get_by_role("link", name="Choose a card").click()
    await expect(page.get_by_role("heading", name="Pay by card")).to_be_visible()


async def test_a_card_that_requires_authentication_is_charged_over_three_pages(stripe: SandboxStripe, page: Page):
    await choose_card(page)
    await expect(page.locator("main")).to_contain_text("BRL 42.00")
    assert await audit(page) == []
    await page.get_by_role("button", name="asks for 3-D Secure").click()
    await page.get_by_role("button", name="Complete authentication").click()

    await expect(page.locator("[data-pill-here] .pill")).to_have_text("●succeeded")
    await expect(page.locator(".sentence")).to_have_text("The payment succeeded.")
    assert "payment_intent" not in page.url
    [intent] = stripe.all("payment_intent")
    assert (intent["status"], intent["amount_received"]) == ("succeeded", 4200)


async def test_a_payment_settles_although_the_payer_does_not_return(stripe: SandboxStripe, page: Page):
    await choose_card(page)
    await page.get_by_role("button", name="asks for 3-D Secure").click()
    shop = await page.context.new_page()
    await shop.goto("/payments/list")
    await shop.locator("#payments a").first.click()
    await expect(shop.locator("[data-pill-here] .pill")).to_contain_text("requires action")

    [intent] = stripe.all("payment_intent")
    await stripe.authenticates(intent["id"])  # the bank knows, and their window is closed

    await expect(shop.locator("[data-pill-here] .pill")).to_have_text("●succeeded")


async def test_a_card_is_chosen_without_javascript(stripe: SandboxStripe, plain: Page):
    stripe.webhooks.listeners.clear()  # so that nobody tells the service before the payer asks it to look
    card = plain.get_by_role("link", name="Choose a card")
    await plain.goto("/")
    async with plain.expect_navigation():  # a reload while a page is being left would fail
        await plain.get_by_role("button", name="Pay by card").click()
    await reloaded_until(plain, card)
    await card.click()

    await plain.get_by_role("button", name="succeeds").click()
    async with plain.expect_navigation():
        await plain.get_by_role("button", name="I have done that").click()

    await reloaded_until(plain, plain.locator("[data-pill-here] .pill", has_text="succeeded"))
    assert stripe.all("payment_intent")[0]["status"] == "succeeded"


async def reloaded_until(page: Page, wanted: Locator) -> None:
    async def reloaded() -> bool:
        await page.reload()
        return await wanted.is_visible()

    await eventually(reloaded)
