"""Live pages: a payment and a tenant's stream over lost connections, and the switches of the demo."""

import asyncio
import time

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import hurry, pay_many
from tests.conftest import Api, at_work

SOON = 1000  # ms from the settling to the page: the promise
REFRESH_EVERY = 2000  # ms between two looks at the figures, as the page has it
READ_EVERY = 3000  # ms between two looks at the rows where websockets are blocked


async def block(page: Page) -> None:
    """Cut the line, and let no new one be opened."""
    await page.evaluate("line.blocked = true; line.sockets.forEach((socket) => socket.close())")


async def unblock(page: Page) -> None:
    await page.evaluate("line.blocked = false; dispatchEvent(new Event('online'))")


async def is_live(page: Page) -> None:
    await expect(page.locator("[data-live=live]")).to_be_visible()


# -- The payment page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("payer", [True, False], ids=["payer", "visitor of the tenant"])
async def test_a_payment_page_changes_within_a_second_of_the_settling(page: Page, tenant, api: Api, payer: bool):
    payment = await api.pay(description="Two coffees")
    told = "The payment succeeded." if payer else "Booked at default,"
    await page.goto(payment["liveUrl"] if payer else f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}")
    await is_live(page)
    await expect(page.locator("#payment .pill").first).to_have_text("○queued")

    async with at_work():
        await api.until(payment["correlationId"], "succeeded")
        started = time.monotonic()
        await expect(page.locator("[data-pill-here] .pill")).to_have_text("●succeeded", timeout=SOON)
        await expect(page.locator(".sentence")).to_contain_text(told, timeout=SOON)
        took = (time.monotonic() - started) * 1000
    assert took < SOON
    if not payer:
        await expect(page.locator(".attempt")).to_contain_text("Routing reason: cheapest")
    await expect(page.locator("#announce")).to_contain_text(told)
    assert await page.title() == "R$19.90 – succeeded"


async def test_a_payment_page_catches_up_after_a_lost_connection(page: Page, tenant, api: Api):
    payment = await api.pay()
    await page.goto(payment["liveUrl"])
    await is_live(page)
    await block(page)
    await expect(page.locator("[data-live=live]")).to_have_count(0)

    async with at_work():
        await api.until(payment["correlationId"], "succeeded")
    await unblock(page)

    await is_live(page)
    await expect(page.locator(".sentence")).to_contain_text("The payment succeeded.")
    await expect(page.locator(".timeline > li")).to_have_count(3)


async def test_where_websockets_are_blocked_the_page_polls(page: Page, tenant, api: Api):
    await page.add_init_script("line.blocked = true")
    payment = await api.pay()
    await page.goto(payment["liveUrl"])
    await expect(page.locator("[data-live=polling]")).to_be_visible()

    async with at_work():
        await api.until(payment["correlationId"], "succeeded")
        await expect(page.locator(".sentence")).to_contain_text("The payment succeeded.", timeout=SOON)
    await unblock(page)
    await is_live(page)


# -- The stream ------------------------------------------------------------------------------------------------


async def rows(page: Page) -> dict[str, str]:
    """The table: the state's word by payment."""
    return dict(
        await page.evaluate(
            "[...document.querySelectorAll('tbody tr')].map((r) => [r.dataset.id, r.querySelector('.pill').dataset.status])"
        )
    )


