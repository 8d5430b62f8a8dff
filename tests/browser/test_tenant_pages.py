"""Pages of API keys, request log, team, settings and audit log in a browser: how they look, and what an owner does there."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.async_api import Page, expect

from payments.billing import invitations
from payments.states import SUCCEEDED
from registry.data import database
from registry.models import ApiKey, Tenant
from tests.browser.conftest import BRIEFLY, Guard, looks_right
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_payment, make_person
from tests.queueing.test_console import session_of
from tests.registry.test_tenant_pages import logged_request, record

WHY = "the shop asked for it"


@pytest.fixture
def cookies(tenant: Tenant, server: str) -> list[Any]:
    """These pages are the owner's."""
    owner = make_person("olga@corner-shop.example", tenant=tenant, role="owner", email="olga@corner-shop.example")
    return [{"name": "sessionid", "value": session_of(owner), "url": server}]


async def some_keys(tenant: Tenant) -> None:
    await make_key(tenant, name="Web shop", rate_limit="100/second")
    await make_key(tenant, "read", name="Reports of the accounting department, every night")
    ending = await make_key(tenant, "read", "write", "admin", name="Old server")
    at = timezone.now()

    def change() -> None:
        mine = ApiKey.objects.filter(prefix=ending.split("_")[1])
        mine.update(expires_at=at + timedelta(hours=5), last_used_at=at - timedelta(minutes=3))
        ApiKey.objects.create(tenant=tenant, prefix="0123456789ab", digest=b"", scopes=["read"], revoked_at=at)

    await in_thread(change)


# -- How they look ---------------------------------------------------------------------------------------------------


async def test_the_pages_of_keys_look_right(page: Page, tenant: Tenant, tmp_path: Path):
    await some_keys(tenant)

    await page.goto("/developers")
    await expect(page.locator("tr[data-key]")).to_have_count(4)
    await looks_right(page, "keys", tmp_path, BRIEFLY)
    await page.get_by_label("Name").fill("Second shop")
    await page.get_by_role("button", name="Create key").click()
    await expect(page.get_by_role("heading", name="Your new key: Second shop")).to_be_visible()
    await looks_right(page, "keys-made", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="Rotate Web shop").click()
    await expect(page.get_by_label("The old key still works for")).to_be_visible()
    await looks_right(page, "keys-rotate", tmp_path, BRIEFLY)


async def test_the_pages_of_requests_look_right(page: Page, tenant: Tenant, tmp_path: Path):
    await page.goto("/developers/requests")
    await expect(page.get_by_role("heading", name="No requests yet")).to_be_visible()
    await looks_right(page, "requests-none", tmp_path, BRIEFLY)
    long = "/queues/orders/of/the/whole/company/partitions/customer-12345/messages"
    await logged_request(tenant, status=200, code="", path="/payments", duration=2_700)
    await logged_request(tenant, status=503, code="unavailable", path=long, duration=5_100_000)
    await logged_request(tenant, status=422, code="too-many-requests", request_id="9f2c0b7e5a1d4c33")
    await page.goto("/developers/requests")
    await expect(page.locator("tr[data-request]")).to_have_count(3)
    await looks_right(page, "requests", tmp_path, BRIEFLY)
    await page.locator("tr[data-request] a").first.click()
    await expect(page.get_by_text("9f2c0b7e5a1d4c33")).to_be_visible()
    await looks_right(page, "request", tmp_path, BRIEFLY)


async def test_the_page_of_the_team_looks_right(page: Page, tenant: Tenant, tmp_path: Path):
    await in_thread(make_person, "pete", tenant=tenant, role="viewer", email="pete@a-long-name-of-a-company.example")
    async with database.own_connection():
        await invitations.invite(
            tenant=tenant, email="ada@corner-shop.example", role="operator", by="olga@corner-shop.example", home=""
        )
    await page.goto("/team")
    await expect(page.locator("tr[data-member]")).to_have_count(2)
    await looks_right(page, "team", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="Remove pete").click()
    await expect(page.get_by_label("Why")).to_be_visible()
    await looks_right(page, "team-remove", tmp_path, BRIEFLY)


