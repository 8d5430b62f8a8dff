"""Trouble outside a single payment, on the operators' home: what it says, what it means for money and work, and what resolves it.

The states of one payment are in test_payment_states.py.
"""

import asyncio
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from playwright.async_api import Locator, Page, expect

from payments.models import Endpoint, InboundEvent, Processor
from queueing import spill
from queueing.jobs.work import JobWork
from queueing.models import WebhookEndpoint, Worker
from queueing.outbound import endpoints
from queueing.work.drain import run_until_idle
from registry.errors import Unavailable
from registry.models import AuditEntry, Tenant
from registry.telemetry import metrics
from tests.browser.conftest import BRIEFLY, looks_right
from tests.conftest import Api, at_work, eventually, make_key
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of

WHY = "the cause is gone"


@pytest.fixture
def cookies(server: str) -> list[Any]:
    """Those of a superuser."""
    return [{"name": "sessionid", "value": session_of(make_person("olga")), "url": server}]


async def item(page: Page, name: str) -> Locator:
    """What the operators' home says under this name, with a line of the runbook."""
    await page.goto("/admin/")
    found = page.locator(f".attention > ul li[data-item='{name}']").first
    await expect(found.get_by_role("link", name=f"Runbook: {name}")).to_be_visible()
    return found


async def act(page: Page, found: Locator, link: str, action: str) -> None:
    """Follow the item's link, choose the action for every row there, and confirm it with a reason."""
    await found.get_by_role("link", name=link, exact=True).click()
    await page.locator("#action-toggle").check()
    await page.get_by_label("Action:").select_option(label=action)
    await page.get_by_role("button", name="Run").click()
    await page.get_by_label("Why").fill(WHY)
    await page.locator("form.guard button[type=submit]").click()
    await expect(page.locator(".messagelist")).to_contain_text("done")


async def is_gone(page: Page, name: str) -> None:
    await page.goto("/admin/")
    await expect(page.locator(f".attention > ul li[data-item='{name}']")).to_have_count(0)


async def was_recorded(action: str) -> bool:
    return await AuditEntry.async_objects.filter(action=action, reason=WHY, actor="olga").aexists()


async def test_a_disabled_endpoint_keeps_its_events_and_is_switched_on_again(
    page: Page, tenant: Tenant, tmp_path: Path
):
    made, _ = await endpoints.create(
        tenant_id=tenant.pk, mode=tenant.mode, actor="ana", url="http://127.0.0.1:8009/hook", events=["*"]
    )
    await endpoints.switch(
        tenant_id=tenant.pk, uuid=made.uuid, enabled=False, reason="No delivery succeeded for 5 days."
    )

    found = await item(page, "endpoints.disabled")
    await expect(found).to_contain_text(
        "1 webhook endpoint (127.0.0.1:8009) is disabled: its events wait until it is switched on"
    )
    await looks_right(page, "attention-endpoint", tmp_path, BRIEFLY)
    await act(page, found, "Switch on", "Switch on")

    await is_gone(page, "endpoints.disabled")
    assert (await WebhookEndpoint.async_objects.aget(uuid=made.uuid)).enabled
    assert await was_recorded("endpoint.enable")


async def test_an_inbound_event_that_is_stuck_may_hide_a_refund_and_is_closed(
    page: Page, tenant: Tenant, tmp_path: Path
):
    def stuck() -> InboundEvent:
        processor = Processor.objects.filter(tenant=tenant).first()
        return InboundEvent.objects.create(
            tenant=tenant, processor=processor, event_id="evt_1", type="charge.refunded", object_id="ch_1", body=b"{}",
            created=timezone.now(), source="delivery", status="dead", attempt=12, error="no such object",
        )  # fmt: skip

    event = await in_thread(stuck)
    found = await item(page, "inbound.dead")
    await expect(found).to_contain_text(
        "1 event of processors could not be handled: a refund or dispute may be missing"
    )
    await looks_right(page, "attention-inbound", tmp_path, BRIEFLY)
    await act(page, found, "Replay or close", "Close without replay")

    await is_gone(page, "inbound.dead")
    assert (await InboundEvent.async_objects.aget(tenant_id=tenant.pk, pk=event.pk)).status == "closed"
    assert await was_recorded("inbound.close")


