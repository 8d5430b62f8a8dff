"""The live list of payments in a browser: every filter applies to what arrives and to what changes, with and without websockets."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from payments.models import Dispute, Payment, Processor
from payments.refunds import refunds
from payments.states import SUCCEEDED, Status
from registry.data import database
from tests.browser.conftest import BRIEFLY, hurry, looks_right, pay_many
from tests.browser.test_job_pages import at_work as jobs_at_work
from tests.browser.test_live import is_live
from tests.conftest import Api
from tests.factories import in_thread, make_payment, make_person
from tests.payments.refunding import paying_back
from tests.queueing.test_console import session_of
from tests.settling import settle_due

FUTURE = f"{datetime.now(UTC) + timedelta(days=300):%Y-%m-%dT%H:%M}"


def row(page: Page, payment: Any) -> Any:
    return page.locator(f'tbody tr[data-id="{payment}"]')


async def ids(page: Page) -> list[str]:
    return await page.evaluate("[...document.querySelectorAll('tbody tr')].map((row) => row.dataset.id)")


async def pay(api: Api, amount: str = "19.90", **fields: Any) -> str:
    return (await api.pay(amount, **fields))["correlationId"]


async def open_list(page: Page, query: str, polling: bool) -> None:
    if polling:
        await hurry(page)
        await page.add_init_script("line.blocked = true")
    await page.goto(f"/payments/list?{query}")
    await expect(page.locator(f"[data-live={'polling' if polling else 'live'}]")).to_be_visible()
    await page.mouse.move(5, 5)


# -- Filters and what arrives ------------------------------------------------------------------------------------

ARRIVALS = [  # a filter, a payment that matches it, and one that does not
    ("q=blue", {"description": "a blue shirt"}, {"description": "a red shirt"}),
    ("q=A-77", {"metadata": {"order": "A-77"}}, {"metadata": {"order": "A-78"}}),
    ("q=7.77", {"amount": "7.77"}, {"amount": "7.78"}),
    ("q=beef5", {"correlationId": "beef5"}, {"correlationId": "beef6"}),
    ("currency=USD", {"currency": "USD"}, {"currency": "EUR"}),
    ("amount_from=10&amount_to=20", {"amount": "20.00"}, {"amount": "20.01"}),
    ("period=1h&amount_from=5", {"amount": "5"}, {"amount": "4.99"}),
]


def content(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a payment; an id has only its beginning given."""
    start = fields.get("correlationId")
    return {**fields, **({"correlationId": start + str(uuid4())[len(start) :]} if start else {})}


