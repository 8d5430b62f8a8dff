"""The API reference in a browser: contents, folded operations, anchors, filter; and what it weighs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from registry.edge import pages, reference
from registry.edge.api import api as description
from registry.errors import Unavailable
from tests.browser.conftest import MODES, looks_right
from tests.conftest import Api
from tests.registry.test_examples import ORDER

FIRST_VIEW = 100_000  # bytes as they are sent, without a cache
SCREENS = 9  # of 900 pixels; what is folded takes a line


async def test_the_reference_looks_right(page: Page, tmp_path: Path):
    await page.goto("/docs#accept_payment")
    await expect(page.locator("#accept_payment pre").first).to_be_visible()

    await looks_right(page, "docs", tmp_path)


async def test_every_operation_has_a_line_with_its_request_and_its_response(page: Page):
    await page.goto("/docs")
    lines = page.locator("[data-words]")

    shown = await lines.evaluate_all(
        "all => all.map((one) => one.querySelector('summary').innerText.split(/\\s+/, 2).join(' '))"
    )
    examples = await lines.evaluate_all("all => all.map((one) => one.querySelectorAll('pre').length)")

    assert sorted(shown) == sorted(ORDER)
    without_content = [name for name, one in description.examples.items() if one.status == 204]
    assert [shown[n] for n, count in enumerate(examples) if count < 2] == [
        one for one in shown if one in without_content
    ]
    assert await page.evaluate("document.documentElement.scrollHeight") < SCREENS * 900


async def test_the_first_view_is_light(own_page: Page):
    sizes: list[int] = []

    async def note(response) -> None:
        sizes.append((await response.request.sizes())["responseBodySize"])

    own_page.on("response", note)
    await own_page.goto("/docs")
    await own_page.wait_for_load_state("networkidle")

    assert 0 < sum(sizes) < FIRST_VIEW


async def test_the_filter_leaves_the_operations_that_have_all_words(page: Page):
    await page.goto("/docs")

    await page.get_by_label("Filter").fill("refund post")

    await expect(page.locator("[data-words]:visible summary")).to_have_text(
        [re.compile("POST.*/payments/{id}/refunds", re.S)]
    )
    await expect(page.locator("[data-found]")).to_have_text(f"1 of {len(ORDER)} operations")
    await expect(page.locator("[data-group]:visible h2")).to_have_text(["Refunds"])
    await page.get_by_label("Filter").press("Escape")
    await expect(page.locator("[data-words]:visible")).to_have_count(len(ORDER))


async def test_a_link_opens_the_operation_that_it_names_also_one_that_was_filtered_out(page: Page):
    await page.goto("/docs")
    await page.get_by_label("Filter").fill("health")

    await page.evaluate("location.hash = 'accept_payment'")

    await expect(page.locator("#accept_payment")).to_be_visible()
    await expect(page.locator("#accept_payment")).to_be_in_viewport()


async def test_all_operations_open_and_close(page: Page):
    await page.goto("/docs")

    await page.get_by_role("button", name="Open all").click()
    await expect(page.locator("[data-words] details[open]")).to_have_count(len(ORDER))
    await page.get_by_role("button", name="Close all").click()

    await expect(page.locator("[data-words] details[open]")).to_have_count(0)


async def test_without_scripts_operations_open_and_nothing_is_offered_that_needs_them(plain: Page):
    await plain.goto("/docs")

    await plain.get_by_text("Accept a payment: 202 once it is durable", exact=True).click()

    await expect(plain.locator("#accept_payment pre").first).to_contain_text("curl -X POST http://")
    await expect(plain.get_by_label("Filter")).to_be_hidden()
    await expect(plain.get_by_role("button", name="Open all")).to_be_hidden()


async def test_the_contents_stay_at_the_side_and_fold_on_a_phone(own_page: Page):
    await own_page.goto("/docs")
    contents, folded = own_page.get_by_role("navigation", name="Contents"), own_page.locator(".contents-fold")
    await contents.get_by_text("Audit").click()

    await expect(own_page.get_by_role("heading", name="Audit")).to_be_in_viewport()
    await expect(contents.get_by_text("Audit")).to_be_in_viewport()
    await own_page.set_viewport_size(MODES["phone"]["viewport"])
    await expect(contents).to_be_hidden()
    await folded.get_by_text("Contents").click()
    await folded.get_by_text("Refunds").click()
    await expect(own_page.get_by_role("heading", name="Refunds")).to_be_in_viewport()


async def test_every_link_within_the_page_leads_to_something(page: Page):
    await page.goto("/docs")

    lost = await page.evaluate("""[...document.querySelectorAll("main a[href^='#']")].map((one) => one.hash.slice(1))
        .filter((name) => !document.getElementById(name))""")

    assert lost == []


async def test_the_reference_is_there_while_the_database_is_away(page: Page, monkeypatch: pytest.MonkeyPatch):
    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(pages, "visitor_of", away)

    response = await page.goto("/docs")

    assert response.status == 200
    await expect(page.get_by_role("link", name="Sign in")).to_be_visible()


async def test_the_example_of_an_error_is_what_the_service_answers(api: Api):
    async with api.post("/payments", json={"amount": "0.001"}) as response:
        assert json.loads(await response.text()) == reference.PROBLEM
