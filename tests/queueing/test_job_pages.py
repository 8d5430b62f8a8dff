"""The console's pages of jobs, schedules and workers over HTTP: who sees what, what the pages say, who may act."""

# ruff: noqa: F811 - `visiting` is a fixture of another file

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from django.conf import settings
from django.utils import timezone

from queueing.jobs import figures
from queueing.jobs.figures import COUNTED
from queueing.jobs.work import JobWork
from queueing.models import JOB_CLOSED, JOB_LOOKS, Job, JobResult, JobSchedule, JobStatus, Worker
from queueing.templatetags.jobs import bar, percent, progress_text, sentence
from registry.data import database
from registry.models import AuditEntry, Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_person, make_tenant
from tests.payments.test_sockets import NO_RIGHT, close_code, read
from tests.queueing.kinds_app.jobs import CALLS
from tests.queueing.test_console import As, session_of, visiting  # noqa: F401 - a fixture
from tests.queueing.test_job_schedules import put
from tests.queueing.test_jobs import run, submit

WHY = "the shop asked for it"


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    CALLS.clear()
    yield


@pytest.fixture
async def operator(tenant: Tenant) -> Any:
    return await in_thread(make_person, tenant=tenant)


@pytest.fixture
async def viewer(tenant: Tenant) -> Any:
    return await in_thread(make_person, tenant=tenant, role="viewer")


@pytest.fixture
async def superuser() -> Any:
    return await in_thread(make_person)


async def stored(id: str) -> Job:
    return await Job.async_objects.aget(uuid=UUID(id))


async def entries() -> list[tuple[str, str]]:
    def latest() -> list[tuple[str, str]]:
        return list(AuditEntry.objects.exclude(reason="").order_by("id").values_list("action", "reason"))

    return await in_thread(latest)


# -- Who sees what (T4) --------------------------------------------------------------------------------------


async def test_a_member_sees_the_pages_and_a_stranger_none_of_them(
    visiting: As, api: Api, tenant: Tenant, viewer: Any
) -> None:
    job = await submit(api, input={"text": "only ours"})
    await put(api)
    pages = ["/jobs/list", f"/jobs/{job['id']}/live", "/jobs/schedules", f"/jobs/{job['id']}/live/events?after=0"]
    other = await in_thread(make_tenant)

    async with visiting(viewer) as visit:
        seen = [await visit.get(page) for page in pages]
    async with visiting(await in_thread(make_person, tenant=other, role="owner")) as visit:
        foreign = [await visit.get(page, tenant=tenant.slug) for page in pages]
        own = [await visit.get(page) for page in pages]
        acted = [
            await visit.post(f"{page}?tenant={slug}", do=do, reason=WHY, seen=1)
            for slug in (tenant.slug, other.slug)
            for page, do in ((pages[1], "cancel"), ("/jobs/schedules/nightly", "pause"))
        ]
    async with visiting() as visit:
        guests = [(await visit.get(page))[0] for page in pages]

    assert [status for status, _ in seen] == [200] * 4
    assert job["id"] in seen[0][1] and "only ours" in seen[1][1] and "nightly" in seen[2][1]
    assert [status for status, _ in foreign] == [404] * 4
    assert [status for status, _ in own] == [200, 404, 200, 404]
    assert not any(job["id"] in text or "nightly</span>" in text for _, text in own)
    assert [status for status, _ in acted] == [404] * 4
    assert guests == [302, 302, 302, 404]
    assert (await stored(job["id"])).status == "queued"


async def test_the_workers_page_is_for_superusers_only(
    visiting: As, tenant: Tenant, operator: Any, superuser: Any
) -> None:
    async with visiting(operator) as visit:
        refused = await visit.get("/workers")
        acted = await visit.post("/workers", do="stop", worker="1", reason=WHY, seen=1)
        jobs = await visit.get("/jobs/list")
    async with visiting(superuser) as visit:
        seen = await visit.get("/workers", tenant=tenant.slug)
    async with visiting() as visit:
        guest = await visit.get("/workers")

    assert (refused[0], acted[0], seen[0], guest[0]) == (404, 404, 200, 302)
    assert "/workers" not in jobs[1]
    assert "No worker is alive" in seen[1]


