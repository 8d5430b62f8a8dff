"""The admin in a browser: its lists fit, its first page says what needs attention, on a desk and on a phone."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse
from playwright.async_api import Page

from tests.browser.admin_rows import make_every_row
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of


@pytest.fixture
def cookies(server: str) -> list[Any]:
    """Those of a superuser."""
    return [{"name": "sessionid", "value": session_of(make_person("olga")), "url": server}]


def listing(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


async def test_shots(page: Page, tenant):
    await in_thread(make_every_row, tenant)
    out = Path("/tmp/shots")
    out.mkdir(exist_ok=True)
    await page.goto("/admin/")
    await page.screenshot(path=out / "home.png", full_page=True)
    for model in admin.site._registry:
        await page.goto(listing(model) + "?q=" if False else listing(model))
        text = await page.evaluate(
            "[document.documentElement.scrollWidth, document.querySelector('.results')?.scrollWidth, document.querySelector('.results')?.clientWidth, document.querySelectorAll('#result_list tbody tr').length]"
        )
        print(model.__name__, text)
        await page.screenshot(path=out / f"{model.__name__}.png", full_page=True)


async def test_shots_home(page: Page, tenant):
    await in_thread(make_every_row, tenant)
    out = Path("/tmp/shots")
    import time

    t = time.monotonic()
    await page.goto("/admin/")
    print("home", time.monotonic() - t)
    t = time.monotonic()
    await page.goto("/admin/")
    print("home", time.monotonic() - t)
    await page.screenshot(path=out / "home.png", full_page=True)
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=out / "home-dark.png", full_page=True)
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.screenshot(path=out / "home-phone.png")
    await page.locator(".menu summary").click()
    await page.screenshot(path=out / "menu-phone.png")
    await page.goto("/admin/payments/deadletter/")
    await page.screenshot(path=out / "list-phone.png")
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.goto("/admin/payments/deadletter/")
    await page.locator(".menu summary").click()
    await page.screenshot(path=out / "menu.png")
    await page.goto("/admin/runbook/")
    await page.screenshot(path=out / "runbook.png")
