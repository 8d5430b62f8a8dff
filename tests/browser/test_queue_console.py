"""The queue console in a browser: live figures, and guarded actions with a reason."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.async_api import Page, expect

from queueing.broker import long_polls, maintenance, traces, traffic
from queueing.models import Group, Queue, Traffic
from registry.data import database
from registry.models import AuditEntry, Tenant
from tests.browser.conftest import BRIEFLY, PICTURES, Guard, audit, hurry, looks_right
from tests.conftest import Api, eventually
from tests.factories import in_thread
from tests.queueing.mq import Mq

FIRST_VIEW = 100_000  # bytes over the line
REFRESH_EVERY = 2000  # ms between two looks at the figures, as the page has it
WHY = "the shop asked for it"


@pytest.fixture
def cookies(signed_in: list[Any]) -> list[Any]:
    """These pages are for the tenant's people."""
    return signed_in


@pytest.fixture
async def mq(api: Api, tenant: Tenant) -> AsyncIterator[Mq]:
    """A program of the open tenant; what it counted is written before the rows are removed."""
    yield Mq(api, tenant.pk)
    await traffic.counts.close()
    await long_polls.loops.close()


async def a_working_day(mq: Mq) -> None:
    """Two queues: one with readers, a lease, history and a dead letter, one that nobody reads."""
    await mq.configure("orders", retry_limit=0)
    for partition in ("recife", "curitiba", "belém"):
        await mq.push("orders", *({"order": n, "what": "Two coffees"} for n in range(8)), partition=partition)
    done = await mq.pop("orders", "recife", batch=5, consumerGroup="billing")
    await mq.ack_all(done["messages"])
    bad = await mq.pop("orders", "curitiba", consumerGroup="billing")
    await mq.ack(bad["messages"][0], "failed", error="the address has no street")
    await mq.pop("orders", "curitiba", batch=3, consumerGroup="billing")
    await mq.pop("orders", "belém", batch=2, consumerGroup="reports")
    await mq.pop("orders", "recife", batch=8, consumerGroup="reports", autoAck=True)
    await mq.push("events/shop.opened", {"at": "08:00"})
    await traffic.flush()


async def confirm(page: Page, name: str) -> None:
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name=name).click()


async def entries() -> list[tuple[str, int, str]]:
    return await in_thread(lambda: list(AuditEntry.objects.order_by("id").values_list("action", "rows", "reason")))


# -- Looks -------------------------------------------------------------------------------------------------


async def test_the_console_looks_right(page: Page, tenant, mq: Mq, tmp_path: Path):
    await a_working_day(mq)
    message = (await mq.push("orders", {"total": 12345678901234567890}, partition="recife"))[0]
    await traces.write(tenant.pk, message["partition_id"], message["transaction_id"], b'{"weighed": "1.2 kg"}')

    await page.goto("/queues")
    await expect(page.locator("canvas")).to_have_count(2)
    await looks_right(page, "console-queues", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="orders", exact=True).click()
    await expect(page.get_by_role("heading", name="Consumer groups")).to_be_visible()
    await expect(page.locator("canvas")).to_have_count(2)
    await looks_right(page, "console-queue", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="recife", exact=True).click()
    await expect(page.locator("tr[data-seq]")).to_have_count(9)
    await looks_right(page, "console-partition", tmp_path, BRIEFLY)
    await page.locator("tr[data-seq='9'] a").click()
    await expect(page.locator(".payload")).to_contain_text("12345678901234567890")
    await expect(page.locator(".trace")).to_contain_text("1.2 kg")
    await looks_right(page, "console-message", tmp_path, BRIEFLY)
    await page.goto("/dead-letters/orders")
    await expect(page.locator("[data-letter] .error")).to_have_text("the address has no street")
    await looks_right(page, "console-dead-letters", tmp_path, BRIEFLY)
    await page.get_by_role("link", name="Replay…").click()
    await expect(page.get_by_label("Why")).to_be_focused()
    await looks_right(page, "console-confirm", tmp_path, BRIEFLY)


