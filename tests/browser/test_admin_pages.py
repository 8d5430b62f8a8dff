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
