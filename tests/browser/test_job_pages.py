"""The pages of jobs in a browser: a list and a page that follow what happens, schedules, workers; what a person sees and does."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from playwright.async_api import Page, expect

from queueing.jobs.work import JobWork
from queueing.models import Job, JobSchedule, Worker
from queueing.work.drain import Drain
from registry.data import database
from tests.browser.conftest import BRIEFLY, Guard, looks_right
from tests.conftest import Api
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of
from tests.queueing.test_job_schedules import put
from tests.queueing.test_jobs import run, submit

WHY = "the shop asked for it"
FIRST_VIEW = 100_000  # bytes over the line


@pytest.fixture
def cookies(signed_in: list[Any]) -> list[Any]:
    """These pages are for the tenant's people."""
    return signed_in


async def become_superuser(page: Page, server: str) -> None:
    session = await in_thread(lambda: session_of(make_person()))
    await page.context.add_cookies([{"name": "sessionid", "value": session, "url": server}])


@asynccontextmanager
async def at_work() -> AsyncIterator[Drain]:
    """A worker of jobs in this loop."""
    drain = Drain(JobWork())
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        yield drain
    finally:
        drain.stop()
        await task
        await drain.work.close()


async def confirm(page: Page, name: str) -> None:
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name=name).click()


async def of_every_state(api: Api) -> dict[str, str]:
    """Jobs in every state; their ids. The running one is half way."""
    made = {
        "succeeded": await submit(api, kind="test.file", input={"steps": 2}),
        "failed": await submit(api, kind="test.fail", maxAttempts=1),
    }
    await run()
    await Job.async_objects.filter(uuid=UUID(made["failed"]["id"])).aupdate(progress_done=1, progress_total=2)
    made["canceled"] = await submit(api)
    async with api.post(f"/jobs/{made['canceled']['id']}/cancel") as response:
        assert response.status == 200
    made["running"] = await submit(api, kind="test.secret", input={"text": "Hallo", "headers": {"X-Api-Key": "sk-1"}})
    async with database.own_connection():
        await JobWork().claim(1, 10)
    await Job.async_objects.filter(uuid=UUID(made["running"]["id"])).aupdate(
        progress_done=4200, progress_total=10_000, progress_message="reading payments of March"
    )
    export = await submit(api, kind="payments.export", input={}, runAt="2031-05-04T10:00:00Z")
    await Job.async_objects.filter(uuid=UUID(export["id"])).aupdate(
        attempt=12, progress_done=1_234_567, progress_total=7_654_321
    )
    made["queued"] = await submit(api, runAt="2031-05-04T10:00:00Z", uniqueKey="monthly-report")
    return {state: job["id"] for state, job in made.items()}


def make_workers() -> None:
    """Four, in two pools; the first has claimed the running job. The last is silent."""
    beating = {"hostname": "worker-host-1", "capacity": 20, "heartbeat_at": timezone.now() + timedelta(minutes=1)}
    heavy = {**beating, "pool": "heavy", "takes": ["jobs/payments.export", "webhooks"], "pool_size": "0-3"}
    Worker.objects.create(id=1, queue="jobs", pid=4711, in_flight=1, finished=1234, **beating)
    Worker.objects.create(id=2, queue="payments", pid=4712, in_flight=18, failed=2, **beating)
    Worker.objects.create(id=3, queue="webhooks", pid=99, stop_requested=True, **heavy)
    Worker.objects.create(
        id=4, queue="jobs", pid=98, **{**heavy, "heartbeat_at": timezone.now() - timedelta(minutes=3)}
    )


async def test_the_pages_look_right(page: Page, server: str, api: Api, tenant: Any, tmp_path: Path) -> None:
    jobs = await of_every_state(api)
    await put(api, cron="*/5 * * * *", timezone="America/Argentina/Buenos_Aires")
    await put(
        api, "month-end.settlement-report-of-all-processors", cron="0 6 1 * *", kind="reports.settlement", input={}
    )
    await put(api, "daily", cron="0 6 * * *", timezone="UTC", kind="payments.export", input={})
    await JobSchedule.async_objects.filter(name="nightly").aupdate(last_job=UUID(jobs["failed"]))
    async with api.post("/schedules/month-end.settlement-report-of-all-processors/pause") as response:
        assert response.status == 200

    await page.goto("/jobs/list")
    await expect(page.locator("#jobs tbody tr")).to_have_count(6)
    await expect(page.locator("#chart-ended canvas")).to_be_visible()
    # Why it failed says more than how far it had come.
    await expect(page.locator(f"tr[data-id='{jobs['failed']}'] .progress")).to_contain_text("ZeroDivisionError")
    await looks_right(page, "jobs-list", tmp_path)
    await page.locator(f"tr[data-id='{jobs['running']}'] a").click()
    await expect(page.get_by_text("4,200 of 10,000: reading payments of March")).to_be_visible()
    await looks_right(page, "jobs-running", tmp_path, BRIEFLY)
    await page.goto(f"/jobs/{jobs['failed']}/live")
    await page.get_by_text("Traceback", exact=True).click()
    await expect(page.locator("[aria-label=Traceback]")).to_contain_text("ZeroDivisionError")
    await looks_right(page, "jobs-failed", tmp_path, BRIEFLY)
    await page.goto(f"/jobs/{jobs['succeeded']}/live")
    await expect(page.locator("[aria-label=Result]")).to_contain_text('"size"')
    await looks_right(page, "jobs-succeeded", tmp_path, BRIEFLY)
    await page.goto("/jobs/schedules")
    await expect(page.locator("[data-schedule]")).to_have_count(3)
    await expect(page.locator("[data-schedule=daily] .own")).to_have_count(0)  # its time is the one above
    await looks_right(page, "jobs-schedules", tmp_path, BRIEFLY)
    await become_superuser(page, server)
    await in_thread(make_workers)
    await page.goto(f"/workers?tenant={tenant.slug}")
    await expect(page.locator("[data-worker]")).to_have_count(4)
    await looks_right(page, "jobs-workers", tmp_path, BRIEFLY)