async def test_a_viewer_reads_and_gets_neither_actions_nor_tracebacks(
    visiting: As, api: Api, viewer: Any, operator: Any
) -> None:
    job = await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    await put(api)
    page = f"/jobs/{job['id']}/live"

    async with visiting(viewer) as visit:
        seen, schedules = await visit.get(page), await visit.get("/jobs/schedules")
        acted = await visit.post(page, do="retry", reason=WHY, seen=1)
        paused = await visit.post("/jobs/schedules/nightly", do="pause", reason=WHY, seen=1)
    async with visiting(operator) as visit:
        full = await visit.get(page)

    assert "ZeroDivisionError" in seen[1] and "Traceback" not in seen[1] and "do=retry" not in seen[1]
    assert "do=pause" not in schedules[1]
    assert (acted[0], paused[0]) == (404, 404)
    assert "Traceback" in full[1] and "do=retry" in full[1]
    assert "hunter2" not in full[1]


@pytest.mark.parametrize("who", ["member", "superuser", "stranger", "stranger at home"])
async def test_the_socket_of_a_job_is_for_those_who_see_its_page(
    server: str, api: Api, tenant: Tenant, who: str
) -> None:
    job = await submit(api)
    home = tenant if who == "member" else None if who == "superuser" else await in_thread(make_tenant)
    person = await in_thread(make_person, tenant=home)
    slug = home.slug if who == "stranger at home" else tenant.slug
    cookies = {settings.SESSION_COOKIE_NAME: await in_thread(session_of, person)}

    async with aiohttp.ClientSession(server, cookies=cookies, headers={"Origin": server}) as browser:
        async with browser.ws_connect(f"/ws/jobs?tenant={slug}&job={job['id']}") as ws:
            if "stranger" in who:
                assert await close_code(ws) == NO_RIGHT
                return
            first = await read(ws)
            await run()
            then = [await read(ws, 30), await read(ws, 30)]

    assert (first["sequence"], first["job"]["status"]) == (1, "queued")
    assert [(m["sequence"], m["job"]["status"]) for m in then] == [(2, "running"), (3, "succeeded")]


async def test_the_socket_of_one_job_shows_no_other_and_resumes_by_its_sequence(api: Api) -> None:
    job, other = await submit(api), await submit(api)
    await run()

    async with api.ws_connect(f"/ws/jobs?job={job['id']}") as ws:
        await ws.send_json({"type": "resume", "after": 0})
        messages = [await read(ws) for _ in range(4)]
    async with api.ws_connect("/ws/jobs?job=nonsense") as ws:
        unknown = await close_code(ws)

    assert other["id"] not in str(messages)
    assert [m["sequence"] for m in messages] == [3, 1, 2, 3]
    assert unknown == NO_RIGHT


async def test_the_pages_long_poll_answers_with_what_happened(visiting: As, api: Api, viewer: Any) -> None:
    job = await submit(api)
    await run()

    async with visiting(viewer) as visit:
        found = json.loads((await visit.get(f"/jobs/{job['id']}/live/events", after="1", wait="20"))[1])
        none = json.loads((await visit.get(f"/jobs/{job['id']}/live/events", after="3", wait="0"))[1])
        wrong = await visit.get(f"/jobs/{job['id']}/live/events", after="soon")

    assert [event["job"]["status"] for event in found["events"]] == ["running", "succeeded"]
    assert (found["next"], none) == (3, {"events": [], "next": 3})
    assert wrong[0] == 404


# -- The list --------------------------------------------------------------------------------------------------


async def test_an_empty_list_shows_the_command_that_submits_a_job(visiting: As, viewer: Any) -> None:
    async with visiting(viewer) as visit:
        jobs, schedules = await visit.get("/jobs/list"), await visit.get("/jobs/schedules")

    assert "No jobs yet" in jobs[1] and "/jobs -H" in jobs[1] and "Bearer YOUR_KEY" in jobs[1]
    assert "No schedules yet" in schedules[1] and "curl -X PUT" in schedules[1]