async def test_an_empty_console_has_instructions(page: Page, tenant):
    await page.goto("/queues")

    await expect(page.get_by_role("heading", name="No queues yet")).to_be_visible()
    await expect(page.locator("pre")).to_contain_text("/api/v1/push")
    assert await audit(page) == []


async def test_the_pages_of_payments_and_of_queues_lead_to_each_other(page: Page, tenant):
    await page.goto("/")
    await page.get_by_role("link", name="Queues", exact=True).click()
    await expect(page.get_by_role("heading", name="Queues", level=1)).to_be_visible()
    await page.get_by_role("link", name="Payments", exact=True).click()

    await expect(page.get_by_role("heading", name="Payments", exact=True)).to_be_visible()


async def test_the_first_view_is_light(own_page: Page, tenant, mq: Mq):
    await mq.push_items([{"queue": f"queue-{n}", "payload": n} for n in range(30)])
    sizes: dict[str, int] = {}
    page = own_page
    client = await page.context.new_cdp_session(page)
    await client.send("Network.enable")
    client.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    await page.goto("/queues", wait_until="load")
    await expect(page.locator("canvas")).to_have_count(2)

    assert sum(sizes.values()) < FIRST_VIEW, sizes


# -- What moves ----------------------------------------------------------------------------------------------


async def test_a_push_is_seen_without_a_reload(page: Page, tenant, mq: Mq):
    await hurry(page)
    await mq.push("orders", 1)
    await page.goto("/queues")
    waiting = page.locator("tr[data-queue=orders] [data-figure=waiting]")
    await expect(waiting).to_have_text("1")
    await page.evaluate("window.untouched = true")

    await mq.push("orders", 2, 3)
    await mq.push("other", 1)

    await expect(waiting).to_have_text("3")
    await expect(page.locator("tr[data-queue=other]")).to_be_visible()
    assert await page.evaluate("window.untouched")
    assert REFRESH_EVERY in await page.evaluate("waits")


async def test_typed_text_stays_while_figures_change(page: Page, tenant, mq: Mq):
    await hurry(page)
    await mq.push("orders", 1)
    await page.goto("/queues")
    await page.get_by_label("Name").fill("ord")

    await mq.push("orders", 2)
    await expect(page.locator("tr[data-queue=orders] [data-figure=waiting]")).to_have_text("2")

    await expect(page.get_by_label("Name")).to_have_value("ord")
    await expect(page.get_by_label("Name")).to_be_focused()


async def test_a_lost_connection_is_shown_and_restored(own_page: Page, guard: Guard, tenant, mq: Mq):
    page = own_page
    await hurry(page)
    guard.allowed += ["Failed to load resource", "ERR_INTERNET_DISCONNECTED", "Failed to fetch"]
    await mq.push("orders", 1)
    await page.goto("/queues")
    await expect(page.locator("[data-live=live]")).to_be_visible()

    await page.context.set_offline(True)
    await expect(page.locator("#offline")).to_be_visible()
    await page.context.set_offline(False)

    await expect(page.locator("[data-live=live]")).to_be_visible()
    await expect(page.locator("#offline")).to_be_hidden()


# -- What is done --------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_replayed_with_a_reason(page: Page, guard: Guard, tenant, mq: Mq):
    guard.allowed.append("status of 422")
    await a_working_day(mq)
    await page.goto("/dead-letters/orders")
    await page.get_by_role("link", name="Replay…").click()
    await page.get_by_role("button", name="Replay (1)").click()
    await expect(page.locator("#reason-error")).to_contain_text("Say why")
    await confirm(page, "Replay (1)")

    await expect(page.get_by_role("status").first).to_have_text("Replay: done.")
    await expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()
    assert await mq.sql("SELECT last_seq FROM queueing_partition WHERE name = 'curitiba'") == [(9,)]
    assert await entries() == [("deadmessage.replay", 1, WHY)]


