"""Jobs of kind `http`: signed requests to addresses of tenants (contract section 6)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from queueing.jobs import addresses
from queueing.jobs.addresses import CHECKS
from queueing.jobs.http_clients import CLIENTS
from queueing.models import Job
from queueing.outbound import job_secret
from registry.data import database
from registry.http.ssrf import Outside
from registry.models import Tenant
from tests.bed.receiver import Receiver
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_tenant
from tests.queueing.test_jobs import get, make_due, post, run, submit


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as found:
        yield found


@pytest.fixture(autouse=True)
async def _fresh_checks() -> AsyncIterator[None]:
    """What is known of an address in one test is not known in the next."""
    yield
    await CHECKS.close()
    await CLIENTS.close()


async def call(api: Api, url: str, *, status: int = 202, fields: dict[str, Any] | None = None, **given: Any) -> Any:
    """Submit a job of kind `http`."""
    return await submit(api, "http", status, input={"url": url, **given}, **(fields or {}))


async def called(api: Api, url: str, **given: Any) -> dict[str, Any]:
    """The job after one attempt."""
    job = await call(api, url, **given)
    await run()
    return await get(api, f"/jobs/{job['id']}")


async def secret_of(tenant: Tenant) -> str:
    async with database.own_connection():
        return (await job_secret.of(tenant.pk)).newest


# -- What is sent ------------------------------------------------------------------------------------------------


async def test_a_request_is_signed_and_its_answer_is_the_result(api: Api, tenant: Tenant, receiver: Receiver) -> None:
    receiver.answers(201, b'{"made": [1, 2.50]}', x_order="7")
    job = await call(api, receiver.url, body={"order": 7}, headers={"X-Shop": "north"})

    await run()

    [heard] = receiver.heard
    assert heard.verify(await secret_of(tenant)) == {"order": 7}
    assert (heard.method, heard.target, heard.id) == ("POST", "/hook", job["id"])
    assert (heard.headers["content-type"], heard.headers["x-shop"]) == ("application/json", "north")
    result = await get(api, f"/jobs/{job['id']}/result")
    assert (result["status"], result["body"], result["headers"]["x-order"]) == (201, {"made": [1, 2.5]}, "7")


async def test_every_attempt_has_the_same_id_and_body_and_its_own_signature(
    api: Api, tenant: Tenant, receiver: Receiver
) -> None:
    receiver.answers(503)
    job = await call(api, receiver.url, body=[1, "a"])
    for _ in range(2):
        await run()
        await make_due(job["id"])

    secret = await secret_of(tenant)
    assert [heard.verify(secret) for heard in receiver.heard] == [[1, "a"]] * 2
    assert receiver.ids == [job["id"]] * 2


async def test_another_tenants_secret_does_not_verify(api: Api, receiver: Receiver) -> None:
    other = await in_thread(make_tenant)
    await called(api, receiver.url, body={})

    with pytest.raises(WebhookVerificationError):
        receiver.heard[0].verify(await secret_of(other))


async def test_for_a_day_after_a_rotation_both_secrets_sign(api: Api, tenant: Tenant, receiver: Receiver) -> None:
    before = await secret_of(tenant)
    async with database.own_connection():
        after = await job_secret.rotate(tenant_id=tenant.pk)

    await called(api, receiver.url, body={"n": 1})

    assert before != after
    assert [receiver.heard[0].verify(secret) for secret in (before, after)] == [{"n": 1}] * 2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_methods_without_a_body(api: Api, tenant: Tenant, receiver: Receiver, method: str) -> None:
    job = await called(api, receiver.url, method=method)

    [heard] = receiver.heard
    assert (job["status"], heard.method, heard.body) == ("succeeded", method, b"")
    assert "content-type" not in heard.headers
    at = datetime.fromtimestamp(int(heard.headers["webhook-timestamp"]), UTC)
    assert heard.headers["webhook-signature"] == Webhook(await secret_of(tenant)).sign(heard.id, at, "")


async def test_the_answer_to_head_ends_with_its_head(api: Api, receiver: Receiver) -> None:
    receiver.answers_by(lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    job = await called(api, receiver.url, method="HEAD")

    result = await get(api, f"/jobs/{job['id']}/result")
    assert (result["headers"], result["body"]) == ({"content-length": "1000"}, "")


async def test_header_values_are_sealed_and_not_shown(api: Api, receiver: Receiver) -> None:
    job = await called(api, receiver.url, headers={"Authorization": "Bearer hush-hush-hush"})

    [[row]] = await database.fetch("SELECT j::text FROM queueing_job j", [])
    assert receiver.heard[0].headers["authorization"] == "Bearer hush-hush-hush"
    assert job["input"]["headers"] == {"Authorization": "•••"}
    assert "hush-hush-hush" not in row


async def test_jobs_of_a_tenant_to_one_origin_share_connections(api: Api, receiver: Receiver) -> None:
    for n in range(3):
        await called(api, f"{receiver.url}/{n}")

    assert (len(receiver.heard), receiver.connections) == (3, 1)


# -- What becomes of an answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"a":null}', {"a": None}),
        (b"[1]", [1]),
        (b"plain words", "plain words"),
        (b"", ""),
        (b"\xff\x00{", "\ufffd\ufffd{"),
    ],
)
async def test_a_body_is_json_where_it_is_json_and_text_otherwise(
    api: Api, receiver: Receiver, body: bytes, shown: Any
) -> None:
    receiver.answers(200, body)
    job = await called(api, receiver.url)

    assert (await get(api, f"/jobs/{job['id']}/result"))["body"] == shown


@pytest.mark.parametrize("size", [64 * 1024, 2 * 1024 * 1024])
async def test_an_answer_above_64_kib_fails_the_job(api: Api, receiver: Receiver, size: int) -> None:
    receiver.answers(200, b"x" * size)
    job = await called(api, receiver.url)

    assert (job["status"], job["error"]["code"]) == ("failed", "result_too_large")


async def test_an_answer_just_below_64_kib_is_kept(api: Api, receiver: Receiver) -> None:
    receiver.answers(200, b"x" * 65_000)
    job = await called(api, receiver.url)

    assert (await get(api, f"/jobs/{job['id']}/result"))["body"] == "x" * 65_000


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
async def test_a_refusal_that_may_pass_is_tried_again(api: Api, receiver: Receiver, status: int) -> None:
    receiver.answers(status, b"busy")
    job = await called(api, receiver.url)

    assert (job["status"], job["attempts"]) == ("queued", 1)
    assert job["error"] == {"code": f"http_{status}", "detail": f"answered {status}: busy"}


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 422])
async def test_other_refusals_and_redirects_fail_at_once(api: Api, receiver: Receiver, status: int) -> None:
    receiver.answers(status, location="/elsewhere")
    job = await called(api, receiver.url)

    assert (job["status"], job["error"]["code"], len(receiver.heard)) == ("failed", f"http_{status}", 1)


async def test_a_job_that_is_refused_until_the_last_attempt_fails(api: Api, receiver: Receiver) -> None:
    receiver.answers(500)
    job = await call(api, receiver.url, fields={"maxAttempts": 2})
    for _ in range(2):
        await run()
        await make_due(job["id"])

    found = await get(api, f"/jobs/{job['id']}")
    assert (found["status"], found["attempts"], len(receiver.heard)) == ("failed", 2, 2)


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("40", 40, 41), ("1", 0.8, 1.3), ("999999", 3600, 3601), ("x", 0.8, 1.3)]
)
async def test_retry_after_puts_the_next_attempt_off_by_an_hour_at_most(
    api: Api, receiver: Receiver, asked: str, least: float, most: float
) -> None:
    receiver.answers(429, retry_after=asked)
    job = await called(api, receiver.url)

    found = await Job.async_objects.aget(uuid=UUID(job["id"]))
    assert least <= (found.run_at - found.changed_at).total_seconds() <= most


async def test_a_broken_connection_is_tried_again(api: Api, receiver: Receiver) -> None:
    receiver.resets()
    reset = await called(api, receiver.url)
    async with Receiver() as closed:
        url = closed.url
    refused = await called(api, url)

    assert [(job["status"], job["error"]["code"]) for job in (reset, refused)] == [("queued", "no_answer")] * 2


async def test_a_receiver_that_never_answers_is_cut_off_by_the_jobs_time_out(api: Api, receiver: Receiver) -> None:
    receiver.is_silent()
    job = await called(api, receiver.url, fields={"timeout": 0.2})

    assert (job["status"], job["error"]["code"]) == ("queued", "timed_out")
    assert receiver.connections == 0


# -- What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"url": "ftp://example.com/"},
        {"url": "http://user:secret@127.0.0.1/"},
        {"url": "http://127.0.0.1:25/"},
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"url": "http://[fd00:ec2::254]/"},
        {"url": "http://no.such.host.invalid/"},
        {"url": ""},
        {"url": 7},
    ],
    ids=str,
)
async def test_an_address_that_is_not_acceptable_is_refused_at_submission(api: Api, given: dict[str, Any]) -> None:
    refusal = await submit(api, "http", 422, input=given)

    assert [error["field"] for error in refusal["errors"]] == ["input.url"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"headers": {"Host": "example.com"}}, "input.headers"),
        ({"headers": {"content-length": "3"}}, "input.headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "input.headers"),
        ({"headers": {"Connection": "close"}}, "input.headers"),
        ({"headers": {"Webhook-Signature": "v1,mine"}}, "input.headers"),
        ({"headers": {"webhook-other": "1"}}, "input.headers"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "input.headers"),
        ({"headers": {"X A": "1"}}, "input.headers"),
        ({"headers": {"": "1"}}, "input.headers"),
        ({"headers": {"X-A": "grün"}}, "input.headers"),
        ({"headers": {"X-A": 1}}, "input.headers"),
        ({"headers": {f"X-{n}": "1" for n in range(65)}}, "input.headers"),
        ({"method": "TRACE"}, "input.method"),
        ({"method": "GET", "body": {}}, "input.body"),
        ({"verb": "GET"}, "input.verb"),
    ],
    ids=str,
)
async def test_a_part_that_is_not_acceptable_is_named(
    api: Api, receiver: Receiver, given: dict[str, Any], field: str
) -> None:
    refusal = await call(api, receiver.url, status=422, **given)

    assert {error["field"] for error in refusal["errors"]} == {field}


async def test_a_header_that_is_there_twice_is_refused(api: Api, receiver: Receiver) -> None:
    refusal = await call(api, receiver.url, status=422, headers={"X-A": "1", "x-a": "2"})

    assert refusal["errors"][0]["message"] == "'X-A' is there twice"


async def test_an_address_inside_is_refused_at_submission(api: Api, receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False

    refusal = await call(api, receiver.url, status=422)

    assert refusal["errors"][0]["message"] == "127.0.0.1 is not a public address"


async def test_an_address_that_leads_inside_by_the_time_it_is_called_gets_nothing(
    api: Api, receiver: Receiver, settings: Any
) -> None:
    job = await call(api, receiver.url)
    settings.WEBHOOK_ALLOW_PRIVATE = False

    await run()

    found = await get(api, f"/jobs/{job['id']}")
    assert (found["status"], found["error"]["code"], receiver.heard) == ("failed", "address_refused", [])


async def test_a_live_tenant_calls_https_only_also_if_it_became_live_later(
    server: str, api: Api, tenant: Tenant, receiver: Receiver
) -> None:
    job = await call(api, receiver.url)
    await in_thread(Tenant.objects.filter(pk=tenant.pk).update, mode="live")
    live = await in_thread(make_tenant, mode="live")
    async with Api(server, await make_key(live)) as other:
        refusal = await call(other, receiver.url, status=422)

    await run()

    found = await get(api, f"/jobs/{job['id']}")
    assert refusal["errors"][0]["message"] == "a live tenant's address begins with https://"
    assert (found["status"], found["error"]["code"], receiver.heard) == ("failed", "address_refused", [])


async def test_a_batch_looks_an_address_up_once(api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    look_up = Outside.look_up

    async def counted(self: Outside, host: str, port: int) -> list[str]:
        looked_up.append(host)
        return await look_up(self, host, port)

    monkeypatch.setattr(Outside, "look_up", counted)
    items = [{"kind": "http", "input": {"url": f"{receiver.url}/{n}"}} for n in range(100)]
    async with api.post("/jobs/batch", json={"items": items}) as answer:
        results = (await answer.json())["results"]

    assert {one["status"] for one in results} == {"queued"}
    assert looked_up == ["127.0.0.1"]


async def test_a_batch_looks_its_addresses_up_together(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    together = asyncio.Barrier(3)  # each look-up waits for the two others

    async def slow(self: Outside, host: str, port: int) -> list[str]:
        async with asyncio.timeout(5):
            await together.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(Outside, "look_up", slow)
    items: list[dict[str, Any]] = [{"kind": "http", "input": {"url": f"http://{host}.example/"}} for host in "ab"]
    items += [{"kind": "test.echo", "callbackUrl": "http://c.example/"}, {"kind": "http", "input": {"url": 7}}]
    async with api.post("/jobs/batch", json={"items": items}) as answer:
        results = (await answer.json())["results"]

    assert [one["status"] for one in results] == ["queued", "queued", "queued", "invalid"]


async def test_each_address_of_a_batch_is_looked_up_once_however_long_that_takes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def unknown(self: Outside, host: str, port: int) -> list[str]:
        asked.append(host)
        raise OSError

    monkeypatch.setattr(Outside, "look_up", unknown)
    monkeypatch.setattr(addresses, "FRESH", 0.0)  # as if each look-up took longer than that
    hosts = [f"host-{n}.example" for n in range(20)]
    items = [{"kind": "http", "input": {"url": f"http://{host}/"}} for host in hosts]
    async with api.post("/jobs/batch", json={"items": items}) as answer:
        results = (await answer.json())["results"]

    assert {one["status"] for one in results} == {"invalid"}
    assert sorted(asked) == sorted(hosts)


async def test_a_batch_does_not_wait_for_hosts_without_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Outside, host: str, port: int) -> list[str]:
        if host != "silent.example":
            return ["127.0.0.1"]
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Outside, "look_up", never)
    monkeypatch.setattr(addresses, "BATCH_WITHIN", 0.2)
    items = [{"kind": "http", "input": {"url": f"http://{host}.example/"}} for host in ("silent", "a", "b")]
    async with api.post("/jobs/batch", json={"items": items}) as answer:
        results = (await answer.json())["results"]

    assert [one["status"] for one in results] == ["unavailable", "queued", "queued"]
    assert results[0]["error"]["detail"] == addresses.NOT_IN_TIME


async def test_the_kind_is_listed_with_its_schema(api: Api) -> None:
    listed = {kind["name"]: kind for kind in (await get(api, "/job-kinds"))["items"]}

    schema = json.dumps(listed["http"]["input"])
    assert all(word in schema for word in ("url", "method", "headers", "body"))


async def test_a_canceled_job_calls_nobody(api: Api, receiver: Receiver) -> None:
    job = await call(api, receiver.url)
    await post(api, f"/jobs/{job['id']}/cancel")

    assert await run() == []
    assert receiver.heard == []