async def test_the_list_follows_what_happens_and_does_not_move_what_is_read(page: Page, api: Api) -> None:
    sizes: list[int] = []
    client = await page.context.new_cdp_session(page)
    await client.send("Network.enable")
    client.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    await page.goto("/jobs/list", wait_until="load")
    await expect(page.locator("canvas")).to_have_count(2)
    assert sum(sizes) < FIRST_VIEW, sizes
    await expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    await expect(page.locator("[data-live=live]")).to_be_visible()
    first = await submit(api)
    row = page.locator(f"tr[data-id='{first['id']}']")
    await expect(row.locator(".pill")).to_have_text(re.compile("queued"))
    await run()
    await expect(row.locator(".pill")).to_have_text(re.compile("succeeded"))
    await expect(page.locator("[data-count=succeeded] dd")).to_have_text("1")

    await row.hover()
    second = await submit(api, kind="test.fail", maxAttempts=1)
    await expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert await page.locator("#jobs tbody tr").count() == 1
    await page.get_by_role("button", name="1 new").click()
    await run()

    await expect(page.locator("#jobs tbody tr").first).to_have_attribute("data-id", second["id"])
    await expect(page.locator("#jobs tbody tr").first).to_contain_text("ZeroDivisionError")
    await expect(page.locator("[data-total]")).to_have_text("2")
    await page.get_by_role("link", name="failed").click()
    await expect(page.locator("#jobs tbody tr")).to_have_count(1)
    assert "status=failed" in page.url


async def test_a_filtered_list_has_only_jobs_that_match(page: Page, api: Api) -> None:
    later = await page.context.new_page()
    await later.goto("/jobs/list?from=2099-01-01T00:00")
    ended = await page.context.new_page()
    await ended.goto("/jobs/list?status=succeeded")
    await page.goto("/jobs/list?status=queued")
    for one in (later, ended, page):
        await expect(one.locator("[data-live=live]")).to_be_visible()
    job = await submit(api)
    await expect(page.locator(f"tr[data-id='{job['id']}']")).to_be_visible()

    await run()

    await expect(page.locator("#jobs tbody tr")).to_have_count(0)
    await expect(ended.locator(f"tr[data-id='{job['id']}']")).to_be_visible()
    await expect(later.locator("#jobs tbody tr")).to_have_count(0)


@pytest.mark.parametrize("blocked", [False, True], ids=["by websocket", "by long poll"])
async def test_a_page_shows_progress_and_outcome_without_a_reload(page: Page, api: Api, blocked: bool) -> None:
    job = await submit(api, input={"text": "the answer", "steps": 40, "seconds": 0.1})
    if blocked:
        await page.add_init_script("window.line.blocked = true;")
    await page.goto(f"/jobs/{job['id']}/live")
    await page.evaluate("window.mark = 'not reloaded'")
    await expect(page.locator(f"[data-live={'polling' if blocked else 'live'}]")).to_be_visible()

    async with at_work():
        await expect(page.locator("[data-pill-here]")).to_contain_text("running")
        await expect(page.locator("[data-progress-text]")).to_have_text(re.compile(r"\d+ of 40: step \d+"))
        assert 0 < float(await page.locator("progress").get_attribute("value") or 0) < 100
        await expect(page.locator("[data-sentence-here]")).to_have_text(re.compile("^Done in"))

    await expect(page.locator("[aria-label=Result]")).to_contain_text("the answer")
    await expect(page.locator(".timeline")).to_contain_text("Attempt 1 started")
    assert await page.title() == "test.echo – succeeded"
    assert await page.evaluate("window.mark") == "not reloaded"


async def test_a_person_retries_cancels_and_pauses_also_without_javascript(
    page: Page, plain: Page, api: Api, guard: Guard
) -> None:
    job = await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    await page.goto(f"/jobs/{job['id']}/live")
    await page.get_by_role("link", name="Retry…").click()
    await expect(page.get_by_text("1 job will be changed")).to_be_visible()
    await confirm(page, "Retry the job")
    await expect(page.get_by_text("Retry the job: done.")).to_be_visible()
    await page.get_by_role("link", name="Cancel…").click()
    await confirm(page, "Cancel the job")
    await expect(page.locator("[data-sentence-here]")).to_have_text("Canceled while it waited for a worker.")

    await put(api, timezone="Asia/Kolkata", cron="30 9 1 1 *")
    await plain.goto("/jobs/schedules")
    await expect(plain.locator(".due time")).to_contain_text("01-01 04:00 UTC")
    await expect(plain.locator(".due .own")).to_contain_text("01-01 09:30 Asia/Kolkata")
    await plain.get_by_role("link", name="Pause nightly").click()
    await confirm(plain, "Pause")
    await expect(plain.locator("[data-schedule] .pill")).to_contain_text("paused")
    await plain.goto(f"/jobs/{job['id']}/live")
    await expect(plain.locator("[data-pill-here]")).to_contain_text("canceled")
