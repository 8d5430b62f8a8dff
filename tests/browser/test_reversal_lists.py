"""The lists of refunds and disputes in a browser: they are refreshed, look right, and offer their actions."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from playwright.async_api import Page, expect

from payments.models import Difference, Dispute, Payment, Refund
from payments.states import SUCCEEDED, RefundStatus
from tests.browser.conftest import BRIEFLY, hurry, looks_right
from tests.factories import in_thread, make_payment, make_stripe


@pytest.fixture
def cookies(signed_in: list[Any]) -> list[Any]:
    return signed_in


def make_refund(payment: Payment, number: int, **fields: Any) -> Refund:
    shared = {"tenant": payment.tenant, "payment": payment, "processor": payment.processor, "currency": "BRL"}
    return Refund.objects.create(**shared, number=number, public_id=uuid4(), fingerprint=b"", amount=500, **fields)


async def test_the_list_of_refunds_is_refreshed_and_looks_right(page: Page, tenant, tmp_path: Path):
    stripe = await in_thread(make_stripe, tenant, "http://127.0.0.1:9")
    payment = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=stripe))
    await in_thread(make_refund, payment, 1, reason="the box was torn and everything in it was wet " * 5, actor="ana")
    await in_thread(make_refund, payment, 2, status=RefundStatus.UNCERTAIN, code="timeout", stopped_at=timezone.now())
    await hurry(page)
    await page.goto("/refunds/list")
    await expect(page.get_by_role("link", name="Retry the refund of R$5.00")).to_be_visible()
    await looks_right(page, "refunds", tmp_path)

    await in_thread(make_refund, payment, 3, status=RefundStatus.RETURNED)
    await expect(page.locator("tbody tr")).to_have_count(3)

    await page.get_by_role("link", name="Retry the refund of R$5.00").click()
    await page.get_by_label("Why").fill("the processor is back")
    await page.get_by_role("button", name="Retry refund").click()
    await expect(page.get_by_role("status").first).to_contain_text("Retry refund: done.")
    await expect(page.get_by_role("link", name="Retry the refund of R$5.00")).to_have_count(0)


async def test_the_list_of_disputes_says_what_the_money_does_and_looks_right(page: Page, tenant, tmp_path: Path):
    stripe = await in_thread(make_stripe, tenant, "http://127.0.0.1:9")
    payment = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=stripe))
    shared = {"tenant": tenant, "payment": payment, "processor": stripe, "currency": "BRL", "amount": 123_456_789}

    def make() -> None:
        due = timezone.now() + timedelta(days=5)
        fields = {"status": "needs_response", "due_by": due, "withdrawn": 123_456_789, "reason": "fraudulent"}
        Dispute.objects.create(**shared, **fields, reference="dp_1")
        ended = {"status": "lost", "withdrawn": 990, "closed_at": timezone.now(), "reason": "product_not_received"}
        Dispute.objects.create(**shared, **ended, reference="dp_2")

    await in_thread(make)
    await page.goto("/disputes/list")

    evidence = page.get_by_role("link", name="Give evidence at stripe: dp_1")
    await expect(evidence).to_have_attribute("href", "http://127.0.0.1:9/sandbox/dispute/dp_1")
    await expect(page.locator("tbody tr").nth(1)).to_contain_text("withheld")
    await looks_right(page, "disputes", tmp_path)


async def test_the_list_of_discrepancies_has_both_sides_and_looks_right(page: Page, tenant, tmp_path: Path):
    stripe = await in_thread(make_stripe, tenant, "http://127.0.0.1:9")
    payment = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=stripe))
    shared = {"tenant": tenant, "processor": stripe, "their_currency": "BRL", "requested_at": timezone.now()}

    def make() -> None:
        ours = {"payment_id": payment.pk, "our_status": "succeeded", "our_amount": 1990, "our_currency": "BRL"}
        same = {"correlation_id": payment.correlation_id, "key": str(payment.correlation_id)}
        Difference.objects.create(**shared, **ours, **same, kind="amount", their_amount=123_456_789)
        Difference.objects.create(
            **shared, kind="missing_here", key="pi_" + "x" * 60, reference="pi_" + "x" * 60, their_amount=990
        )
        note = "their operator made a test booking and told us so by telephone " * 3
        ended = {"resolution": "closed", "resolved_by": "ana", "resolved_at": timezone.now(), "note": note}
        Difference.objects.create(**shared, **ended, kind="duplicate", key="pi_2", reference="pi_2", their_amount=990)

    await in_thread(make)
    await page.goto("/discrepancies/list")
    await expect(page.locator("tbody tr")).to_have_count(3)
    await expect(page.get_by_role("link", name="Book pi_x")).to_be_visible()
    await looks_right(page, "discrepancies", tmp_path)


@pytest.mark.parametrize("address", ["/discrepancies/list", "/refunds/list", "/disputes/list?q=nothing&status=won"])
async def test_an_empty_list_says_what_would_fill_it(page: Page, tenant, tmp_path: Path, address: str):
    await page.goto(address)

    await expect(page.locator(".empty h2")).to_be_visible()
    await looks_right(page, "empty-reversals", tmp_path, BRIEFLY)