async def test_selected_dead_letters_are_replayed_and_the_rest_purged(page: Page, tenant, mq: Mq):
    await mq.configure("orders", retry_limit=0)
    await mq.push("orders", 1, 2, 3)
    for _ in range(3):
        await mq.ack((await mq.pop("orders"))["messages"][0], "dlq", error="no")
    await page.goto("/dead-letters/orders")
    boxes = page.locator("[data-letter] input")
    await boxes.nth(0).check()
    await boxes.nth(1).check()
    await page.get_by_role("button", name="Replay selected…").click()
    await confirm(page, "Replay (2)")
    await expect(page.locator("[data-letter]")).to_have_count(1)
    await page.get_by_role("link", name="Purge…").click()
    await confirm(page, "Purge dead letters (1)")

    await expect(page.get_by_role("heading", name="No dead letters")).to_be_visible()
    assert await entries() == [("deadmessage.replay", 2, WHY), ("deadmessage.purge", 1, WHY)]


async def test_a_group_is_moved_to_the_end_and_back(page: Page, tenant, mq: Mq):
    await mq.push("orders", 1, 2)
    assert await mq.data("orders", consumerGroup="billing", autoAck=True) == [1]
    await page.goto("/queues/orders")
    row = page.locator("tr[data-group=billing]")
    await row.get_by_role("link", name="Reset offset of billing").click()
    await confirm(page, "Reset offset of billing (1)")
    await expect(row.locator("[data-label='to read']")).to_have_text("0")
    assert await mq.pop("orders", consumerGroup="billing") is None
    await row.get_by_role("link", name="Reset offset of billing").click()
    await page.get_by_label("the first message from a time on").check()
    await page.get_by_label("That time (UTC)").fill("2020-01-01T00:00:00")
    await confirm(page, "Reset offset of billing (1)")

    await expect(row.locator("[data-label='to read']")).to_have_text("2")
    assert await mq.data("orders", consumerGroup="billing", batch=5) == [1, 2]
    assert [action for action, *_ in await entries()] == ["group.seek", "group.seek"]


async def test_a_message_is_moved_to_the_dead_letters_and_replayed(page: Page, tenant, mq: Mq):
    [message] = await mq.push("orders", {"order": 1})
    assert await mq.pop("orders", consumerGroup="other", subscriptionMode="new") is None
    assert await mq.data("orders", consumerGroup="billing") == [{"order": 1}]
    await page.goto(f"/partitions/{message['partition_id']}/messages/1")
    await page.get_by_role("link", name="Move to the dead letters…").click()
    await confirm(page, "Move to the dead letters (1)")
    await expect(page.locator("[data-grave]")).to_contain_text("moved here by hand")
    await page.get_by_role("link", name="Replay…").click()
    await confirm(page, "Replay (1)")

    await expect(page.locator("tr[data-reader=billing] .pill")).to_have_text("–replayed or purged")
    assert [action for action, *_ in await entries()] == ["message.bury", "deadmessage.replay"]


async def test_pops_are_stopped_and_resumed(page: Page, tenant, mq: Mq):
    await mq.push("orders", 1)
    await page.goto("/queues")
    await page.get_by_role("link", name="Stop pops").click()
    await confirm(page, "Stop pops (1)")
    await expect(page.locator("[data-mode=pop] .pill")).to_have_text("◑stopped")
    assert (await maintenance.modes(tenant.pk, fresh=True)).pop
    await page.get_by_role("link", name="Resume pops").click()
    await confirm(page, "Resume pops (1)")

    await expect(page.locator("[data-mode=pop] .pill")).to_have_text("●running")
    await eventually(lambda: _pops_run(tenant))
    assert await entries() == [("queues.stop_pop", 1, WHY), ("queues.resume_pop", 1, WHY)]


async def _pops_run(tenant: Tenant) -> bool:
    async with database.own_connection():
        return not (await maintenance.modes(tenant.pk, fresh=True)).pop


