"""The sign-up in a browser, paid by card at Stripe's page, and the appearance of its pages in each mode."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from limits import RateLimitItemPerHour
from playwright.async_api import Page, expect

from payments.billing import limits
from payments.models import Plan, Subscription
from payments.models.billing import Dunning, Paid
from registry.models import Tenant
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.browser.conftest import BRIEFLY, Guard, looks_right
from tests.factories import in_thread
from tests.payments.signing_up import PASSWORD


@pytest.fixture(autouse=True)
async def plans(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.REGISTRY_OPEN_TENANT = ""
    monkeypatch.setattr(limits, "SIGN_UPS", RateLimitItemPerHour(100_000))

    def make() -> None:
        Plan.objects.all().delete()
        Plan.objects.create(slug="free", name="Free", fee_share="0.02", position=0)
        Plan.objects.create(slug="business", name="Business", price=9900, trial_days=14, position=1)

    await in_thread(make)


@pytest.fixture
async def stripe(settings: Any, guard: Guard) -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as found:
        settings.BILLING_STRIPE_KEY, settings.BILLING_STRIPE_URL = found.secret_key, found.url
        settings.BILLING_WEBHOOK_SECRET = found.webhook_secret
        guard.allowed.append(found.url)  # a link of ours leads there
        yield found


async def fill_in_details(page: Page) -> str:
    slug = f"shop-{uuid4().hex[:8]}"
    await page.goto("/signup")
    await page.get_by_label("Name", exact=True).fill("Corner shop")
    await page.get_by_label("Short name").fill(slug)
    await page.get_by_label("Currency").fill("BRL")
    await page.get_by_label("Your e-mail address").fill(f"{slug}@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("heading", name="People of Corner shop")).to_be_visible()
    return slug


async def test_a_sign_up_by_card_from_the_first_page_to_the_last(page: Page, stripe: SandboxStripe, guard: Guard):
    slug = await fill_in_details(page)
    await page.get_by_label("E-mail address").fill("bob@example.com")
    await page.get_by_role("button", name="Invite").click()
    await expect(page.get_by_label("Link for bob@example.com")).to_contain_text("/invitation/")
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Business").check()
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_role("button", name="Pay by card").click()
    await page.get_by_role("link", name="To Stripe").click()
    await page.get_by_role("button", name="4242").first.click()

    await expect(page.get_by_role("heading", name="Corner shop is in the sandbox")).to_be_visible()
    await page.get_by_role("button", name="Create an API key").click()
    await expect(page.get_by_label("API key")).to_contain_text("rk_")
    await expect(page.get_by_role("button", name="Go live")).to_be_disabled()
    found = await in_thread(lambda: Subscription.objects.get(tenant__slug=slug))
    assert found.status == Paid.TRIALING

    await page.get_by_role("link", name="Add a processor").click()
    await expect(page.get_by_role("heading", name="Add a processor")).to_be_visible()


async def test_going_back_and_reloading_lose_nothing(page: Page):
    await fill_in_details(page)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Business").check()
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("heading", name="Business")).to_be_visible()

    await page.go_back()
    await page.reload()

    await expect(page.get_by_label("Business")).to_be_checked()
    await page.get_by_role("link", name=re.compile("Details")).click()
    await expect(page.get_by_label("Name", exact=True)).to_have_value("Corner shop")


async def test_the_pages_of_the_sign_up_look_right(page: Page, guard: Guard, tmp_path: Path):
    guard.allowed.append("status of 422")
    await page.goto("/signup")
    await looks_right(page, "signup-details", tmp_path, BRIEFLY)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.locator(".error").first).to_be_visible()
    await looks_right(page, "signup-details-wrong", tmp_path, BRIEFLY)
    await fill_in_details(page)
    await page.get_by_label("E-mail address").fill("a.rather.long.address.of.bob@example.com")
    await page.get_by_role("button", name="Invite").click()
    await expect(page.get_by_label("Link for a.rather.long.address.of.bob@example.com")).to_be_visible()
    await looks_right(page, "signup-users", tmp_path, BRIEFLY)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_label("Business")).to_be_visible()
    await looks_right(page, "signup-plan", tmp_path, BRIEFLY)
    await page.get_by_label("Business").check()
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("button", name="Start the trial without a card")).to_be_visible()
    await looks_right(page, "signup-payment", tmp_path, BRIEFLY)
    await page.get_by_role("button", name="Start the trial without a card").click()
    await page.get_by_role("button", name="Create an API key").click()
    await expect(page.get_by_label("API key")).to_contain_text("rk_")
    await looks_right(page, "signup-live", tmp_path, BRIEFLY)


async def test_the_plans_page_looks_right_when_it_is_not_paid(page: Page, tmp_path: Path):
    slug = await fill_in_details(page)
    tenant = await in_thread(Tenant.objects.get, slug=slug)

    def make() -> None:
        plan = Plan.objects.get(slug="business")
        Tenant.objects.filter(pk=tenant.pk).update(mode="live")
        Subscription.objects.create(tenant=tenant, plan=plan, status=Paid.PAST_DUE, dunning=Dunning.REFUSED)

    await in_thread(make)
    await page.goto(f"/plan?tenant={slug}")

    await expect(page.get_by_role("alert")).to_contain_text("Live payments are refused")
    await looks_right(page, "plan", tmp_path, BRIEFLY)


@pytest.mark.parametrize("address", ["/invitation/none", "/signup"])
async def test_pages_without_a_next_step_look_right(
    page: Page, guard: Guard, settings: Any, tmp_path: Path, address: str
):
    settings.SIGN_UP = False
    guard.allowed += ["status of 404", "status of 403"]

    await page.goto(address)

    await looks_right(page, "dead-end", tmp_path, BRIEFLY)
