"""Pages without events of their own follow what happens elsewhere, but never under a person's hands."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Page, expect

from payments.models import Processor
from queueing.models import JobSchedule, WebhookEndpoint
from registry.models import AuditEntry, Tenant
from tests.browser.conftest import hurry
from tests.factories import in_thread, make_api_key, make_person, make_processor
from tests.queueing.test_console import session_of


@pytest.fixture
def cookies(tenant: Tenant, server: str) -> list[Any]:
    """Those of an owner of `tenant`."""
    owner = make_person("ana", tenant=tenant, role="owner")
    return [{"name": "sessionid", "value": session_of(owner), "url": server}]


def a_schedule(tenant: Tenant) -> None:
    JobSchedule.objects.create(
        tenant=tenant,
        name="news",
        kind="http",
        cron="0 6 * * *",
        timezone="UTC",
        input="{}",
        priority=0,
        max_attempts=5,
        timeout=60,
        result_ttl=60,
        overlap="skip",
        catch_up="one",
    )


CHANGES: dict[str, Callable[[Tenant], object]] = {
    "/processors": lambda tenant: make_processor(tenant, "news"),
    "/developers": lambda tenant: make_api_key(tenant, "read", name="news"),
    "/team": lambda tenant: make_person("news", tenant=tenant, role="viewer"),
    "/audit": lambda tenant: AuditEntry.objects.create(actor="news", action="x.y", target="z", tenant_id=tenant.pk),
    "/webhooks": lambda tenant: WebhookEndpoint.objects.create(
        tenant=tenant, uuid=uuid4(), url="https://shop.example/", description="news", secrets=b""
    ),
    "/jobs/schedules": a_schedule,
}


@pytest.mark.parametrize("path", CHANGES)
async def test_a_page_shows_what_another_person_has_added(page: Page, tenant: Tenant, path: str):
    await hurry(page)
    await page.goto(path)
    await expect(page.locator("[data-follow]").first).to_be_attached()
    await in_thread(CHANGES[path], tenant)

    await expect(page.locator("[data-follow]", has_text="news")).to_be_visible()


async def test_a_part_in_use_stays_and_follows_once_it_is_left(page: Page, tenant: Tenant):
    await hurry(page)
    await page.goto("/processors")
    await page.get_by_role("link", name="default", exact=True).focus()
    await in_thread(make_processor, tenant, "news")
    async with page.expect_response("**/processors"):
        pass
    await expect(page.locator("[data-processor=news]")).to_have_count(0)

    await page.evaluate("document.activeElement.blur()")

    await expect(page.locator("[data-processor=news]")).to_be_visible()


async def test_the_state_of_a_processor_is_followed_beside_a_form_that_is_filled_in(page: Page, tenant: Tenant):
    await hurry(page)
    await page.goto("/processors/default")
    await page.get_by_label("Fee").fill("7.5")
    await in_thread(lambda: Processor.objects.filter(tenant=tenant, name="default").update(enabled=False))

    await expect(page.locator(".headline .pill")).to_contain_text("switched off")
    await expect(page.get_by_label("Fee")).to_have_value("7.5")
