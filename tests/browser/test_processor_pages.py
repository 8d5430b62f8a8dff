"""The pages of processors in a real browser: how they look, and an owner's way from none to the first payment."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from payments.models import Processor
from registry.models import Tenant
from tests.browser.conftest import BRIEFLY, Guard, looks_right
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of


@pytest.fixture
def cookies(tenant: Tenant, server: str) -> list[Any]:
    """Those of an owner of `tenant`."""
    owner = make_person(tenant=tenant, role="owner")
    return [{"name": "sessionid", "value": session_of(owner), "url": server}]


async def test_an_owner_adds_a_test_processor_and_a_payment_is_booked_there(
    page: Page, guard: Guard, tenant: Tenant, api: Api
):
    guard.allowed.append("status of 422")
    await in_thread(lambda: Processor.objects.filter(tenant=tenant).delete())
    await page.goto("/processors")
    await expect(page.get_by_role("heading", name="No processor yet")).to_be_visible()
    await page.get_by_role("link", name="Test processor").click()
    await page.get_by_label("Name", exact=True).fill("first")
    await page.get_by_label("Fee").fill("2,5")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_text("Enter a number.")).to_be_visible()
    await page.get_by_label("Fee").fill("2.5")
    await page.get_by_role("button", name="Add").click()

    await expect(page.get_by_role("heading", name="first")).to_be_visible()
    async with at_work():
        await api.until((await api.pay())["correlationId"], "succeeded")


async def test_the_pages_of_processors_look_right(page: Page, guard: Guard, tenant: Tenant, api: Api, tmp_path: Path):
    guard.allowed.append("status of 422")
    await api.pay()
    async with at_work():
        await api.until((await api.pay())["correlationId"], "succeeded")
    await page.goto("/processors?add=stripe")
    await looks_right(page, "processors", tmp_path)
    await page.get_by_role("button", name="Add").click()
    await expect(page.locator(".error").first).to_be_visible()
    await looks_right(page, "processors-wrong", tmp_path, BRIEFLY)
    await page.goto("/processors/default")
    await looks_right(page, "processor", tmp_path, BRIEFLY)
    await page.goto("/routing")
    await page.get_by_label("default: fee").fill("0.5")
    await page.get_by_role("button", name="Simulate").click()
    await expect(page.get_by_role("heading", name="Put these rules in force")).to_be_visible()
    await looks_right(page, "routing", tmp_path, BRIEFLY)
