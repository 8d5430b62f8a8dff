"""The admin in a browser: every list fits and is readable, the first page says what needs attention, on a desk and on a phone."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse
from playwright.async_api import Page, expect

from payments.models import Payment, Processor
from registry.models import ApiKey, Flag, Host
from registry.operators import attention
from tests.browser.admin_rows import make_every_row
from tests.browser.conftest import BRIEFLY, MODES, audit, looks_right
from tests.depth import DEEP
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of

LOOKED_AT = {Payment, Processor, Flag, ApiKey}  # pages of rows that axe looks at; the others are of the same frame
WHY = "the processor confirmed it"
ONE_FORMAT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{3})? UTC")
DATES = re.compile(r"\d{4}-\d\d-\d\d(?![\w-])|\b\d\d?:\d\d\b|\b[ap]\.m\.|\b(Jan|Feb|Dec|Nov|Sept)\.")
# Of the page and of its table, which would scroll by itself.
WIDTHS = """() => [document.documentElement, ...document.querySelectorAll(".results")].map((e) => [e.scrollWidth, e.clientWidth])"""
# What a person would have to guess, in the words of tables and of earlier pages.
BETTER_SAID = (
    "object (", "1 at 1", "given up", "owed since", "will be touched", "the fence", "look again", "differences", "rehearse",
    "why this one", "answers in", "says at least", "endpoints of",
)  # fmt: skip
SMALLEST = 24  # CSS pixels (WCAG 2.5.8)
PRIMARY = 44  # CSS pixels of what a thumb presses most
TARGETS = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select, summary")]
  .filter((e) => e.checkVisibility() && !e.closest("p, dd, td, th, .unseen, ol") && e.getBoundingClientRect().top >= 0)
  .map((e) => { const box = e.getBoundingClientRect(); return [e.outerHTML.slice(0, 120), box.width, box.height]; })"""


@pytest.fixture
def cookies(server: str) -> list[Any]:
    """Those of a superuser."""
    return [{"name": "sessionid", "value": session_of(make_person("olga")), "url": server}]


@pytest.fixture
async def rows(tenant) -> AsyncIterator[dict[str, Any]]:
    yield await in_thread(make_every_row, tenant)


def listing(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


async def said(page: Page) -> str:
    """The text that a person reads."""
    return await page.locator("body").inner_text()


def in_another_format(text: str) -> list[str]:
    """Dates and times that are not in the one format of the admin."""
    return [found[0] for found in DATES.finditer(ONE_FORMAT.sub("", text))]


def test_the_search_for_formats_finds_others():
    assert in_another_format("at 2026-12-01 04:48:11 UTC and 2026-12-01 04:48:11.123 UTC") == []
    for other in ("Dec. 1, 2026, 4:48 a.m.", "2026-12-01 04:48", "2026-12-01 04:48:11", "12:30"):
        assert in_another_format(other), other


async def faults(page: Page) -> list[Any]:
    """What is cut or cannot be read in the list or page that is open."""
    found: list[Any] = [(scroll, client) for scroll, client in await page.evaluate(WIDTHS) if scroll > client]
    text = await said(page)
    found += [words for words in BETTER_SAID if words.lower() in text.lower()]
    return found + in_another_format(text)


async def heard_by_axe(page: Page) -> list[str]:
    """Without the widget of Django's own that chooses several rows."""
    return [fault for fault in await audit(page) if "select2" not in fault]


async def test_every_list_and_every_page_of_a_row_fits_at_1280_px_and_is_readable(page: Page, rows):
    found = {}
    for model in admin.site._registry:
        await page.goto(listing(model))
        first = page.locator("#result_list tbody th a").first
        assert await first.count(), f"no row of {model.__name__}"
        found[f"list of {model.__name__}"] = await faults(page) + await heard_by_axe(page)
        await first.click()
        await page.wait_for_url("**/change/**")
        looked_at = DEEP or model in LOOKED_AT
        found[f"page of {model.__name__}"] = await faults(page) + (await heard_by_axe(page) if looked_at else [])

    assert {place: wrong for place, wrong in found.items() if wrong} == {}


async def test_the_first_page_looks_right(page: Page, rows, tmp_path: Path):
    await page.goto("/admin/")

    await expect(page.locator("[data-item='payments.dead_letters']")).to_contain_text("the payer may have been charged")
    await looks_right(page, "admin-home", tmp_path)
    await page.goto("/admin/runbook/")
    await looks_right(page, "admin-runbook", tmp_path, BRIEFLY)


async def test_the_models_are_grouped_by_what_one_does_with_them(page: Page, rows):
    await page.goto("/admin/")

    titles = await page.locator(".sections h2").all_inner_texts()
    assert titles[:3] == ["Look up payments", "Decide what stopped", "Check the books"]
    names = await page.locator(".sections li > a:first-child").all_inner_texts()
    assert len(names) == len(set(names)) == len(admin.site._registry)  # nothing twice
    assert {"Circuit breakers", "Consumer groups", "Discrepancies"} <= set(names)
    await page.locator(".menu summary").click()
    await page.locator(".menu").get_by_role("link", name="Dead letters").click()
    await expect(page.get_by_role("heading", name="Dead letters", exact=True)).to_be_visible()
    assert "Endpoints" not in names


async def test_the_pages_of_hosts_say_which_is_silent_and_whose_clock_is_wrong(page: Page, rows, tmp_path: Path):
    await page.goto(listing(Host))

    await expect(page.get_by_text("silent for")).to_have_count(1)
    await expect(page.get_by_text("61.4 s ahead")).to_be_visible()
    await looks_right(page, "admin-hosts", tmp_path)
    await page.get_by_role("link", name="pay-worker-1.internal").click()
    await expect(page.get_by_text("worker-1: process 4003, started 4 times")).to_be_visible()
    await looks_right(page, "admin-host", tmp_path, BRIEFLY)


async def test_an_item_leads_to_where_it_is_resolved_and_is_gone_after_that(page: Page, rows, tmp_path: Path):
    await page.goto("/admin/")
    await page.locator("[data-item='payments.dead_letters']").get_by_role("link", name="Replay or close").click()
    await page.locator("#action-toggle").check()
    await page.get_by_label("Action:").select_option(label="Close without replay")
    await page.get_by_role("button", name="Run").click()
    await expect(page.get_by_text("What this means for the money:")).to_be_visible()
    await looks_right(page, "admin-close", tmp_path, BRIEFLY)
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name="Close without replay").click()

    await expect(page.get_by_text("Close without replay: done for 2.")).to_be_visible()
    await page.goto("/admin/")
    await expect(page.locator("[data-item='payments.dead_letters']")).to_have_count(0)


