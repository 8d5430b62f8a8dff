"""The pages of webhooks in a browser: create, test, disable, replay and delete."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, expect
from standardwebhooks import Webhook, WebhookVerificationError

from payments.states import SUCCEEDED
from queueing.jobs import lifecycle, store
from queueing.jobs.builtin.queue_rotate import KeyRotation
from queueing.jobs.requests import of_service
from queueing.outbound import testkit
from registry.data import database
from registry.models import AuditEntry
from tests.bed.receiver import Receiver
from tests.bed.wire import response
from tests.browser.conftest import BRIEFLY, Guard, looks_right
from tests.conftest import eventually
from tests.factories import in_thread, make_payment
from tests.queueing.hooks import again, deliveries, delivering, endpoint, fan_out, make_due, until, until_tried

WHY = "the shop asked for it"


@pytest.fixture
def cookies(signed_in: list[Any]) -> list[Any]:
    """These pages are for the tenant's people."""
    return signed_in


@pytest.fixture
async def receiver():
    async with Receiver() as found:
        yield found


async def confirm(page: Page, name: str) -> None:
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name=name).click()


async def last_was_tried(hook) -> bool:
    """What is pending may not have been tried yet, or may have failed once."""
    last = (await deliveries(hook))[-1]
    return last.attempt > 0 and last.lease_id is None


async def test_the_pages_look_right(page: Page, tenant, receiver, tmp_path: Path):
    hook = await endpoint(tenant, receiver.url, "payment.*", description="The shop's own back office", ordered=True)
    await endpoint(
        tenant, f"{receiver.url}/with/quite/a/long/address/for/a/phone?token=abcdefghijklmnop", "payment.queued"
    )
    receiver.answers_by(
        lambda heard: response(500, b"<h1>Oops</h1>") if heard.type == "payment.succeeded" else response(200)
    )
    await in_thread(make_payment, tenant, status=SUCCEEDED)
    async with delivering():
        await until(hook, "delivered", "pending", count=2)
        await eventually(lambda: last_was_tried(hook))
    bad = (await deliveries(hook))[-1]

    await page.goto("/webhooks")
    await expect(page.locator("tr[data-endpoint]")).to_have_count(2)
    await looks_right(page, "webhooks-endpoints", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="The shop's own back office").click()
    await expect(page.locator("tr[data-delivery]")).to_have_count(2)
    await looks_right(page, "webhooks-endpoint", tmp_path, BRIEFLY)
    await page.locator(f"tr[data-delivery='{bad.pk}'] a").click()
    await expect(page.locator("[data-try]")).to_contain_text("<h1>Oops</h1>")
    await looks_right(page, "webhooks-delivery", tmp_path, BRIEFLY)
    await page.goto(f"/webhooks/kit?endpoint={hook.uuid}")
    receiver.answers(200)
    await page.get_by_role("button", name="Test it").click()
    await expect(page.locator("[data-check]")).to_have_count(len(testkit.checks()))
    await expect(page.locator(".verdict")).to_have_text(
        f"{len(testkit.checks()) - 6} of {len(testkit.checks())} checks passed."
    )
    await looks_right(page, "webhooks-kit", tmp_path, BRIEFLY)


async def test_an_empty_list_has_instructions_and_a_form_keeps_invalid_input(page: Page, tenant, guard: Guard):
    guard.allowed.append("422")
    await page.goto("/webhooks")
    await expect(page.get_by_role("heading", name="No endpoints yet")).to_be_visible()
    await page.get_by_label("Address").fill("http://169.254.169.254/latest")
    await page.get_by_label("Description").fill("the cloud's secrets")
    async with page.expect_response("**/webhooks?**") as answer:
        await page.get_by_role("button", name="Add").click()

    assert (await answer.value).status == 422
    await expect(page.locator("#url-error")).to_have_text("169.254.169.254 is not a public address")
    await expect(page.get_by_label("Description")).to_have_value("the cloud's secrets")


async def test_an_endpoint_is_created_tested_disabled_and_deleted(page: Page, tenant, receiver):
    await page.goto("/webhooks")
    await page.get_by_label("Address").fill(receiver.url)
    await page.get_by_role("button", name="Add").click()
    said = await page.locator(".bar.said").inner_text()
    secret = next(word for word in said.split() if word.startswith("whsec_"))

    async with delivering():
        await page.get_by_role("button", name="Send a test message").click()
        await expect(page.get_by_role("heading", name="endpoint.test")).to_be_visible()
        await expect_delivered(page)
    await page.get_by_role("link", name=receiver.url).first.click()
    await expect(page.locator(".bar.said")).to_have_count(0)  # shown once
    await page.get_by_role("link", name="Replace the secret…").click()
    await confirm(page, "Replace the secret")
    await expect(page.get_by_text("2 secrets")).to_be_visible()
    await page.get_by_role("link", name="Switch off…").click()
    await confirm(page, "Switch off")
    await expect(page.locator(".headline .pill")).to_contain_text("switched off")
    await page.get_by_role("link", name="Delete…").click()
    await confirm(page, "Delete")

    await expect(page.get_by_role("heading", name="No endpoints yet")).to_be_visible()
    assert receiver.heard[0].verify(secret)["type"] == "endpoint.test"
    entries = await in_thread(lambda: list(AuditEntry.objects.order_by("id").values_list("action", "reason")))
    assert entries == [
        ("endpoint.add", ""),
        ("endpoint.rotate", WHY),
        ("endpoint.disable", WHY),
        ("endpoint.delete", WHY),
    ]


