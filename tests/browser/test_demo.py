"""The demo as `make run` starts it: a card payment, a refund and its webhooks in a browser."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.bed.running import Running
from tests.browser.conftest import MODES

PATIENCE = 60_000  # ms: seven processes on two cores that other tests use as well


@pytest.fixture
def panel(demo: Running) -> dict[str, str]:
    return demo.panel()


@pytest.fixture
async def newcomer(browser: Browser, panel: dict[str, str]) -> AsyncIterator[Page]:
    async with await browser.new_context(base_url=panel["Page"], **MODES["light"]) as context:
        context.set_default_timeout(PATIENCE)
        yield await context.new_page()


async def test_a_newcomer_pays_by_card_refunds_it_and_sees_the_webhooks(newcomer: Page, panel: dict[str, str]):
    page = newcomer
    await page.goto("/login")
    await page.get_by_label("User name").fill(panel["Login"])
    await page.get_by_label("Password").fill(panel["Password"])
    await page.get_by_role("button", name="Sign in").click()

    await page.goto("/?tenant=demo")
    await page.get_by_label("Amount").fill("42.00")
    await page.get_by_role("button", name="Pay by card").click()
    await page.get_by_role("link", name="Choose a card").click()
    await page.get_by_role("button", name="asks for 3-D Secure").click()
    await page.get_by_role("button", name="Complete authentication").click()
    await expect(page.locator("[data-pill-here] .pill")).to_have_text("●succeeded", timeout=PATIENCE)

    mine = urlsplit(
        page.url
    ).path  # where the bank sends its payer, who refunds nothing: the shop looks at it as itself
    await page.goto(f"{mine}?tenant=demo")
    await page.get_by_role("link", name="Refund…").click()
    await page.get_by_label("Amount").fill("12.00")
    await page.get_by_label("Why").fill("one was broken")
    await page.get_by_role("button", name="Refund").click()
    await expect(page.get_by_text("12.00").first).to_be_visible(timeout=PATIENCE)

    await page.goto("/webhooks?tenant=demo")
    await page.get_by_role("link", name="The demo's shop").click()
    for kind in ("payment.requires_action", "payment.succeeded", "refund.returned"):
        await heard(page, kind)


async def heard(page: Page, kind: str) -> None:
    """Its delivery is on the page; a page shows what there was when it was asked for."""
    row = page.locator("tr[data-delivery]", has_text=kind).filter(has_text="delivered").first
    async with asyncio.timeout(PATIENCE / 1000):
        while not await row.is_visible():
            await asyncio.sleep(0.2)
            await page.reload()