async def test_the_first_page_asks_again_while_it_is_open(page: Page, rows):
    await page.add_init_script("const real = setInterval; window.setInterval = (work) => real(work, 100);")
    await page.goto("/admin/")
    await expect(page.locator("[data-item='disputes.due']")).to_be_visible()

    await in_thread(rows["dispute"].delete)

    await expect(page.locator("[data-item='disputes.due']")).to_have_count(0)
    await expect(page.locator("[data-attention-said]")).to_contain_text("items need attention")


async def test_a_source_that_fails_is_unknown_and_the_others_are_shown(page: Page, rows, monkeypatch, guard):
    async def broken(tenant_ids: Any) -> list[attention.Item]:
        raise ZeroDivisionError

    monkeypatch.setitem(attention._sources, "disputes.due", broken)
    await page.goto("/admin/")

    await expect(page.locator("[data-item='disputes.due']")).to_contain_text("unknown")
    await expect(page.locator("[data-item='disputes.due']")).to_contain_text("could not be read: ZeroDivisionError")
    await expect(page.locator("[data-item='payments.dead_letters']")).to_be_visible()


@pytest.mark.parametrize("address", ["/admin/", "/admin/payments/deadletter/", "/admin/payments/processor/add/"])
async def test_everything_can_be_touched_on_a_phone(page: Page, rows, address: str):
    await page.set_viewport_size(MODES["phone"]["viewport"])
    await page.goto(address)

    targets = await page.evaluate(TARGETS)

    assert len(targets) > 10
    assert [t for t in targets if min(t[1:]) < SMALLEST] == []
    primary = [t for t in targets if 'class="button' in t[0] or "<summary>Menu" in t[0] or 'type="submit"' in t[0]]
    assert primary
    assert [t for t in primary if t[2] < PRIMARY] == []


async def test_the_form_of_a_processor_has_fields_and_no_json(page: Page, rows, tmp_path: Path):
    await page.goto(reverse("admin:payments_processor_change", args=[rows["processor"].pk]))

    await page.get_by_label("Delay:", exact=True).fill("300")
    await expect(page.get_by_text("Milliseconds before it answers.")).to_be_visible()
    assert "{" not in await page.locator("#processor_form").inner_text()
    await looks_right(page, "admin-processor", tmp_path, BRIEFLY)