async def test_the_page_of_settings_looks_right(page: Page, tenant: Tenant, guard: Guard, tmp_path: Path):
    guard.allowed.append("422")
    await in_thread(make_payment, tenant, status=SUCCEEDED)
    await page.goto("/settings")
    await expect(page.get_by_role("link", name="Empty the sandbox…")).to_be_visible()
    await looks_right(page, "settings", tmp_path, BRIEFLY)
    await page.get_by_label("Largest payment").fill("much")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Enter a whole number of minor units")).to_be_visible()
    await looks_right(page, "settings-wrong", tmp_path, BRIEFLY)


async def test_the_page_of_the_audit_log_looks_right(page: Page, tenant: Tenant, tmp_path: Path):
    detail = {"successor": "0123456789ab", "grace": "86400 s"}
    await record(tenant, "olga@corner-shop.example", "apikey.rotate", reason="It was in a log", detail=detail)
    await record(tenant, "job 3f2a9c1d-5e0b-4d6f-9a43-0b7e00000000", "tenant.export", rows=12_345)
    await page.goto("/audit")
    await expect(page.locator("tr[data-entry]")).to_have_count(2)
    await page.get_by_role("button", name="Verify audit log").click()
    await expect(page.get_by_text("2 entries are unchanged")).to_be_visible()
    await looks_right(page, "audit", tmp_path, BRIEFLY)


# -- What an owner does ----------------------------------------------------------------------------------------------


async def test_a_new_key_is_copied_and_not_shown_by_going_back(page: Page, tenant: Tenant, server: str):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto("/developers")
    await page.get_by_label("Name").fill("Web shop")
    await page.get_by_role("button", name="Create key").click()
    plain = await page.get_by_label("The new key").inner_text()
    await page.locator(".secret .copy").click()
    assert await page.evaluate("navigator.clipboard.readText()") == plain
    async with Api(server, plain) as api, api.get("/payments") as response:
        assert response.status == 200

    await page.get_by_role("link", name="Done, I have copied it").click()
    await expect(page.get_by_label("The new key")).to_have_count(0)
    assert plain not in await page.content()


async def test_new_requests_appear_on_the_open_page_and_keep_to_its_filters(page: Page, tenant: Tenant):
    await logged_request(tenant, path="/payments/first")
    await page.goto("/developers/requests?status=errors")
    await expect(page.locator("tr[data-request]")).to_have_count(1)
    await logged_request(tenant, path="/payments/second")
    await logged_request(tenant, path="/payments/fine", status=200, code="")

    await expect(page.locator("tr[data-request]")).to_have_count(2)
    await expect(page.locator("tr[data-request]").first).to_contain_text("/payments/second")


async def test_without_javascript_a_key_is_made_and_revoked_and_requests_are_filtered(plain: Page, tenant: Tenant):
    await logged_request(tenant, status=422)
    await logged_request(tenant, status=200, code="")
    await plain.goto("/developers")
    await plain.get_by_label("Name").fill("Web shop")
    await plain.get_by_role("button", name="Create key").click()
    await expect(plain.get_by_label("The new key")).to_contain_text("rk_")
    await plain.get_by_role("link", name="Revoke Web shop").click()
    await plain.get_by_label("Why").fill(WHY)
    await plain.get_by_role("button", name="Revoke the key (1)").click()
    await expect(plain.locator("tr[data-key]")).to_contain_text("revoked")
    await plain.goto("/developers/requests")
    await plain.get_by_label("Status").select_option("errors")
    await plain.get_by_role("button", name="Filter").click()
    await expect(plain.locator("tr[data-request]")).to_have_count(1)


async def test_without_javascript_a_role_is_changed(plain: Page, tenant: Tenant):
    await in_thread(make_person, "pete", tenant=tenant, role="viewer")
    await plain.goto("/team")
    await plain.get_by_label("Role of pete", exact=True).select_option("operator")
    await plain.get_by_role("button", name="Change the role of pete").click()
    await plain.get_by_label("Why").fill(WHY)
    await plain.get_by_role("button", name="Make an operator (1)").click()
    await expect(plain.get_by_label("Role of pete", exact=True)).to_have_value("operator")
