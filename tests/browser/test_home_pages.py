"""Home, and balance and ledger, in a browser: what the first view holds, history from the start, reports as files."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.async_api import Page, expect

from payments.models import Endpoint, Processor
from registry.models import Tenant
from tests.browser.conftest import Guard, hurry, looks_right, pay_many
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_api_key, make_person, make_processor
from tests.history import make_history
from tests.queueing.test_console import session_of
from tests.queueing.test_jobs import run

FOLD = 900  # pixels: the height of a view on a desk


@pytest.fixture
def cookies(tenant: Tenant, server: str) -> list[Any]:
    """The tenant's owner; the tenant is open to guests no longer, as that of a merchant."""
    Tenant.objects.filter(pk=tenant.pk).update(open=False)
    session = session_of(make_person(tenant=tenant, role="owner"))
    return [{"name": "sessionid", "value": session, "url": server}]


def make_a_month(tenant: Tenant) -> None:
    """A processor that became slow, another one with its breaker open, and things that need attention."""
    default, fallback = Processor.objects.filter(tenant=tenant).order_by("name")
    now = datetime.now(UTC)
    for n in range(48):
        make_history(
            default,
            now - timedelta(minutes=17 * n),
            succeeded=30 + n % 7,
            failed=n % 3,
            settled_in=40 + n,
            latency=30 + n,
        )
        make_history(fallback, now - timedelta(hours=15 * n), succeeded=9, settled_in=200, latency=150)
    make_history(default, now, succeeded=3, amount=1_234_567_890, currency="JPY")
    Endpoint.objects.update_or_create(
        key=fallback.endpoint, defaults={"breaker": "open", "breaker_changed_at": now, "trend_ms": 150}
    )
    make_processor(tenant, "stripe", kind="stripe", options={"onlyByName": True})
    for name in ("shop", "nightly", "till", "bookkeeping"):
        make_api_key(tenant, name=name, expires_at=timezone.now() + timedelta(days=3))


async def test_home_shows_attention_figures_and_charts_in_the_first_view(page: Page, tenant, api: Api, tmp_path: Path):
    async with at_work():
        for one in await pay_many(api, 5):
            await api.until(one, "succeeded")
    await in_thread(make_a_month, tenant)
    await api.pay(processor="fallback")

    await page.goto("/?range=24h")

    await expect(page.locator("#attention li")).to_have_count(4)
    await expect(page.locator("canvas")).to_have_count(2)
    await expect(page.locator(".figures .main")).to_have_count(4)
    for part in ("#attention", ".figures", "#chart-payments", "#chart-response"):
        box = await page.locator(part).bounding_box()
        assert box and box["y"] + box["height"] <= FOLD, part
    await expect(page.locator("#unfinished .main")).to_contain_text("1")
    await looks_right(page, "home-of-an-owner", tmp_path)


async def test_the_charts_are_filled_from_the_first_moment(page: Page, tenant):
    processor = await in_thread(lambda: Processor.objects.get(tenant=tenant, name="default"))
    for minutes in (50, 30, 10):
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        await in_thread(make_history, processor, at, succeeded=minutes, latency=minutes)
    await page.goto("/?range=1h")

    shown = await page.evaluate("JSON.parse(document.getElementById('series').dataset.series)")
    assert [n for n in shown["succeeded"] if n] == [50, 30, 10]
    assert [n for n in shown["response"][0][1] if n is not None] == [50, 30, 10]
    drawn = await page.evaluate(
        """(id) => {
            const canvas = document.querySelector(`#${id} canvas`);
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return new Set(new Uint32Array(pixels.buffer)).size;
        }""",
        "chart-response",
    )
    assert drawn > 10  # colours of a line, its edges and the axes; an empty chart has fewer