async def settles_to(page: Page, wanted: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while (found := {k: v for k, v in (await rows(page)).items() if k in wanted}) != wanted:
            await asyncio.sleep(0.05)
            assert set(found) <= set(wanted)


async def test_new_payments_arrive_and_change_in_place(page: Page, tenant, api: Api):
    first = await pay_many(api, 3)
    await page.goto("/payments/list")
    await is_live(page)
    await page.mouse.move(5, 5)
    more = await pay_many(api, 4)
    await settles_to(page, dict.fromkeys(first + more, "queued"))

    async with at_work():
        await settles_to(page, dict.fromkeys(first + more, "succeeded"))
    await expect(page.locator("[data-total]")).to_have_text("7")


async def test_a_stream_misses_nothing_after_a_lost_connection(page: Page, tenant, api: Api, worker):
    before = await pay_many(api, 3)
    await page.goto("/payments/list")
    await is_live(page)
    await block(page)
    meanwhile = await pay_many(api, 12)
    for one in meanwhile:
        await api.until(one, "succeeded")
    await unblock(page)

    await settles_to(page, dict.fromkeys(before + meanwhile, "succeeded"))
    after = await pay_many(api, 2)
    await settles_to(page, dict.fromkeys(before + meanwhile + after, "succeeded"))


async def test_without_websockets_a_list_reloads_its_rows(page: Page, tenant, api: Api, worker):
    await hurry(page)
    await page.add_init_script("line.blocked = true")
    before = await pay_many(api, 2)
    await page.goto("/payments/list")
    await expect(page.locator("[data-live=polling]")).to_be_visible()
    more = await pay_many(api, 2)

    await settles_to(page, dict.fromkeys(before + more, "succeeded"))
    assert READ_EVERY in await page.evaluate("waits")


async def test_the_first_payment_fills_an_empty_page(page: Page, tenant, api: Api, worker):
    await page.goto("/payments/list")
    await is_live(page)
    (payment,) = await pay_many(api, 1)

    await expect(page.locator(f'tr[data-id="{payment}"] .pill')).to_have_text("●succeeded")


async def test_rows_do_not_move_under_the_pointer(page: Page, tenant, api: Api):
    await pay_many(api, 10)
    await page.goto("/payments/list")
    await is_live(page)
    row = page.locator("tbody tr").nth(2)
    await row.hover()
    pointed_at = await row.get_attribute("data-id")
    await pay_many(api, 5)

    await expect(page.get_by_role("button", name="5 new")).to_be_visible()
    assert await row.get_attribute("data-id") == pointed_at
    await page.get_by_role("button", name="5 new").click()
    await expect(page.locator("tbody tr")).to_have_count(15)
    await expect(page.get_by_role("button", name="new")).to_have_count(0)


async def test_a_filtered_table_adds_only_matching_rows(page: Page, tenant, api: Api):
    await page.goto("/payments/list?status=failed")
    await is_live(page)
    await pay_many(api, 2)
    await page.goto("/payments/list?status=queued")
    await is_live(page)
    (more,) = await pay_many(api, 1)

    await expect(page.locator(f'tr[data-id="{more}"]')).to_be_visible()
    await expect(page.locator("tbody tr")).to_have_count(3)


# -- The demo ----------------------------------------------------------------------------------------------------


async def trickle(api: Api) -> None:
    while True:
        await api.pay()
        await asyncio.sleep(0.05)


async def test_a_processor_that_fails_shows_breaker_and_rerouting(page: Page, tenant, api: Api, worker):
    await hurry(page)
    traffic = asyncio.create_task(trickle(api))
    try:
        await page.goto("/")
        await page.locator("#switch-default-fail").click()

        await expect(page.locator("#switch-default-fail")).to_have_attribute("aria-pressed", "true")
        await expect(
            page.locator('#processor-default[data-breaker="open"], #processor-default[data-breaker="half_open"]')
        ).to_be_visible()
        await expect(page.locator("#announce")).to_contain_text("default:")

        await page.goto("/payments/list")
        await expect(
            page.locator("tbody tr", has_text="succeeded").locator(".where", has_text="fallback").first
        ).to_be_visible()

        await page.goto("/")
        await page.locator("#switch-default-work").click()
        await expect(page.locator('#processor-default[data-breaker="closed"]')).to_be_visible(timeout=15_000)
    finally:
        traffic.cancel()


async def test_a_test_payment_is_sent_and_can_be_watched(page: Page, tenant, worker):
    await page.goto("/")
    await page.get_by_label("Amount").fill("0")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#sent")).to_contain_text("must be greater than zero")
    await page.get_by_label("Amount").fill("7.77")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#sent")).to_contain_text("Accepted in")
    await page.get_by_role("link", name="Watch it live").click()

    await expect(page.locator(".amount")).to_have_text("R$7.77")
    await expect(page.locator(".sentence")).to_contain_text("Booked at default,")


async def test_the_figures_are_refreshed_periodically(page: Page, tenant, api: Api, worker):
    await hurry(page)
    await page.goto("/")
    await expect(page.locator("#volume .main")).to_have_text("R$0.00")
    await pay_many(api, 20)
    for _ in range(2):
        async with page.expect_response(lambda response: "/overview" in response.url) as answer:
            assert (await (await answer.value).finished()) is None

    await expect(page.locator("#volume .main")).not_to_have_text("R$0.00")
    assert REFRESH_EVERY in await page.evaluate("waits")
