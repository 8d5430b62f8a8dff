"""Background jobs over HTTP: submitted, run, watched, canceled and tried again (contract section 6)."""

import asyncio
import gzip
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine

from queueing.jobs import files
from queueing.jobs.work import JobWork
from queueing.models import Job, JobFile, JobFileChunk, JobStatus
from queueing.work.drain import run_until_idle
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, make_key
from tests.queueing.kinds_app.jobs import CALLS


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    CALLS.clear()
    yield


async def submit(api: Api, kind: str = "test.echo", status: int = 202, **fields: Any) -> dict[str, Any]:
    body = {"kind": kind, "input": {"text": "hello"}, **fields}
    async with api.post("/jobs", json=body) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def get(api: Api, path: str, status: int = 200) -> dict[str, Any]:
    async with api.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def post(api: Api, path: str, status: int = 200) -> dict[str, Any]:
    async with api.post(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def run() -> list[bool]:
    """Run everything that is due."""
    work = JobWork()
    async with database.own_connection():
        try:
            return await run_until_idle(work)
        finally:
            await work.close()


async def make_due(id: str) -> None:
    await Job.async_objects.filter(uuid=UUID(id)).aupdate(run_at="2020-01-01T00:00:00Z")


async def test_a_job_is_accepted_runs_and_shows_its_result(api: Api) -> None:
    accepted = await submit(api)
    queued = await get(api, f"/jobs/{accepted['id']}")
    await get(api, f"/jobs/{accepted['id']}/result", 409)

    assert await run() == [True]

    done = await get(api, f"/jobs/{accepted['id']}")
    assert (accepted["status"], queued["status"], done["status"]) == ("queued", "queued", "succeeded")
    assert (queued["startedAt"], done["attempts"]) == (None, 1)
    assert [event["status"] for event in done["timeline"]] == ["queued", "running", "succeeded"]
    assert done["createdAt"] <= done["startedAt"] <= done["finishedAt"]
    assert await get(api, f"/jobs/{accepted['id']}/result") == {"text": "hello"}


async def test_the_same_idempotency_key_gives_the_same_job_and_other_content_is_refused(api: Api) -> None:
    async def send(text: str) -> tuple[int, dict[str, Any], str | None]:
        body = {"kind": "test.echo", "input": {"text": text}}
        async with api.post("/jobs", json=body, headers={"Idempotency-Key": "order-1"}) as response:
            return response.status, await response.json(), response.headers.get("Idempotent-Replayed")

    (first, job, replayed), (again, same, marked), (other, _, _) = [await send(text) for text in ("a", "a", "b")]

    assert (first, again, other) == (202, 202, 409)
    assert (same, replayed, marked) == (job, None, "true")


async def test_a_unique_key_returns_the_job_at_work_until_it_is_over(api: Api) -> None:
    first = await submit(api, uniqueKey="nightly")
    second = await submit(api, status=200, uniqueKey="nightly")
    other = await submit(api, kind="test.secret", uniqueKey="nightly")
    await run()
    third = await submit(api, uniqueKey="nightly")

    assert second["id"] == first["id"]
    assert len({first["id"], other["id"], third["id"]}) == 3


async def test_ten_thousand_jobs_with_one_unique_key_at_once_are_one_job(api: Api) -> None:
    items = [{"kind": "test.echo", "uniqueKey": "only"}] * 1000

    async def batch() -> list[dict[str, Any]]:
        async with api.post("/jobs/batch", json={"items": items}) as response:
            return (await response.json())["results"]

    results = [one for found in await asyncio.gather(*(batch() for _ in range(10))) for one in found]

    assert len({one["id"] for one in results}) == 1
    assert sorted({one["status"] for one in results}) == ["at_work", "queued"]
    assert [one["status"] for one in results].count("queued") == 1


async def test_a_batch_has_one_verdict_per_item(api: Api) -> None:
    items = [
        {"kind": "test.echo"},
        {"kind": "no.such"},
        {"kind": "test.echo", "input": {"steps": "many"}},
        {"kind": "test.echo", "priority": 10},
        {"kind": "test.echo", "input": {"text": "x" * 70_000}},
    ]
    async with api.post("/jobs/batch", json={"items": items}) as response:
        results = (await response.json())["results"]

    assert [one["status"] for one in results] == ["queued", "invalid", "invalid", "invalid", "invalid"]
    assert [one["error"]["errors"][0]["field"] for one in results[1:4]] == ["kind", "input.steps", "priority"]


async def test_a_batch_has_at_most_a_thousand_jobs(api: Api) -> None:
    async with api.post("/jobs/batch", json={"items": [{"kind": "test.echo"}] * 1001}) as response:
        refusal = await response.json()

    assert response.status == 422
    assert [error["field"] for error in refusal["errors"]] == ["items"]
    assert await Job.async_objects.acount() == 0


async def test_jobs_that_are_submitted_at_once_share_commits(api: Api) -> None:
    await asyncio.gather(*(submit(api) for _ in range(60)))

    [(jobs, commits)] = await database.fetch("SELECT count(*), count(DISTINCT xmin::text) FROM queueing_job")
    assert jobs == 60
    assert commits <= 30


async def test_only_what_is_wrong_with_a_batch_is_named(api: Api) -> None:
    async with api.post("/jobs/batch", json={"items": [{"kind": "test.echo"}], "colour": "red"}) as response:
        refusal = await response.json()

    assert [error["field"] for error in refusal["errors"]] == ["colour"]


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"kind": "no.such"}, 422, "kind"),
        ({"kind": "test.internal"}, 422, "kind"),
        ({"input": {"number": 1}}, 422, "input.number"),
        ({"input": {"text": 1}}, 422, "input.text"),
        ({"input": "text"}, 422, "input"),
        ({"runAt": "9999-12-31T00:00:00Z"}, 422, "runAt"),
        ({"runAt": "tomorrow"}, 422, "runAt"),
        ({"maxAttempts": 0}, 422, "maxAttempts"),
        ({"timeout": 86_401}, 422, "timeout"),
        ({"timeout": 0.0004}, 422, "timeout"),  # would be stored as 0
        ({"resultTtl": -1}, 422, "resultTtl"),
        ({"uniqueKey": ""}, 422, "uniqueKey"),
        ({"uniqueKey": "undefined"}, 422, "uniqueKey"),
        ({"callbackUrl": "ftp://example.com"}, 422, "callbackUrl"),
        ({"priority": -1}, 422, "priority"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
async def test_a_field_that_is_not_acceptable_is_named(
    api: Api, fields: dict[str, Any], status: int, field: str
) -> None:
    refusal = await submit(api, status=status, **fields)

    assert [error["field"] for error in refusal["errors"]] == [field]


async def test_an_input_may_have_numbers_of_any_size(api: Api) -> None:
    job = await submit(api, kind="http", input={"url": "http://127.0.0.1:9999/", "body": 2**80})

    assert (await get(api, f"/jobs/{job['id']}"))["input"]["body"] == 2**80


@pytest.mark.parametrize("size", [65_600, 2**20])
async def test_an_input_above_64_kib_is_too_large(api: Api, size: int) -> None:
    await submit(api, status=413, input={"text": "x" * size})


async def test_a_run_time_in_the_past_means_now(api: Api) -> None:
    past = await submit(api, runAt="2020-01-01T00:00:00Z")
    before_time = await submit(api, runAt="0001-01-01T00:00:00+14:00")
    later = await submit(api, runAt="2030-01-01T00:00:00Z")

    await run()

    for job in (past, before_time):
        assert (await get(api, f"/jobs/{job['id']}"))["status"] == "succeeded"
    assert (await get(api, f"/jobs/{later['id']}"))["status"] == "queued"


async def test_an_error_is_tried_again_until_no_attempt_is_left(api: Api) -> None:
    job = await submit(api, kind="test.fail")
    for _ in range(3):
        await run()
        await make_due(job["id"])

    failed = await get(api, f"/jobs/{job['id']}")
    assert (failed["status"], failed["attempts"], failed["error"]["code"]) == ("failed", 3, "error")
    assert failed["error"]["detail"] == "ZeroDivisionError: password=[redacted]"
    assert [event["status"] for event in failed["timeline"]] == [
        "queued",
        *["running", "queued"] * 2,
        "running",
        "failed",
    ]


async def test_a_job_that_cannot_succeed_fails_at_once_and_is_tried_again_on_request(api: Api) -> None:
    job = await submit(api, kind="test.fail", input={"text": "for good"})
    await run()
    failed = await get(api, f"/jobs/{job['id']}")

    queued = await post(api, f"/jobs/{job['id']}/retry", 202)
    await run()

    assert (failed["status"], failed["error"]) == ("failed", {"code": "stolen", "detail": "the card is stolen"})
    assert (queued["status"], "error" in queued) == ("queued", False)
    assert (await get(api, f"/jobs/{job['id']}"))["attempts"] == 2


async def test_only_a_failed_job_is_tried_again(api: Api) -> None:
    job = await submit(api)
    await post(api, f"/jobs/{job['id']}/retry", 409)
    await run()
    await post(api, f"/jobs/{job['id']}/retry", 409)


async def test_a_queued_job_is_canceled_at_once_and_twice_is_no_error(api: Api) -> None:
    job = await submit(api)

    first = await post(api, f"/jobs/{job['id']}/cancel")
    second = await post(api, f"/jobs/{job['id']}/cancel")

    assert (first["status"], second["status"]) == ("canceled", "canceled")
    assert await run() == []


async def test_a_job_that_is_over_cannot_be_canceled(api: Api) -> None:
    job = await submit(api)
    await run()

    await post(api, f"/jobs/{job['id']}/cancel", 409)


async def test_ids_of_other_tenants_are_unknown(api: Api, stranger: Api) -> None:
    job = await submit(api)

    for path in (
        f"/jobs/{job['id']}",
        f"/jobs/{job['id']}/result",
        f"/jobs/{job['id']}/events",
        f"/jobs/{uuid4()}",
        "/jobs/7",
    ):
        await get(stranger, path, 404)
    for path in ("cancel", "retry"):
        await post(stranger, f"/jobs/{job['id']}/{path}", 404)
    assert (await get(stranger, "/jobs"))["items"] == []


async def test_a_kind_may_need_another_scope(api: Api, server: str, tenant: Tenant) -> None:
    await submit(api, kind="test.admin", status=403)

    async with Api(server, await make_key(tenant, "admin")) as operator:
        await submit(operator, kind="test.admin")


async def test_secret_fields_reach_the_function_and_nobody_else(api: Api) -> None:
    job = await submit(api, kind="test.secret", input={"headers": {"X-Key": "hush-hush"}})
    await run()

    shown = await get(api, f"/jobs/{job['id']}")
    stored = await database.fetch("SELECT j::text FROM queueing_job j", [])
    assert shown["input"]["headers"] == {"X-Key": "•••"}
    assert "hush-hush" not in stored[0][0]
    assert await get(api, f"/jobs/{job['id']}/result") == {"X-Key": "hush-hush"}


async def test_lists_have_filters_pages_and_a_total(api: Api) -> None:
    ids = [(await submit(api))["id"] for _ in range(3)]
    other = await submit(api, kind="test.secret")
    await post(api, f"/jobs/{ids[0]}/cancel")

    first = await get(api, "/jobs?kind=test.echo&limit=2")
    second = await get(api, f"/jobs?kind=test.echo&limit=2&cursor={first['next']}")
    canceled = await get(api, "/jobs?status=canceled")

    assert [job["id"] for job in first["items"] + second["items"]] == ids[::-1]
    assert (first["total"], second["next"], canceled["total"]) == (3, None, 1)
    assert other["id"] in [job["id"] for job in (await get(api, "/jobs?from=2020-01-01"))["items"]]
    await get(api, "/jobs?colour=red", 422)
    await get(api, "/jobs?cursor=x", 422)


async def test_a_long_poll_waits_for_the_next_event(api: Api) -> None:
    job = await submit(api)
    first = await get(api, f"/jobs/{job['id']}/events?after=0&wait=0")
    waiting = asyncio.create_task(get(api, f"/jobs/{job['id']}/events?after=1&wait=20"))
    await run()

    assert [event["job"]["status"] for event in first["events"]] == ["queued"]
    assert (await waiting)["events"][0]["job"]["status"] == "running"


async def test_a_websocket_gets_every_event_once_and_resumes_by_number(api: Api) -> None:
    job = await submit(api)
    await run()
    async with api.ws_connect("/ws/jobs") as socket:
        await socket.send_json({"type": "resume", "after": 0})
        seen = [await socket.receive_json() for _ in range(3)]

    assert [(one["type"], one["sequence"], one["job"]["status"]) for one in seen] == [
        ("job", 1, "queued"),
        ("job", 2, "running"),
        ("job", 3, "succeeded"),
    ]
    assert {one["job"]["id"] for one in seen} == {job["id"]}


async def test_a_kind_with_concurrency_one_runs_one_at_a_time_whoever_claims(api: Api) -> None:
    for n in range(3):
        await submit(api, kind="test.one", input={"text": str(n)})
    first, second = JobWork(), JobWork()

    async with database.own_connection():
        claimed = await first.claim(1, 10)
        none = await second.claim(2, 10)
        await first.run(claimed)
        then = await second.claim(2, 10)
        await second.run(then)

    assert (len(claimed), none, len(then)) == (1, [], 1)


async def test_a_tenant_with_many_kinds_leaves_places_to_others(api: Api, stranger: Api) -> None:
    for kind in ("test.echo", "test.wait", "test.secret"):
        for _ in range(3):
            await submit(api, kind=kind)
    work = JobWork()
    work.share_limit, work.tenant_limit = 2, 3
    async with database.own_connection():
        first = await work.claim(1, 20)
        await submit(stranger)
        work.shares.forget()
        second = await work.claim(1, 20)
        await work.run(first[:1])
        work.shares.forget()
        third = await work.claim(1, 20)
        for claim in [*first[1:], *second, *third]:
            await work.run([claim])

    mine = {claim.tenant_id for claim in first}
    assert (len(first), len(second), len(third)) == (3, 1, 1)
    assert {claim.tenant_id for claim in second}.isdisjoint(mine) and {claim.tenant_id for claim in third} == mine


async def test_an_outcome_after_the_lease_has_ended_is_refused(api: Api) -> None:
    job = await submit(api)
    first, second = JobWork(), JobWork()
    async with database.own_connection():
        [claim] = await first.claim(1, 10)
        await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(leased_until="2020-01-01T00:00:00Z")
        refused = await first.run([claim])
        [again] = await second.claim(2, 10)
        finished = await second.run([again])

    assert (refused, finished, again.attempt) == ([False], [True], 2)
    done = await get(api, f"/jobs/{job['id']}")
    assert [event.get("code") for event in done["timeline"]] == [None, None, "worker_lost", None]


async def test_kinds_are_listed_with_the_schema_of_their_input(api: Api) -> None:
    kinds = {kind["name"]: kind for kind in (await get(api, "/job-kinds"))["items"]}

    assert kinds["test.fail"]["maxAttempts"] == 3
    assert "test.internal" not in kinds
    assert "succeeded" in str(kinds["payments.export"]["input"])
    assert JobStatus.QUEUED == "queued"


async def test_a_file_of_a_job_is_sent_to_whoever_has_its_link(api: Api, server: str) -> None:
    job = await submit(api, kind="test.file", input={"steps": 8})
    await run()
    shown = (await get(api, f"/jobs/{job['id']}"))["file"]
    path = shown["url"][shown["url"].index("/jobs/") :]

    async with Api(server) as anybody:
        async with anybody.get(path) as response:
            content = await response.read()
            assert (response.status, response.headers["Content-Type"]) == (200, "application/gzip")
        for wrong, why in ((path[:-1], "is not complete"), (path.partition("?")[0], "lacks its token")):
            async with anybody.get(wrong) as response:
                assert (response.status, why in (await response.json())["detail"]) == (403, True)

    assert len(gzip.decompress(content)) == 800_000
    assert (shown["name"], shown["size"]) == ("numbers.txt.gz", len(content))


async def test_an_expired_file_is_gone_and_its_rows_are_removed(api: Api) -> None:
    job = await submit(api, kind="test.file", input={"steps": 8})
    await run()
    await JobFile.async_objects.all().aupdate(expires_at="2020-01-01T00:00:00Z")

    await files.remove_expired()

    assert "file" not in await get(api, f"/jobs/{job['id']}")
    assert (await JobFile.async_objects.all().acount(), await JobFileChunk.async_objects.all().acount()) == (0, 0)


async def test_a_result_above_64_kib_fails_the_job_at_once(api: Api) -> None:
    job = await submit(api, kind="test.large")
    await run()

    failed = await get(api, f"/jobs/{job['id']}")
    assert (failed["status"], failed["attempts"], failed["error"]["code"]) == ("failed", 1, "result_too_large")


async def test_progress_may_go_back_and_is_shown_as_given(api: Api) -> None:
    job = await submit(api, kind="test.back")
    await run()

    assert (await get(api, f"/jobs/{job['id']}"))["progress"] == {"done": 2, "total": None, "message": "begun anew"}


@pytest.mark.parametrize("seconds", [-60, 60])
async def test_a_worker_whose_clock_is_wrong_runs_what_is_due_once(api: Api, seconds: int) -> None:
    due, later = await submit(api), await submit(api, runAt=(datetime.now(UTC) + timedelta(seconds=30)).isoformat())

    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True):
        finished = await run()

    assert finished == [True]
    assert (await get(api, f"/jobs/{due['id']}"))["attempts"] == 1
    assert (await get(api, f"/jobs/{later['id']}"))["status"] == "queued"