async def test_filters_are_in_the_address_and_a_wrong_one_is_named(visiting: As, api: Api, viewer: Any) -> None:
    done, failed = await submit(api), await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    later = await submit(api, runAt="2031-01-01T00:00:00Z")

    async def ids(visit: Any, **query: str) -> set[str]:
        text = (await visit.get("/jobs/list", **query))[1]
        return {one["id"] for one in (done, failed, later) if f'data-id="{one["id"]}"' in text}

    async with visiting(viewer) as visit:
        assert await ids(visit, status="failed") == {failed["id"]}
        assert await ids(visit, kind="test.echo", status="succeeded") == {done["id"]}
        assert await ids(visit, to="2001-01-01T00:00") == set()
        assert await ids(visit, **{"from": "2001-01-01T00:00"}) == {done["id"], failed["id"], later["id"]}
        wrong = [
            (await visit.get("/jobs/list", **query))[1]
            for query in ({"status": "lost"}, {"from": "yesterday"}, {"kind": "a\0b"})
        ]
        nothing = (await visit.get("/jobs/list", kind="gone.kind"))[1]
        cursor = await visit.get("/jobs/list", cursor="nonsense")

    assert ["“lost” is not a state." in wrong[0], "“yesterday” is not a date" in wrong[1]] == [True, True]
    assert "There is no such kind." in wrong[2]
    assert "No job matches all filters" in nothing and "<option selected>gone.kind</option>" in nothing
    assert cursor[0] == 404


async def test_older_jobs_are_on_the_next_page(visiting: As, api: Api, viewer: Any) -> None:
    async with api.post("/jobs/batch", json={"items": [{"kind": "test.echo"}] * 30}) as response:
        assert response.status == 200

    async with visiting(viewer) as visit:
        first = (await visit.get("/jobs/list"))[1]
        older = first.partition("data-older href=")[2].split('"')[1].replace("&amp;", "&")
        second = (await visit.get(older))[1]

    assert (first.count('data-id="'), second.count('data-id="')) == (26, 6)  # and the template of new rows
    assert 'data-first="no"' in second


async def test_jobs_are_counted_by_state_and_by_minute(api: Api, tenant: Tenant) -> None:
    await submit(api)
    await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    canceled, _ = await submit(api), await submit(api)
    async with api.post(f"/jobs/{canceled['id']}/cancel") as response:
        assert response.status == 200

    async with database.own_connection():
        found = await figures.snapshots.load(tenant.pk)

    assert found.counts == {"queued": 1, "running": 0, "succeeded": 1, "failed": 1, "canceled": 1}
    assert (found.capped, found.oldest > 0) == (frozenset(), True)
    sums = {name: sum(found.series[name]) for name in ("submitted", "succeeded", "failed", "canceled")}
    assert sums == {"submitted": 4, "succeeded": 1, "failed": 1, "canceled": 1}
    assert len(found.series["at"]) == 60
    assert found.series["now"] == {"queued": 1, "running": 0}