@pytest.mark.parametrize("polling", [False, True], ids=["websocket", "polling"])
@pytest.mark.parametrize(
    ("query", "match", "other"), ARRIVALS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_new_row_appears_only_if_it_matches_every_filter(
    page: Page, tenant, api: Api, polling: bool, query: str, match: dict[str, Any], other: dict[str, Any]
):
    await open_list(page, query, polling)

    left_out = await pay(api, **content(other))
    wanted = await pay(api, **content(match))
    await expect(row(page, wanted)).to_be_visible()

    assert await ids(page) == [wanted]
    await expect(page.locator("[data-total]")).to_have_text("1")
    await expect(row(page, left_out)).to_have_count(0)


@pytest.mark.parametrize("polling", [False, True], ids=["websocket", "polling"])
@pytest.mark.parametrize(
    "query", [f"from={FUTURE}", "to=2020-01-01T00:00", "status=failed", "processor=fallback", "status=nonsense"]
)
async def test_no_new_row_appears_where_it_does_not_match(page: Page, tenant, api: Api, polling: bool, query: str):
    await open_list(page, query, polling)

    await pay_many(api, 2)
    answered = page.expect_response(lambda response: "/payments/list" in response.url) if polling else None
    if answered:
        async with answered:
            pass
    else:  # a payment that arrives at another page, by the same server, arrived here too
        other = await page.context.new_page()
        await open_list(other, "", False)
        await expect(row(other, await pay(api))).to_be_visible()

    assert await ids(page) == []
    await expect(page.locator("[data-total]")).to_have_text("0")


# -- Filters and what changes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("polling", [False, True], ids=["websocket", "polling"])
async def test_a_row_that_no_longer_matches_leaves_the_list(page: Page, tenant, api: Api, polling: bool):
    payments = await pay_many(api, 3)
    await open_list(page, "status=queued", polling)
    assert set(await ids(page)) == set(payments)

    await settle_due()

    await expect(page.locator("tbody tr")).to_have_count(0)
    await expect(page.locator("[data-total]")).to_have_text("0")
    await expect(page.get_by_role("heading", name="Nothing matches any more")).to_be_visible()


@pytest.mark.parametrize("polling", [False, True], ids=["websocket", "polling"])
async def test_a_payment_that_begins_to_match_enters_the_list_in_its_place(page: Page, tenant, api: Api, polling: bool):
    first, second = [await pay(api) for _ in range(2)]
    await open_list(page, "status=succeeded&processor=default", polling)
    assert await ids(page) == []

    await settle_due()

    await expect(page.locator("tbody tr")).to_have_count(2)
    assert await ids(page) == [second, first]
    await expect(row(page, first)).to_contain_text("default")


async def test_a_payment_that_is_refunded_leaves_succeeded_and_looks_refunded(page: Page, tenant, api: Api):
    payment, other = [await pay(api) for _ in range(2)]
    await settle_due()
    all_payments = await page.context.new_page()
    await open_list(all_payments, "", False)
    await open_list(page, "status=succeeded", False)
    await expect(page.locator("tbody tr")).to_have_count(2)

    async with database.own_connection(), paying_back():
        await refunds.refund(
            tenant_id=tenant.pk, correlation_id=payment, amount=None, reason="", actor="test", idempotency_key=""
        )
        await expect(row(all_payments, payment).locator(".pill")).to_have_text("↺refunded")
        await expect(row(page, payment)).to_have_count(0)

    assert await ids(page) == [other]


async def test_a_row_under_the_pointer_leaves_once_the_pointer_does(page: Page, tenant, api: Api):
    await pay_many(api, 3)
    await open_list(page, "status=queued", False)
    await page.locator("tbody tr").nth(1).hover()

    await settle_due()

    await expect(page.locator("tbody tr.leaving")).to_have_count(3)
    await page.mouse.move(5, 5)
    await expect(page.locator("tbody tr")).to_have_count(0)


async def test_new_rows_that_are_counted_are_those_that_match(page: Page, tenant, api: Api):
    await pay(api, description="blue")
    await open_list(page, "q=blue", False)
    await page.locator("tbody tr").first.hover()

    await pay(api, description="red")
    await pay(api, description="blue too")

    await expect(page.get_by_role("button", name="1 new")).to_be_visible()
    await page.get_by_role("button", name="1 new").click()
    await expect(page.locator("tbody tr")).to_have_count(2)


# -- Paging --------------------------------------------------------------------------------------------------------


async def test_older_rows_are_added_below_and_the_reader_stays_where_he_is(page: Page, tenant, api: Api):
    payments = await pay_many(api, 55)
    await open_list(page, "currency=BRL", False)
    await page.get_by_role("link", name="Older").scroll_into_view_if_needed()
    before = await page.evaluate("[scrollY, document.querySelectorAll('tbody tr')[10].dataset.id]")

    await page.get_by_role("link", name="Older").click()
    await expect(page.locator("tbody tr")).to_have_count(50)
    assert await page.evaluate("[scrollY, document.querySelectorAll('tbody tr')[10].dataset.id]") == before
    await page.get_by_role("link", name="Older").click()

    await expect(page.locator("tbody tr")).to_have_count(55)
    await expect(page.get_by_role("link", name="Older")).to_have_count(0)
    assert set(await ids(page)) == set(payments)
    assert "cursor" not in page.url


async def test_paging_skips_and_repeats_nothing_while_payments_arrive(page: Page, tenant, api: Api):
    before = await pay_many(api, 40)
    await open_list(page, "", False)
    more = await pay_many(api, 4)
    await expect(page.locator("tbody tr")).to_have_count(29)
    await page.get_by_role("link", name="Older").click()
    await expect(page.locator("tbody tr")).to_have_count(44)

    shown = await ids(page)
    assert len(shown) == len(set(shown)) == 44
    assert set(shown) == {*before, *more}


async def test_without_javascript_older_rows_are_read_at_the_list_and_not_at_the_top(plain: Page, tenant, api: Api):
    await pay_many(api, 30)
    await plain.goto("/payments/list?q=Order")
    await plain.get_by_role("link", name="Older").click()

    await expect(plain.locator("tbody tr")).to_have_count(5)
    assert plain.url.endswith("#list")
    await expect(plain.get_by_label("Search", exact=True)).to_have_value("Order")


# -- The form ------------------------------------------------------------------------------------------------------


async def test_an_address_holds_the_filters_that_are_set_and_the_viewers_zone(browser, server, guard, tenant, api: Api):
    await pay(api)
    async with await browser.new_context(base_url=server, timezone_id="America/Sao_Paulo") as window:
        page = await window.new_page()
        guard.watch(page)
        await page.goto("/payments/list")
        await page.get_by_label("Search", exact=True).fill("19.90")
        await page.get_by_label("Created from (America/Sao_Paulo)").fill("2026-07-15T00:00")
        await page.get_by_role("button", name="Search").click()
        await page.wait_for_url("**zone=**")

        query = page.url.partition("?")[2]
        assert query == f"tenant={tenant.slug}&q=19.90&from=2026-07-15T00%3A00&zone=America%2FSao_Paulo"
        await expect(page.locator(".window")).to_contain_text("2026-07-15 03:00:00.000 UTC")
        await page.get_by_role("link", name="Clear").click()
        await page.get_by_label("State").select_option("refunded")
        await page.get_by_role("button", name="Search").click()
        await page.wait_for_url("**status=**")
        assert page.url.partition("?")[2] == f"tenant={tenant.slug}&status=refunded"
        failed_today = await page.get_by_role("link", name="Failed today").get_attribute("href")
        assert "zone=America%2FSao_Paulo" in failed_today


async def test_the_list_begins_in_the_first_screen_and_filters_fold_on_a_phone(page: Page, tenant, api: Api):
    await pay_many(api, 30)
    await page.goto("/payments/list")
    await expect(page.locator("tbody tr").nth(9)).to_be_in_viewport()

    await page.set_viewport_size({"width": 360, "height": 740})
    await expect(page.get_by_label("Processor")).to_be_hidden()
    await expect(page.locator("tbody tr").nth(2)).to_be_in_viewport()
    await page.get_by_text("Filters", exact=True).click()
    await expect(page.get_by_label("Processor")).to_be_visible()


# -- How it looks, and whose page it is ----------------------------------------------------------------------------


@pytest.fixture
def visit_as(tenant, server: str) -> Callable[[Page, str], Any]:
    async def visit(page: Page, role: str) -> None:
        session = await in_thread(lambda: session_of(make_person(tenant=tenant, role=role)))
        await page.context.add_cookies([{"name": "sessionid", "value": session, "url": server}])

    return visit


async def test_the_list_of_a_member_looks_right(page: Page, tenant, visit_as, tmp_path: Path):
    processor = await in_thread(Processor.objects.get, tenant=tenant, name="default")
    for status in Status:
        await in_thread(make_payment, tenant, status=status, processor=processor, description="Two coffees " * 20)
    disputed = await in_thread(make_payment, tenant, status=SUCCEEDED, processor=processor)
    fields = {"amount": 1990, "currency": "BRL", "status": "needs_response", "reference": "dp_1"}
    await in_thread(lambda: Dispute.objects.create(tenant=tenant, payment=disputed, processor=processor, **fields))
    await in_thread(lambda: Payment.objects.filter(status=SUCCEEDED).exclude(pk=disputed.pk).update(refunded=1))
    await visit_as(page, "viewer")

    await page.goto("/payments/list?amount_from=1&q=19.90&from=2026-01-01T00:00&zone=Europe/Berlin")
    await is_live(page)
    await expect(page.get_by_role("button", name="Export")).to_be_enabled()
    await expect(row(page, disputed.correlation_id).locator(".pill")).to_have_text("▲disputed")
    await looks_right(page, "payments-filtered", tmp_path)
    await page.goto("/payments/list?q=nothing+of+this&status=lost")
    await looks_right(page, "payments-wrong", tmp_path, BRIEFLY)


async def test_a_viewer_exports_what_the_list_shows_and_gets_the_file(page: Page, tenant, api: Api, visit_as):
    await pay(api, description="blue")
    await pay(api, description="red")
    await visit_as(page, "viewer")
    await page.goto("/payments/list?q=blue")

    await page.get_by_role("button", name="Export").click()

    await expect(page.get_by_role("heading", name="payments.export")).to_be_visible()
    async with jobs_at_work():
        await expect(page.locator("[data-pill-here] .pill")).to_have_text("●succeeded")
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name="Download").click()
    text = Path(await (await waiting.value).path()).read_text()
    assert ("blue" in text, "red" in text) == (True, False)


async def test_a_guest_sees_no_export(page: Page, tenant, api: Api):
    await pay(api)
    await page.goto("/payments/list")

    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.get_by_role("button", name="Export")).to_have_count(0)