async def test_a_range_stays_while_the_page_refreshes_itself(page: Page, tenant):
    processor = await in_thread(lambda: Processor.objects.get(tenant=tenant, name="default"))
    await in_thread(make_history, processor, datetime.now(UTC) - timedelta(days=20), succeeded=7, amount=1000)
    await hurry(page)
    await page.goto("/")
    await page.get_by_role("link", name="30 d").click()
    await expect(page.locator("#volume .main")).to_have_text("R$70.00")

    async with page.expect_response(lambda response: "/overview" in response.url) as answer:
        assert "range=30d" in (await answer.value).url

    await expect(page.locator("#volume .main")).to_have_text("R$70.00")
    await expect(page.get_by_role("link", name="30 d")).to_have_attribute("aria-current", "true")


async def test_without_javascript_home_shows_its_figures_and_ranges(plain: Page, tenant):
    processor = await in_thread(lambda: Processor.objects.get(tenant=tenant, name="default"))
    await in_thread(make_history, processor, datetime.now(UTC), succeeded=2, failed=2, amount=1000)
    await plain.goto("/")
    await plain.get_by_role("link", name="7 d").click()

    await expect(plain.locator("#volume .main")).to_have_text("R$20.00")
    await expect(plain.locator("#success .main")).to_have_text("50 %")


# -- Balance and ledger --------------------------------------------------------------------------------------


async def test_the_balance_page_looks_right(page: Page, tenant, api: Api, tmp_path: Path):
    async with at_work():
        for one in await pay_many(api, 12):
            await api.until(one, "succeeded")
    await page.goto("/balance")

    await expect(page.locator("#entries tbody tr")).to_have_count(25)
    await looks_right(page, "balance", tmp_path)

    await page.get_by_role("link", name="Older").click()
    await expect(page.locator("#entries tbody tr")).to_have_count(11)


async def test_a_settlement_report_appears_as_a_file(page: Page, tenant, api: Api, tmp_path: Path):
    async with at_work():
        for one in await pay_many(api, 2):
            await api.until(one, "succeeded")
    await page.goto("/balance")
    today = str(datetime.now(UTC).date())
    await page.get_by_label("First day").fill(today)
    await page.get_by_label("Last day").fill(today)
    await page.get_by_role("button", name="Create report").click()
    await expect(page.locator("#reports .pill")).to_have_text("○queued")
    await run()

    download = page.get_by_role("link", name=f"Download settlement-{today}-{today}.csv")
    await expect(download).to_be_visible()
    await looks_right(page, "balance-reports", tmp_path)
    async with page.expect_download() as started:
        await download.click()
    rows = list(csv.DictReader(Path(await (await started.value).path()).read_text().splitlines()))
    assert [(row["processor"], row["currency"], row["gross"]) for row in rows] == [("default", "BRL", "4.00")]


async def test_without_javascript_entries_are_filtered_and_a_wrong_report_is_explained(
    plain: Page, guard: Guard, tenant, api: Api, worker
):
    guard.allowed.append("status of 422")
    ids = await pay_many(api, 3)
    for one in ids:
        await api.until(one, "succeeded")
    await plain.goto("/balance")
    await plain.get_by_role("combobox", name="Account").select_option("fees")
    await plain.get_by_label("Payment id").fill(ids[0])
    await plain.get_by_role("button", name="Filter").click()
    await expect(plain.locator("#entries tbody tr")).to_have_count(1)
    await expect(plain.locator("#entries tbody")).to_contain_text("Kept by the processor")

    await plain.get_by_label("First day").fill("2026-02-02")
    await plain.get_by_label("Last day").fill("2026-02-01")
    await plain.get_by_label("Time zone").fill("Mars/Olympus")
    await plain.get_by_role("button", name="Create report").click()
    await expect(plain.locator("#report-to-error")).to_have_text("The last day is before the first.")
    await expect(plain.locator("#report-timezone-error")).to_contain_text("is not a time zone")
    await expect(plain.get_by_label("First day")).to_have_value("2026-02-02")


async def test_an_empty_ledger_says_what_fills_it(page: Page, tenant, tmp_path: Path):
    await page.goto("/balance")

    await expect(page.get_by_role("heading", name="Nothing is booked yet")).to_be_visible()
    await looks_right(page, "balance-empty", tmp_path)