async def test_counts_and_minutes_that_are_not_all_read_say_so(
    api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api.post("/jobs/batch", json={"items": [{"kind": "test.echo"}] * 5}) as response:
        assert response.status == 200
    await run()
    monkeypatch.setattr(figures, "COUNTED", 3)
    monkeypatch.setattr(figures, "EVENTS_READ", 4)

    async with database.own_connection():
        found = await figures.snapshots.load(tenant.pk)

    assert COUNTED == 10_000
    assert (found.counts["succeeded"], found.capped) == (3, {"succeeded", "canceled"})
    assert found.series["succeeded"] == [None] * 60


# -- One job ---------------------------------------------------------------------------------------------------


async def test_a_page_shows_input_without_secrets_result_and_timeline(visiting: As, api: Api, viewer: Any) -> None:
    job = await submit(api, kind="test.secret", input={"text": "hi", "headers": {"Authorization": "Bearer tok-123456"}})
    page = f"/jobs/{job['id']}/live"

    async with visiting(viewer) as visit:
        queued = (await visit.get(page))[1]
        await Job.async_objects.all().aupdate(kind="test.echo", sealed=None)
        await run()
        done = (await visit.get(page))[1]
        await JobResult.async_objects.all().aupdate(expires_at=timezone.now() - timedelta(seconds=1))
        expired = (await visit.get(page))[1]

    assert "•••" in queued and "tok-123456" not in queued
    assert "Waiting for a worker." in queued and "Submitted" in queued
    assert "Done in" in done and "Attempt 1 started" in done and "kept until" in done
    assert "It has expired." in expired


async def test_a_page_offers_the_jobs_file(visiting: As, api: Api, viewer: Any) -> None:
    job = await submit(api, kind="test.file", input={"steps": 1})
    await run()

    async with visiting(viewer) as visit:
        text = (await visit.get(f"/jobs/{job['id']}/live"))[1]

    assert "numbers.txt.gz" in text
    assert f"/jobs/{job['id']}/file?token=" in text


async def test_a_failed_job_is_retried_and_a_queued_one_canceled_with_a_reason(
    visiting: As, api: Api, operator: Any, tenant: Tenant
) -> None:
    failed = await submit(api, kind="test.fail", maxAttempts=1)
    await run()
    queued = await submit(api)
    pages = [f"/jobs/{one['id']}/live?tenant={tenant.slug}" for one in (failed, queued)]

    async with api.ws_connect("/ws/jobs") as ws, visiting(operator) as visit:
        await ws.send_json({"type": "ping"})
        assert await read(ws) == {"type": "pong"}
        asking = await visit.get(f"{pages[0]}&do=retry")
        silent = await visit.post(pages[0], do="retry", seen=1, reason=" ")
        retried = await visit.post(pages[0], do="retry", seen=1, reason=WHY)
        canceled = await visit.post(pages[1], do="cancel", seen=1, reason=WHY)
        again = await visit.get(f"{pages[1]}&do=cancel")
        unknown = await visit.get(f"{pages[1]}&do=explode")
        told = [await read(ws), await read(ws)]

    assert "queued again with all of its attempts" in asking[1]
    assert (silent[0], retried[0], canceled[0], again[0], unknown[0]) == (422, 302, 302, 302, 404)
    assert [(await stored(one["id"])).status for one in (failed, queued)] == ["queued", "canceled"]
    assert await entries() == [("job.retry", WHY), ("job.cancel", WHY)]
    assert [(m["job"]["id"], m["job"]["status"]) for m in told] == [
        (failed["id"], "queued"),
        (queued["id"], "canceled"),
    ]


async def test_a_running_job_is_asked_to_stop(visiting: As, api: Api, operator: Any, tenant: Tenant) -> None:
    job = await submit(api)
    page = f"/jobs/{job['id']}/live"
    async with database.own_connection():
        await JobWork().claim(1, 10)

    async with visiting(operator) as visit:
        before = (await visit.get(page))[1]
        await visit.post(f"{page}?tenant={tenant.slug}", do="cancel", seen=1, reason=WHY)
        after = (await visit.get(page))[1]

    assert "A worker is running attempt 1" in before and "do=cancel" in before
    assert "Cancellation is requested" in after and "do=cancel" not in after
    assert (await stored(job["id"])).status == "running"


async def test_a_retry_says_that_another_job_with_its_key_is_at_work(
    visiting: As, api: Api, operator: Any, tenant: Tenant
) -> None:
    failed = await submit(api, kind="test.fail", maxAttempts=1, uniqueKey="only")
    await run()
    await submit(api, kind="test.fail", uniqueKey="only")
    page = f"/jobs/{failed['id']}/live?tenant={tenant.slug}"

    async with visiting(operator) as visit:
        await visit.post(page, do="retry", seen=1, reason=WHY)
        told = (await visit.get(page))[1]

    assert "another job with the same unique key is at work" in told
    assert await entries() == []


# -- Schedules ---------------------------------------------------------------------------------------------------


async def test_schedules_show_their_next_due_time_in_their_own_zone(visiting: As, api: Api, viewer: Any) -> None:
    await put(api, cron="30 9 1 1 *", timezone="Asia/Kolkata")

    async with visiting(viewer) as visit:
        text = (await visit.get("/jobs/schedules"))[1]

    assert "-01-01 09:30" in text and "Asia/Kolkata" in text
    assert "01-01 04:00 UTC" in text


async def test_a_schedule_is_run_paused_resumed_and_deleted_with_a_reason(
    visiting: As, api: Api, operator: Any, tenant: Tenant
) -> None:
    await put(api)
    page = f"/jobs/schedules/nightly?tenant={tenant.slug}"
    states = []

    async with visiting(operator) as visit:
        for do in ("run", "pause", "resume"):
            await visit.post(page, do=do, seen=1, reason=WHY)
            states.append((await JobSchedule.async_objects.aget(name="nightly")).paused)
        listed = (await visit.get("/jobs/schedules"))[1]
        again = await visit.get(f"{page}&do=resume")
        odd = [(await visit.get(address))[0] for address in (page, f"{page}&do=explode", "/jobs/schedules/x?do=run")]
        deleted = await visit.post(page, do="delete", seen=1, reason=WHY)

    assert states == [False, True, False]
    assert "Last job of nightly, queued" in listed
    assert (again[0], odd, deleted[0]) == (302, [404] * 3, 302)
    assert not await JobSchedule.async_objects.all().aexists()
    assert await Job.async_objects.all().acount() == 1
    assert await entries() == [(f"schedule.{do}", WHY) for do in ("run", "pause", "resume", "delete")]


async def test_many_schedules_are_on_several_pages(visiting: As, api: Api, tenant: Tenant, viewer: Any) -> None:
    await put(api, "a000")
    [first] = [one async for one in JobSchedule.async_objects.all()]

    def copies() -> None:
        for n in range(1, 52):
            first.pk, first.name = None, f"a{n:03}"
            first.save(force_insert=True)

    await in_thread(copies)
    async with visiting(viewer) as visit:
        page = (await visit.get("/jobs/schedules"))[1]
        rest = (await visit.get("/jobs/schedules", after="a049"))[1]

    assert page.count('data-schedule="') == 50 and "after=a049" in page
    assert rest.count('data-schedule="') == 2


# -- Workers -----------------------------------------------------------------------------------------------------


async def make_worker(**fields: Any) -> Worker:
    given = {"queue": "jobs", "hostname": "host-a", "pid": 4711, "capacity": 10, **fields}
    return await in_thread(lambda: Worker.objects.create(**given))


async def test_workers_are_shown_by_pool_with_what_they_do_now(
    visiting: As, api: Api, superuser: Any, tenant: Tenant
) -> None:
    for _ in range(7):
        await submit(api)
    busy = await make_worker(in_flight=7)
    await make_worker(queue="payments", in_flight=3)
    await make_worker(pool="heavy", takes=["jobs/payments.export"], pool_size="0-3")
    await make_worker(queue="webhooks", heartbeat_at=timezone.now() - timedelta(minutes=2))
    async with database.own_connection():
        held = await JobWork().claim(busy.pk, 100)

    async with visiting(superuser) as visit:
        text = (await visit.get("/workers", tenant=tenant.slug))[1]

    shown = [str(claim.uuid) for claim in held if f"/jobs/{claim.uuid}/live?tenant={tenant.slug}" in text]
    assert (len(held), len(shown)) == (7, 5)
    assert "and 2 more" in text and "3 in flight" in text and "idle" in text
    assert "Pool heavy" in text and "take only jobs/payments.export; from 0 to 3 of them run" in text
    assert "7 of 10" in text and "silent" in text and "2 min ago" in text


async def test_a_worker_is_stopped_with_a_reason(visiting: As, superuser: Any, tenant: Tenant) -> None:
    worker = await make_worker()
    page = f"/workers?tenant={tenant.slug}"

    async with visiting(superuser) as visit:
        asking = await visit.get(f"{page}&do=stop&worker={worker.pk}")
        stopped = await visit.post(page, do="stop", worker=worker.pk, seen=1, reason=WHY)
        told = (await visit.get(page))[1]
        odd = [
            (await visit.get(f"{page}&do={do}&worker={number}"))[0]
            for do, number in (("stop", "0"), ("stop", "x"), ("explode", worker.pk))
        ]

    assert "claim nothing more" in asking[1]
    assert (stopped[0], odd) == (302, [404] * 3)
    assert (await Worker.async_objects.aget(pk=worker.pk)).stop_requested
    assert "stopping" in told
    assert await entries() == [("worker.stop", WHY)]


# -- Words -------------------------------------------------------------------------------------------------------


def test_every_state_of_a_job_has_a_look_of_its_own() -> None:
    assert set(JOB_LOOKS) == set(JobStatus) >= set(JOB_CLOSED)
    assert len({look.shape for look in JOB_LOOKS.values()}) == len(JobStatus)
    assert all(look.sentence.endswith(".") for look in JOB_LOOKS.values())


NOW = "2026-01-01T12:00:00.000Z"
LATER = "2999-01-01T12:00:00.000Z"
FAULT = {"code": "timed_out", "detail": "did not end within 5 s"}


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({"status": "queued"}, "Waiting for a worker."),
        ({"status": "queued", "runAt": LATER}, "Waiting until 2999-01-01 12:00:00.000 UTC."),
        ({"status": "queued", "attempts": 1, "error": FAULT},
         "Attempt 1 failed, it is tried again. The reason: did not end within 5 s."),
        ({"status": "queued", "attempts": 1, "error": FAULT, "runAt": LATER},
         "Attempt 1 failed, the next one is due 2999-01-01 12:00:00.000 UTC. The reason: did not end within 5 s."),
        ({"status": "running", "attempts": 2}, "A worker is running attempt 2."),
        ({"status": "queued", "attempts": 6, "error": FAULT},
         "Attempt 6 failed, it is tried again. The reason: did not end within 5 s."),
        ({"status": "running", "attempts": 2, "cancelRequested": True},
         "Cancellation is requested: it stops at its next checkpoint."),
        ({"status": "succeeded", "attempts": 1}, "Done in 2.0 s, 5.0 s after it was submitted."),
        ({"status": "succeeded", "attempts": 3}, "Done in 2.0 s, 5.0 s after it was submitted, at attempt 3."),
        ({"status": "failed", "attempts": 1, "error": FAULT}, "Failed after 1 attempt. The reason: did not end within 5 s."),
        ({"status": "failed", "attempts": 2, "error": {"code": "timed_out", "detail": ""}},
         "Failed after 2 attempts. The reason: timed out."),
        ({"status": "canceled", "timeline": [{"status": "queued"}, {"status": "canceled"}]},
         "Canceled while it waited for a worker."),
        ({"status": "canceled", "attempts": 1, "timeline": [{"status": "running"}, {"status": "canceled"}]},
         "Canceled while it ran."),
    ],
)  # fmt: skip
def test_one_sentence_says_what_happened(job: dict[str, Any], text: str) -> None:
    times = {
        "createdAt": NOW,
        "runAt": NOW,
        "startedAt": "2026-01-01T12:00:03.000Z",
        "finishedAt": "2026-01-01T12:00:05.000Z",
    }

    assert sentence({"attempts": 0, "maxAttempts": 5, "cancelRequested": False, **times, **job}) == text


