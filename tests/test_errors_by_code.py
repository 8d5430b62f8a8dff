"""docs/developers/errors.md: every problem of the code is in it with its status, and the API answers as it says."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

import payments
import queueing
import registry
from payments.states import FAILED, SUCCEEDED
from registry.errors import Problem
from registry_client import errors as client_errors
from registry_client._retry import Safety, allows
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_payment, make_processor
from tests.registry.raw_http import answer_to

PAGE = Path(__file__).resolve().parents[1] / "docs" / "developers" / "errors.md"


class Row(NamedTuple):
    status: int
    again: str


def rows(text: str) -> dict[str, Row]:
    """The codes of the tables in `text`, with status and whether to send again."""
    found = {}
    for line in re.findall(r"^\| (`.*) \|$", text, re.M):
        cells = [cell.strip() for cell in line.split(" | ")]
        codes, statuses = re.findall(r"`([\w-]+)`", cells[0]), [int(one) for one in cells[1].split(", ")]
        for number, code in enumerate(codes):
            found[code] = Row(statuses[number if len(statuses) > 1 else 0], cells[-1])
    return found


OF_THE_API, ELSEWHERE = (rows(part) for part in PAGE.read_text().split("## In the console"))


def all_problems(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    yield kind
    for more in kind.__subclasses__():
        yield from all_problems(more)


def code_of(problem: Problem) -> str:
    return problem.type.rpartition(":")[2]


def test_every_problem_of_the_code_is_on_the_page_with_its_status():
    for app in (registry, queueing, payments):
        for module in pkgutil.walk_packages(app.__path__, f"{app.__name__}."):
            if ".migrations" not in module.name and ".settings" not in module.name:
                importlib.import_module(module.name)
    ours = {kind for kind in all_problems() if kind.__module__.split(".")[0] in ("registry", "queueing", "payments")}

    written = {code: row.status for code, row in (OF_THE_API | ELSEWHERE).items()}
    assert {code_of(kind()): kind.status for kind in ours} == written
    assert OF_THE_API.keys() & ELSEWHERE.keys() == set()


def test_what_is_to_be_sent_again_is_what_the_client_sends_again():
    def client_repeats(status: int) -> bool:
        error = client_errors.class_of(status)(client_errors.ProblemDetails(status=status))
        return allows(error, Safety.REPEATABLE)

    assert {code: row.again for code, row in OF_THE_API.items()} == {
        code: "yes" if client_repeats(row.status) else "no" for code, row in OF_THE_API.items()
    }


# -- Each is provoked ------------------------------------------------------------------------------------------

NOBODY = "5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11"  # an id that nothing has
JSON = {"Content-Type": "application/json"}

# code: method, path, and more of the request. {failed}, {paid} and {queued} are ids of payments.
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unauthorized": ("GET", "/webhook-endpoints", {"headers": {"Authorization": "Bearer rk_unknown"}}),
    "forbidden": ("GET", "/audit/verify", {}),
    "not-found": ("GET", "/no/such/path", {}),
    "method-not-allowed": ("DELETE", "/payments", {}),
    "malformed": ("POST", "/payments", {"data": b"{", "headers": JSON}),
    "invalid": ("POST", "/payments", {"json": {"amount": 0}}),
    "unsupported-media-type": ("POST", "/payments", {"data": b"amount=1", "headers": {"Content-Type": "text/plain"}}),
    "unsupported-coding": ("POST", "/payments", {"data": b"x", "headers": {**JSON, "Content-Encoding": "br"}}),
    "too-large": ("POST", "/payments", {"json": {"amount": 1, "description": "x" * 70_000}}),
    "unknown-payment": ("GET", f"/payments/{NOBODY}/status", {}),
    "different-content": ("POST", "/payments", {"json": {"correlationId": "{paid}", "amount": 7}}),
    "not-cancelable": ("POST", "/payments/{failed}/cancel", {}),
    "not-capturable": ("POST", "/payments/{paid}/capture", {}),
    "not-refundable": ("POST", "/payments/{failed}/refunds", {"json": {}}),
    "refund-too-large": ("POST", "/payments/{paid}/refunds", {"json": {"amount": "20.00"}}),
    "unknown-refund": ("GET", f"/payments/{{paid}}/refunds/{NOBODY}", {}),
    "unknown-job": ("GET", f"/jobs/{NOBODY}", {}),
    "unknown-schedule": ("GET", "/schedules/nightly", {}),
    "unknown-webhook-endpoint": ("GET", f"/webhook-endpoints/{NOBODY}", {}),
    "unknown-delivery": ("GET", f"/webhook-deliveries/{NOBODY}", {}),
    "not-signed": ("POST", "/webhooks/stripe/shop.stripe", {"json": {}}),
    "bad-request": ("POST", "/api/v1/push", {"json": {"items": 1}}),
    "unknown-queue": ("GET", "/api/v1/resources/queues/nothing", {}),
    "unknown-message": ("GET", f"/api/v1/messages/{NOBODY}/one", {}),
    "unknown-group": ("GET", "/api/v1/consumer-groups/nobody", {}),
    "unknown-dead-letter": ("POST", f"/api/v1/dlq/{NOBODY}/replay", {}),
}


@pytest.mark.parametrize("code", REQUESTS)
async def test_a_request_of_that_kind_is_answered_with_that_code(code: str, server: str, tenant):
    method, path, more = REQUESTS[code]
    processor = await in_thread(make_processor, tenant)
    paid = await in_thread(make_payment, tenant, status=SUCCEEDED, processor=processor)
    failed = await in_thread(make_payment, tenant, status=FAILED, processor=processor)
    if "correlationId" in more.get("json", {}):
        more = {"json": {**more["json"], "correlationId": str(paid.correlation_id)}}
    path = path.format(paid=paid.correlation_id, failed=failed.correlation_id)

    scopes = ["read", "write"] if code == "forbidden" else ["admin"]
    async with Api(server, await make_key(tenant, *scopes)) as api:
        async with api.session.request(method, path, **more) as response:
            found = await response.json(content_type="application/problem+json")

    assert (found["type"], found["status"], response.status) == (
        f"urn:registry:problem:{code}", OF_THE_API[code].status, OF_THE_API[code].status,
    )  # fmt: skip
    assert response.headers["X-Request-Id"]


async def test_the_example_on_the_page_is_the_answer(api: Api):
    async with api.post("/payments", json={"amount": 0}) as response:
        found = await response.text()

    [shown] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.S)
    assert re.sub(r"\s", "", found) == re.sub(r"\s", "", shown)


async def test_what_no_well_behaved_client_sends_is_refused_with_its_code(server: str):
    async def code(head: bytes) -> tuple[int, str]:
        status, answer = await answer_to(server, head)
        return status, re.search(rb"urn:registry:problem:([\w-]+)", answer)[1].decode()

    host = b"Host: 127.0.0.1\r\n"
    assert await code(b"GET /health HTTP/1.1\r\n" + host + host + b"\r\n") == (400, "invalid-request")
    assert await code(b"GET /health HTTP/1.1\r\n" + host + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n") == (
        431,
        "head-too-large",
    )
    assert await code(b"POST /payments HTTP/1.1\r\n" + host + b"Transfer-Encoding: gzip, chunked\r\n\r\n") == (
        501,
        "unknown-transfer-coding",
    )


async def test_a_key_above_its_limit_is_told_when_to_come_back(server: str, tenant):
    key = await make_key(tenant, "read", "write", rate_limit="1/minute")
    async with Api(server, key) as api:
        await api.pay()
        async with api.post("/payments", json={"amount": 1, "correlationId": str(uuid4())}) as response:
            found = await response.json(content_type=None)

    assert (response.status, found["type"]) == (429, "urn:registry:problem:too-many-requests")
    assert int(response.headers["Retry-After"]) >= 1


async def test_a_live_tenant_is_not_purged(server: str, tenant):
    def make_live() -> None:
        tenant.mode = "live"
        tenant.save()

    await in_thread(make_live)
    async with Api(server, await make_key(tenant, "read", "write", "admin")) as api:
        async with api.post("/purge-payments") as response:
            found = await response.json(content_type=None)

    assert (response.status, found["type"]) == (403, "urn:registry:problem:live-tenant")


async def test_jobs_are_refused_with_their_codes(server: str, tenant):
    async with Api(server, await make_key(tenant, "admin")) as api:

        async def post(path: str, body: Any = None) -> tuple[str, dict[str, Any]]:
            async with api.post(path, json=body, headers={"Idempotency-Key": "export-1"}) as response:
                found = await response.json(content_type=None)
            return found.get("type", "").rpartition(":")[2], found

        _, job = await post("/jobs", {"kind": "tenant.export"})
        path = f"/jobs/{job['id']}"
        conflict, _ = await post("/jobs", {"kind": "payments.export"})
        too_early, _ = await post(f"{path}/retry")
        async with api.get(f"{path}/result") as response:
            unfinished = (await response.json(content_type=None))["type"].rpartition(":")[2]
        large, _ = await post("/jobs", {"kind": "http", "input": {"url": "https://example.com", "body": "x" * 65_536}})

    assert [conflict, too_early, unfinished, large] == [
        "job-conflict", "job-not-failed", "job-unfinished", "job-input-too-large",
    ]  # fmt: skip