@pytest.fixture
async def spilled(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A spill of its own, into which one payment was accepted. `outcomes` says what storing it comes to, in turn."""
    settings.SPILL_FOLDER = tmp_path / "spill"
    metrics.SPILL_RECORDS.clear()  # of the tests before
    refusal = [""]
    back = asyncio.Event()

    async def store(records: list[spill.Record]) -> list[spill.StoreResult]:
        if not back.is_set():
            raise Unavailable("the database is away")
        return [spill.StoreResult(refusal[0]) for _ in records]

    monkeypatch.setitem(spill.KINDS, "payments-of-the-test", spill._Kind(store, None))
    await spill.append("payments-of-the-test", 7, b"a payment")
    yield back, refusal
    await spill.loops.close()


async def test_what_waits_in_the_spill_is_stored_once_the_database_is_back(page: Page, tenant, spilled, tmp_path: Path):
    back, _ = spilled
    found = await item(page, "spill.waiting")
    await expect(found).to_contain_text("1 accepted write in the spill of this host")
    await expect(found).to_contain_text("stored once PostgreSQL accepts writes")
    await expect(found).to_contain_text("Restore PostgreSQL.")
    await looks_right(page, "attention-spill", tmp_path, BRIEFLY)

    back.set()

    await eventually(lambda: _left(page, "spill.waiting"))


async def _left(page: Page, name: str) -> bool:
    await page.goto("/admin/")
    return await page.locator(f".attention > ul li[data-item='{name}']").count() == 0


async def test_a_record_that_was_set_aside_was_accepted_and_is_not_stored_until_it_is_replayed(
    page: Page, tenant, spilled, tmp_path: Path
):
    back, refusal = spilled
    refusal[0] = "another payment has this id"
    back.set()
    await eventually(lambda: spill.quarantined("payments-of-the-test"))

    found = await item(page, "spill.set_aside")
    await expect(found).to_contain_text("1 record of the spill was set aside: accepted with 202, and not stored.")
    await expect(found).to_contain_text("another payment has this id")
    await expect(found).to_contain_text("manage.py spill replay ID")
    await looks_right(page, "attention-set-aside", tmp_path, BRIEFLY)
    refusal[0] = ""
    [record] = await spill.quarantined("payments-of-the-test")
    out = StringIO()
    await in_thread(lambda: call_command("spill", "replay", record.id, stdout=out))

    await is_gone(page, "spill.set_aside")


async def test_an_open_breaker_names_the_processor_and_is_closed_by_hand(page: Page, tenant: Tenant, tmp_path: Path):
    processor = await in_thread(lambda: Processor.objects.get(tenant=tenant, name="default"))
    row = {"breaker": "open", "failures": 5}
    await in_thread(lambda: Endpoint.objects.update_or_create(key=processor.endpoint, defaults=row))

    found = await item(page, "processors.down")
    await expect(found).to_contain_text(f"default of {tenant.slug}: the breaker is open after 5 failures")
    await expect(found).to_contain_text("Payments go to other processors, or wait.")
    await looks_right(page, "attention-breaker", tmp_path, BRIEFLY)
    await act(page, found, "See the breaker", "Close the breaker: send again")

    await is_gone(page, "processors.down")
    assert await was_recorded("endpoint.close")


async def test_a_dead_job_has_not_done_its_work_and_is_retried(
    page: Page, tenant: Tenant, server: str, unused_tcp_port: int, tmp_path: Path
):
    async with Api(server, await make_key(tenant, "read", "write", "admin")) as api:
        body = {"kind": "http", "input": {"url": f"http://127.0.0.1:{unused_tcp_port}/none"}, "maxAttempts": 1}
        async with api.post("/jobs", json=body) as response:
            assert response.status == 202, await response.text()
    await run_until_idle(JobWork())

    found = await item(page, "jobs.failed")
    await expect(found).to_contain_text("1 job failed in every attempt. That work is not done.")
    await looks_right(page, "attention-job", tmp_path, BRIEFLY)
    await act(page, found, "Retry", "Retry")

    await is_gone(page, "jobs.failed")
    assert await was_recorded("job.retry")


async def test_a_silent_worker_is_named_and_gone_once_another_has_taken_over(
    page: Page, tenant: Tenant, tmp_path: Path
):
    long_ago = timezone.now() - timedelta(minutes=3)
    await in_thread(
        lambda: Worker.objects.create(queue="payments", hostname="host-9", pid=1, capacity=400, heartbeat_at=long_ago)
    )

    found = page.locator(".attention li[data-item='workers']", has_text="host-9")
    await page.goto("/admin/")
    await expect(found).to_contain_text(
        "The host host-9 is silent, with 1 worker. Others take over what was leased there."
    )
    await looks_right(page, "attention-worker", tmp_path, BRIEFLY)
    async with at_work():
        await eventually(lambda: _is_forgotten("host-9"))

    await page.goto("/admin/")
    await expect(found).to_have_count(0)


async def _is_forgotten(host: str) -> bool:
    return not await Worker.async_objects.filter(hostname=host).aexists()