@pytest.mark.parametrize(
    ("status", "progress", "full"),
    [
        ("running", {"done": 5, "total": 10}, 50),
        ("running", {"done": 5, "total": None}, None),
        ("queued", None, 0),
        ("succeeded", {"done": 5, "total": 10}, 100),
        ("succeeded", {"done": 5, "total": None}, 100),
        ("failed", {"done": 5, "total": 10}, 50),
        ("failed", {"done": 5, "total": None}, 0),
    ],
)
def test_the_bar_of_a_job_that_has_succeeded_is_full_and_one_that_is_over_does_not_move(
    status: str, progress: dict[str, Any] | None, full: int | None
) -> None:
    over = NOW if status in JOB_CLOSED else None

    assert bar({"status": status, "finishedAt": over, "progress": progress}) == full


async def test_a_page_tells_attempts_that_count_from_those_that_do_not(visiting: As, api: Api, viewer: Any) -> None:
    job = await submit(api)
    async with visiting(viewer) as visit, database.own_connection():
        row = Job.async_objects.filter(uuid=UUID(job["id"]))
        texts = []
        for change in ({"attempt": 2}, {"attempt": 4, "tries_from": 3, "lost_attempts": 1}):
            await row.aupdate(**change)
            texts.append((await visit.get(f"/jobs/{job['id']}/live"))[1])

    assert "<dd>2 of at most 5</dd>" in texts[0] and "Lost with" not in texts[0]
    assert "<dd>4 in all, 1 of at most 5 counts</dd>" in texts[1] and "<dd>1 time, not counted</dd>" in texts[1]


@pytest.mark.parametrize(
    ("progress", "share", "text"),
    [
        ({"done": 3000, "total": 10_000, "message": "reading"}, 30, "3,000 of 10,000: reading"),
        ({"done": 7, "total": None, "message": ""}, None, "7"),
        ({"done": 7, "total": 0, "message": ""}, None, "7 of 0"),
        ({"done": 12, "total": 10, "message": ""}, 100, "12 of 10"),
        ({"done": -1, "total": 10, "message": ""}, 0, "-1 of 10"),
    ],
)
def test_progress_is_shown_as_given_and_drawn_within_its_bar(
    progress: dict[str, Any], share: int | None, text: str
) -> None:
    assert (percent(progress), progress_text(progress)) == (share, text)


async def test_an_unknown_job_is_not_found(visiting: As, viewer: Any) -> None:
    async with visiting(viewer) as visit:
        found = [await visit.get(f"/jobs/{uuid4()}/live"), await visit.get(f"/jobs/{uuid4()}/live/events")]

    assert [status for status, _ in found] == [404, 404]
