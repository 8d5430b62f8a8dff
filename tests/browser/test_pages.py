"""Appearance and accessibility of the pages: light, dark, phone, keyboard, screen reader, and without JavaScript."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from payments.books import figures
from payments.models import Processor
from payments.states import LOOKS, Status
from registry.errors import Unavailable
from registry.models import Tenant
from tests.browser.conftest import PICTURES, Guard, looks_right, pay_many
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_payment, make_person

LOOKS_AGAIN = '<meta http-equiv="refresh" content="%d">'  # seconds
FIRST_VIEW = 100_000  # bytes over the line


async def one_of_each_state(tenant: Tenant) -> list[Any]:
    processor = await in_thread(Processor.objects.get, tenant=tenant, name="default")
    return [await in_thread(make_payment, tenant, status=status, processor=processor) for status in Status]


async def test_the_home_and_the_list_of_payments_look_right(page: Page, tenant, api: Api, tmp_path: Path):
    async with at_work():
        for one in await pay_many(api, 30):
            await api.until(one, "succeeded")
    await one_of_each_state(tenant)
    await page.goto("/")
    await expect(page.locator("canvas")).to_have_count(2)
    await looks_right(page, "home", tmp_path)

    await page.goto("/payments/list")
    await expect(page.locator("[data-live=live]")).to_be_visible()
    await looks_right(page, "payments", tmp_path)


async def test_the_payment_page_looks_right(page: Page, tenant, api: Api, worker, tmp_path: Path):
    payment = await api.pay("1234.50", description="Two coffees")
    await api.until(payment["correlationId"], "succeeded")
    await page.goto(payment["liveUrl"])
    await expect(page.locator("[data-live=live]")).to_be_visible()

    await expect(page.locator(".amount")).to_have_text("R$1,234.50")
    await expect(page.locator(".sentence")).to_contain_text("The payment succeeded.")
    await looks_right(page, "payment", tmp_path)


@pytest.mark.parametrize(
    "address", ["/login", "/password", "/payments/00000000-0000-4000-8000-000000000000/live?token=1.x"]
)
async def test_the_other_pages_look_right(page: Page, guard: Guard, tenant, tmp_path: Path, address: str):
    guard.allowed.append("status of 404")
    await page.goto(address)

    await looks_right(page, address.split("/")[1], tmp_path)


async def test_an_empty_list_has_instructions(page: Page, tenant, tmp_path: Path):
    await page.goto("/payments/list")

    await expect(page.get_by_role("heading", name="No payments yet")).to_be_visible()
    await expect(page.locator("pre")).to_contain_text("curl http://")
    await looks_right(page, "empty", tmp_path)


async def test_every_state_has_a_word_a_shape_and_a_colour(page: Page, tenant):
    payments = await one_of_each_state(tenant)
    await page.goto("/payments/list")

    for payment in payments:
        pill = page.locator(f'tr[data-id="{payment.correlation_id}"] .pill')
        await expect(pill).to_have_text(f"{LOOKS[payment.status].shape}{payment.status.label.lower()}")
        await expect(pill).to_have_class(f"pill {LOOKS[payment.status].colour}")


async def test_the_first_view_is_light(own_page: Page, tenant, api: Api, worker):
    await pay_many(api, 30)
    sizes: dict[str, int] = {}
    page = own_page
    client = await page.context.new_cdp_session(page)
    await client.send("Network.enable")
    client.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    await page.goto("/", wait_until="load")
    await expect(page.locator("canvas")).to_have_count(2)

    assert sum(sizes.values()) < FIRST_VIEW, sizes


async def test_the_theme_switch_is_kept(page: Page, tenant):
    await page.goto("/")
    await page.get_by_role("button", name="Dark colours").click()
    await page.reload()

    await expect(page.get_by_role("button", name="Dark colours", pressed=True)).to_be_visible()
    assert await page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


async def test_everything_is_reached_with_the_keyboard(page: Page, tenant, api: Api):
    payment = await api.pay()
    await page.goto("/")
    assert await reached_by_tab(page) >= {"switch-default-work", "switch-fallback-hang", "amount"}

    await page.goto("/payments/list")
    reached = await reached_by_tab(page)
    assert reached >= {"q", "status", "to", "Copy the id"}
    assert f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}" in reached


async def reached_by_tab(page: Page) -> set[str]:
    """Ids, addresses or names of what has the focus, one after the other; the first is the link that skips the navigation."""
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = set()
    for _ in range(60):
        await page.keyboard.press("Tab")
        reached.add(
            await page.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('href') || document.activeElement.ariaLabel"
            )
        )
    return reached


async def test_an_id_is_copied_whole(own_page: Page, tenant, api: Api):
    page = own_page
    payment = await api.pay()
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(payment["liveUrl"])
    await page.get_by_role("button", name="Copy the id").click()

    assert await page.evaluate("navigator.clipboard.readText()") == payment["correlationId"]


# -- Without JavaScript --------------------------------------------------------------------------------------


async def test_without_javascript_payments_can_be_read_paged_and_filtered(plain: Page, tenant, api: Api, worker):
    ids = await pay_many(api, 30)
    for one in ids:
        await api.until(one, "succeeded")
    await plain.goto("/payments/list")
    await expect(plain.locator("tbody tr")).to_have_count(25)
    await plain.get_by_role("link", name="Older").click()
    await expect(plain.locator("tbody tr")).to_have_count(5)

    await plain.get_by_label("Search", exact=True).fill(ids[0])
    await plain.get_by_role("button", name="Search").click()
    await expect(plain.locator("tbody tr")).to_have_count(1)
    await plain.locator("tbody a").click()
    await expect(plain.locator(".amount")).to_have_text("R$1.50")


async def test_without_javascript_the_switches_and_the_form_work(plain: Page, guard: Guard, tenant, worker):
    guard.allowed.append("status of 422")
    await plain.goto("/")
    await plain.locator("#switch-default-slow").click()
    await expect(plain.locator("#switch-default-slow")).to_have_attribute("aria-pressed", "true")

    await plain.get_by_label("Amount").fill("twelve")
    await plain.get_by_role("button", name="Send").click()
    await expect(plain.locator(".error")).to_contain_text("Amount must be a number")
    await expect(plain.get_by_label("Amount")).to_have_value("twelve")
    await plain.get_by_label("Amount").fill("12,30")
    await plain.get_by_role("button", name="Send").click()
    await expect(plain.locator(".amount")).to_have_text("R$12.30")


# -- Whose page it is -----------------------------------------------------------------------------------------


async def sign_in(page: Page, name: str, password: str) -> None:
    await page.goto("/login")
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_visitor_without_a_session_is_sent_to_the_login(page: Page, tenant, settings):
    settings.REGISTRY_OPEN_TENANT = ""
    await page.goto("/")

    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_member_sees_their_own_tenant_and_no_other(page: Page, guard: Guard, tenant, stranger: Api, settings):
    settings.REGISTRY_OPEN_TENANT = ""
    theirs = await stranger.pay("66.60")
    other = await in_thread(lambda: Tenant.objects.get(slug__startswith="other-").slug)
    await in_thread(make_person, "ana", tenant=tenant, role="viewer", password="correct horse battery")
    await sign_in(page, "ana", "correct horse battery")

    await expect(page.get_by_role("heading", name="Home", exact=True)).to_be_visible()
    await expect(page.get_by_text("66.60")).to_have_count(0)
    await expect(page.get_by_role("button", name="fail")).to_have_count(0)  # viewers look on
    guard.allowed.append("status of 404")
    for address in (
        f"/?tenant={other}",
        "/?tenant=nobody",
        f"/payments/{theirs['correlationId']}/live",
        f"/overview?tenant={other}",
    ):
        response = await page.goto(address)
        assert response.status == 404, address


async def test_a_link_shows_its_payment_and_no_other(page: Page, guard: Guard, tenant, api: Api, settings):
    settings.REGISTRY_OPEN_TENANT = ""
    mine, other = await api.pay(), await api.pay()
    token = mine["liveUrl"].partition("token=")[2]
    guard.allowed.append("status of 404")

    assert (await page.goto(mine["liveUrl"])).status == 200
    assert (await page.goto(f"/payments/{other['correlationId']}/live?token={token}")).status == 404


async def test_text_of_payments_is_never_markup(page: Page, tenant, api: Api):
    payment = await api.pay(description="<img src=x onerror=alert(1)><script>alert(2)</script>")
    await page.goto(payment["liveUrl"])

    await expect(page.locator(".what")).to_have_text("<img src=x onerror=alert(1)><script>alert(2)</script>")


@pytest.mark.parametrize("query", ["status=nonsense", "from=yesterday", "amount_to=x", "to=9999-99-99T00:00"])
async def test_an_invalid_filter_is_explained(page: Page, tenant, query: str):
    response = await page.goto(f"/payments/list?{query}")

    assert response.status == 200
    await expect(page.locator(".error")).to_be_visible()


async def test_an_outage_of_the_database_is_shown_and_the_page_reloads(page: Page, guard: Guard, tenant, monkeypatch):
    async def away(_: int) -> None:
        raise Unavailable

    async def sooner(route: Route) -> None:
        """The answer as it is, but the page looks again in a second."""
        answer = await route.fetch()
        await route.fulfill(response=answer, body=(await answer.text()).replace(LOOKS_AGAIN % 5, LOOKS_AGAIN % 1))

    await page.route("**/", sooner, times=1)
    guard.allowed.append("status of 503")
    with monkeypatch.context() as patch:
        patch.setattr(figures, "present", away)
        response = await page.goto("/")
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        await expect(page.get_by_role("heading", name="The database is unavailable")).to_be_visible()
        await expect(page.locator('meta[http-equiv="refresh"]')).to_have_attribute("content", "1")

    await expect(page.get_by_role("heading", name="Home", exact=True)).to_be_visible()


# -- The README's pictures -------------------------------------------------------------------------------------


async def test_the_pictures_of_the_readme_can_be_taken(page: Page, tenant, api: Api, worker, tmp_path):
    """REGISTRY_PICTURES=1 takes them with more payments, and keeps them in docs/pictures."""
    keep = os.environ.get("REGISTRY_PICTURES") == "1"
    folder, payments, pause = (PICTURES, 150, 0.15) if keep else (tmp_path, 5, 0)
    await page.set_viewport_size({"width": 1280, "height": 1320})
    await page.goto("/?range=1h")
    await page.locator("#switch-default-fail").click()
    for _ in range(payments):
        payment = await api.pay("19.90", description="Two coffees")
        await asyncio.sleep(pause)
    await page.screenshot(path=folder / "dashboard.png")
    await api.until(payment["correlationId"], "succeeded")
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.goto(f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}")
    await expect(page.locator("[data-live=live]")).to_be_visible()
    await page.screenshot(path=folder / "payment.png")

    assert (folder / "dashboard.png").stat().st_size > 10_000
    assert (folder / "payment.png").stat().st_size > 10_000