# -- Without JavaScript, and strange content -------------------------------------------------------------------


async def test_without_javascript_everything_can_be_read_and_done(plain: Page, tenant, mq: Mq):
    await a_working_day(mq)
    await mq.push("orders", *range(30), partition="recife")
    await plain.goto("/queues?q=ord")
    await expect(plain.locator("tbody tr")).to_have_count(1)
    await plain.get_by_role("link", name="orders", exact=True).click()
    await plain.get_by_role("link", name="recife", exact=True).click()
    await expect(plain.locator("tr[data-seq]")).to_have_count(25)
    await plain.get_by_role("link", name="Older").click()
    await expect(plain.locator("tr[data-seq]")).to_have_count(13)
    await plain.get_by_role("link", name="done", exact=True).click()
    await expect(plain.locator("tr[data-seq]")).to_have_count(5)
    await plain.locator("tr[data-seq='1'] a").click()
    await expect(plain.locator(".payload")).to_contain_text('"what": "Two coffees"')
    await plain.goto("/dead-letters/orders")
    await plain.get_by_role("link", name="Replay…").click()
    await confirm(plain, "Replay (1)")

    await expect(plain.get_by_role("heading", name="No dead letters")).to_be_visible()


async def test_text_of_queues_is_never_markup(page: Page, tenant, mq: Mq):
    name, bad = "a/b?c#d%20<b>é\n", "<img src=x onerror=alert(1)>"
    await mq.push(name, {"text": bad}, partition=bad)
    await mq.ack((await mq.pop(namespace=name, consumerGroup=bad))["messages"][0], "dlq", error=bad)
    await page.goto("/queues")
    await page.locator("tr[data-queue] .lead a").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(name.strip())
    await expect(page.locator("tr[data-group] .name")).to_have_text(bad)
    await page.locator("tr[data-partition] .lead a").click()
    await page.locator("tr[data-seq] .lead a").click()
    await expect(page.locator(".payload")).to_contain_text(bad)

    await expect(page.locator("[data-grave] .error")).to_have_text(bad)


async def test_the_picture_of_the_docs_can_be_taken(page: Page, tenant, mq: Mq, tmp_path: Path):
    """REGISTRY_PICTURES=1 keeps it in docs/pictures."""
    folder = PICTURES if os.environ.get("REGISTRY_PICTURES") == "1" else tmp_path
    await a_working_day(mq)
    for name in ("emails", "search.index"):
        await mq.push(name, *range(20))
        await mq.pop(name, batch=16, autoAck=True)
    for name, scale in (("orders", 30), ("events/shop.opened", 8), ("emails", 55), ("search.index", 90)):
        await in_thread(an_hour_of_traffic, tenant, name, scale)
    await page.goto("/queues")
    await expect(page.locator("canvas")).to_have_count(2)
    await page.screenshot(path=folder / "queues.png")

    assert (folder / "queues.png").stat().st_size > 10_000


def an_hour_of_traffic(tenant: Tenant, name: str, scale: int) -> None:
    """Each minute up to now: a wave that the readers cannot follow for a while."""
    now = timezone.now().replace(second=0, microsecond=0)
    queue = Queue.objects.get(tenant=tenant, name=name)
    groups = max(Group.objects.filter(queue=queue).count(), 1)
    level = 8
    for minute in range(60):
        wave = 2 * scale if 20 < (minute + scale) % 60 < 32 else 0
        pushed = scale + (minute * 7 * scale) % 11 + wave
        done = min(level + pushed - 4, int(2.1 * scale))
        level += pushed - done
        lag = 12 + minute % 5 + level
        Traffic.objects.create(
            tenant=tenant,
            queue=queue,
            minute=now - timedelta(minutes=60 - minute),
            pushed=pushed,
            popped=done * groups,
            completed=done * groups,
            lag_ms=done * groups * lag,
            max_lag_ms=2 * lag + minute % 9 * 4,
        )