async def test_an_attempt_that_an_outage_of_the_database_ended_does_not_count(api: Api) -> None:
    job = await submit(api, kind="test.away", maxAttempts=1)
    await run()
    queued = await get(api, f"/jobs/{job['id']}")
    await make_due(job["id"])
    await run()

    assert (queued["status"], queued["attempts"]) == ("queued", 0)
    assert (await get(api, f"/jobs/{job['id']}"))["status"] == "succeeded"


async def test_a_websocket_lists_jobs_and_narrows_itself_to_some(api: Api) -> None:
    first, second = await submit(api), await submit(api, kind="test.secret")
    async with api.ws_connect("/ws/jobs") as socket:
        await socket.send_json({"type": "list", "id": 7, "filter": {"kind": "test.secret"}, "limit": 10})
        listed = await until_type(socket, "list")
        await socket.send_json({"type": "subscribe", "ids": [second["id"]]})
        await until_type(socket, "subscribed")
        await post(api, f"/jobs/{first['id']}/cancel")
        await post(api, f"/jobs/{second['id']}/cancel")
        seen = await until_type(socket, "job")

    assert (listed["id"], listed["total"], [job["id"] for job in listed["items"]]) == (7, 1, [second["id"]])
    assert (seen["job"]["id"], seen["job"]["status"]) == (second["id"], "canceled")


async def until_type(socket: Any, type: str) -> dict[str, Any]:
    """The next message of this type."""
    while (message := await socket.receive_json())["type"] != type:
        pass
    return message


@pytest.mark.parametrize("message", [{"type": "list"}, {"type": "list", "id": 1, "limit": 0}, {"type": "subscribe"}])
async def test_a_websocket_closes_after_a_message_that_is_not_in_the_contract(
    api: Api, message: dict[str, Any]
) -> None:
    async with api.ws_connect("/ws/jobs") as socket:
        await socket.send_json(message)
        await until_type(socket, "error")
        await socket.receive()

        assert socket.close_code == 4400