async def expect_delivered(page: Page) -> None:
    for _ in range(100):
        if await page.locator(".headline .pill[data-status='delivered']").count():
            return
        await page.wait_for_timeout(50)
        await page.reload()
    raise AssertionError(await page.locator(".headline").inner_text())


async def test_deliveries_that_were_given_up_are_replayed_by_hand(page: Page, tenant, receiver):
    receiver.answers(500)
    hook = await endpoint(tenant, receiver.url)
    await in_thread(make_payment, tenant)
    await fan_out()
    await database.fetch("UPDATE queueing_webhookdelivery SET attempt = 9")
    async with delivering():
        await until(hook, "dead")
        receiver.answers(200)
        await page.goto(f"/webhooks/{hook.uuid}?status=dead")
        await page.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Deliver selected again…").click()
        await expect(page.get_by_text("1 message will be changed")).to_be_visible()
        await confirm(page, "Deliver again")
        await until(hook, "delivered")

    await expect(page.get_by_text("Deliver again: done.")).to_be_visible()
    assert len(set(receiver.ids)) == 1


async def test_the_test_of_a_correct_receiver_passes(page: Page, tenant, receiver):
    await page.goto("/webhooks/kit")
    secret = await page.get_by_label("Secret").input_value()

    def verifying(heard):
        try:
            Webhook(secret).verify(heard.body, heard.headers)
        except WebhookVerificationError:
            return response(401)
        return response(204)

    receiver.answers_by(verifying)
    await page.get_by_label("Address").fill(receiver.url)
    await page.get_by_role("button", name="Test it").click()

    await expect(page.locator(".verdict")).to_have_text("It behaves.")
    assert receiver.calls == 24


async def test_without_javascript_everything_can_be_read_and_done_for_webhooks(plain: Page, tenant, receiver, server):
    hook = await endpoint(tenant, receiver.url)
    receiver.answers(503)
    await in_thread(make_payment, tenant)
    async with delivering():
        await until_tried(hook)

    await plain.goto(f"{server}/webhooks/{hook.uuid}")
    await plain.get_by_role("link", name="Switch off…").click()
    await confirm(plain, "Switch off")

    await expect(plain.locator(".headline .pill")).to_contain_text("switched off")
    assert not (await again(hook)).enabled
    await make_due(hook)


async def test_callbacks_of_jobs_are_shown_and_their_secret_is_rotated(page: Page, tenant, receiver, tmp_path: Path):
    await page.goto("/webhooks")
    await page.get_by_role("link", name="Callbacks of jobs").click()
    await expect(page.get_by_text("Nothing yet")).to_be_visible()
    await looks_right(page, "webhooks-callbacks-none", tmp_path, BRIEFLY)
    for url in (
        f"{receiver.url}?order=7",
        f"{receiver.url}/with/quite/a/long/address/for/a/phone?token=abcdefghijklmnop",
    ):
        await called_back(tenant, url)

    await page.reload()
    await expect(page.locator("tr[data-delivery]")).to_have_count(2)
    await looks_right(page, "webhooks-callbacks", tmp_path, BRIEFLY)
    await page.locator("tr[data-delivery] a").last.click()
    await expect(page.get_by_text(f"{receiver.url}?order=7")).to_be_visible()
    await looks_right(page, "webhooks-callback", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="Callbacks of jobs").click()
    await page.get_by_role("link", name="Replace the job secret…").click()
    await confirm(page, "Replace the job secret")
    await expect(page.get_by_text("The job secret is whsec_")).to_be_visible()

    entries = await in_thread(lambda: list(AuditEntry.objects.values_list("action", "reason")))
    assert entries == [("job_secret.rotate", WHY)]


async def called_back(tenant, url: str) -> None:
    """A job that was canceled, and its callback."""
    job = of_service("queue.rotate", KeyRotation(), tenant_id=tenant.pk)
    await store.submit(msgspec.structs.replace(job, callback_url=url))
    await lifecycle.cancel(tenant_id=tenant.pk, uuid=job.id)
    await fan_out()
