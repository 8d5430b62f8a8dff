"""The examples of the OpenAPI document: each request is sent to the real service, and its answer has the shape of the example's.

RECORD_EXAMPLES=1 writes the answers into the files, in place of comparing them.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import jsonschema_rs
import msgspec
import pytest

import registry.urls  # noqa: F401 - every route describes itself before anybody asks
from payments.inbound.signature import sign
from payments.refunds.work import RefundWork
from queueing.jobs.work import JobWork
from queueing.outbound.work import DeliveryWork
from registry.edge.api import api as description
from registry.edge.examples import OperationExample
from tests.bed.receiver import Receiver
from tests.bed.stripe import WEBHOOK_SECRET, sandbox_stripe
from tests.conftest import at_work, eventually, make_key
from tests.factories import in_thread, make_processor, make_stripe
from tests.settling import settle_due

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted(path for app in ("registry", "queueing", "payments") for path in (PROJECT / app).rglob("examples.json"))
RECORD = os.environ.get("RECORD_EXAMPLES") == "1"
SHOP = "https://shop.example"  # of the examples; in the test a receiver of its own
BY_HAND = {"GET /openapi.json"}  # the whole answer would be its own example
FREE = {
    "metadata",
    "schema",
    "input",
    "payload",
    "headers",
    "data",
    "paths",
    "components",
}  # fields whose content is the caller's
DELIVERY = "4711"  # an id that is a number
TOKEN = "MTox…"
ITEMS = 3  # of a list that is recorded
BILLING_SECRET = "whsec_of_the_platform"
SECRETS = (
    (re.compile(r"whsec_[\w+/=-]+"), "whsec_…"),
    (re.compile(r"(token=)[\w%.:-]+"), rf"\1{TOKEN}"),
)

# The examples tell one story, in this order. What happens between two of them is in STEPS.
ORDER = """
POST /payments
GET /payments/{id}/status
GET /payments/{id}
GET /payments
GET /payments-summary
GET /payments/{id}/events
POST /payments/batch
POST /payments/{id}/cancel
POST /payments/{id}/capture
POST /payments/{id}/refunds
GET /payments/{id}/refunds
GET /payments/{id}/refunds/{refund_id}
POST /webhooks/stripe/{account}
POST /webhooks/billing
POST /webhook-endpoints
POST /webhook-endpoints/{id}/test
GET /webhook-endpoints
GET /webhook-endpoints/{id}
PATCH /webhook-endpoints/{id}
GET /webhook-endpoints/{id}/deliveries
GET /webhook-deliveries/{id}
POST /webhook-deliveries/{id}/replay
POST /webhook-endpoints/{id}/replay
POST /webhook-endpoints/{id}/rotate-secret
DELETE /webhook-endpoints/{id}
GET /job-kinds
GET /job-secret
POST /job-secret/rotate
POST /jobs
GET /jobs/{id}
GET /jobs
GET /jobs/{id}/result
GET /jobs/{id}/file
GET /jobs/{id}/events
GET /jobs/{id}/callbacks
POST /jobs/batch
POST /jobs/{id}/cancel
POST /jobs/{id}/retry
PUT /schedules/{name}
GET /schedules
GET /schedules/{name}
POST /schedules/{name}/run
POST /schedules/{name}/pause
POST /schedules/{name}/resume
DELETE /schedules/{name}
POST /api/v1/configure
POST /api/v1/push
GET /api/v1/pop/queue/{queue}
GET /api/v1/pop
GET /api/v1/pop/queue/{queue}/partition/{partition}
POST /api/v1/lease/{lease}/extend
GET /api/v1/messages
GET /api/v1/messages/{partition}/{transaction}
POST /api/v1/traces
GET /api/v1/traces/names
GET /api/v1/traces/by-name/{name}
GET /api/v1/traces/{partition}/{transaction}
GET /api/v1/consumer-groups
GET /api/v1/consumer-groups/lagging
GET /api/v1/consumer-groups/{group}
POST /api/v1/stats/refresh
GET /api/v1/status
GET /api/v1/status/queues
GET /api/v1/status/queues/{queue}
GET /api/v1/status/queues/{queue}/messages
GET /api/v1/status/analytics
GET /api/v1/status/buffers
GET /api/v1/analytics/queue-lag
GET /api/v1/analytics/queue-ops
GET /api/v1/analytics/queue-parked-replicas
GET /api/v1/analytics/retention
GET /api/v1/analytics/system-metrics
GET /api/v1/analytics/worker-metrics
GET /api/v1/analytics/postgres-stats
GET /metrics/prometheus
GET /api/v1/resources/queues
GET /api/v1/resources/queues/{queue}
GET /api/v1/resources/queues/{queue}/depth
GET /api/v1/resources/partitions
GET /api/v1/resources/namespaces
GET /api/v1/resources/tasks
GET /api/v1/resources/overview
POST /api/v1/ack
POST /api/v1/ack/batch
POST /api/v1/transaction
POST /api/v1/consumer-groups/{group}/subscription
POST /api/v1/consumer-groups/{group}/queues/{queue}/partitions/{partition}/seek
POST /api/v1/consumer-groups/{group}/queues/{queue}/seek
POST /api/v1/messages/{partition}/{transaction}/dlq
GET /api/v1/dlq
POST /api/v1/dlq/{dead_letter}/replay
POST /api/v1/messages/{partition}/{transaction}/retry
DELETE /api/v1/dlq
DELETE /api/v1/consumer-groups/{group}/queues/{queue}
DELETE /api/v1/consumer-groups/{group}
DELETE /api/v1/messages/{partition}/{transaction}
DELETE /api/v1/queues/{queue}/clear
DELETE /api/v1/resources/queues/{queue}
GET /api/v1/system/maintenance
POST /api/v1/system/maintenance
GET /api/v1/system/maintenance/pop
POST /api/v1/system/maintenance/pop
GET /audit/verify
GET /health
GET /health/live
GET /health/ready
GET /metrics
GET /openapi.json
POST /purge-payments
""".strip().splitlines()


@cache
def document() -> dict[str, Any]:
    return description.get_openapi_schema()


def operations() -> dict[str, dict[str, Any]]:
    paths = document()["paths"]
    return {f"{method.upper()} {path}": one for path, methods in paths.items() for method, one in methods.items()}


SEEK = "POST /api/v1/consumer-groups/{group}/queues/{queue}/seek"
BURY = "POST /api/v1/messages/{partition}/{transaction}/dlq"


# -- What is written -----------------------------------------------------------------------------------------------


def test_every_operation_has_an_example_and_every_example_an_operation():
    """Of an operation that is new: add its request to the `examples.json` of its package and its place in the story to ORDER,
    and run this file with RECORD_EXAMPLES=1."""
    assert set(description.examples) == set(operations()) == set(ORDER)


def test_every_operation_is_in_a_group_of_the_document():
    groups = [group["name"] for group in document()["tags"]]

    assert {tag for one in operations().values() for tag in one["tags"]} == set(groups)


def wrong(schema: dict[str, Any], value: Any) -> list[str]:
    """Why the schema does not allow the value."""
    whole = {**schema, "components": document()["components"]}
    return [str(error) for error in jsonschema_rs.validator_for(whole, validate_formats=True).iter_errors(value)]


@pytest.mark.parametrize("name", ORDER)
def test_an_example_is_one_that_the_schemas_allow(name: str):
    operation, example = operations()[name], description.examples[name]
    known = {(one["in"], one["name"]): one for one in operation["parameters"]}
    [answer] = [one for status, one in operation["responses"].items() if str(status) == str(example.status)]
    media = next(iter(answer["content"].values())) if example.status != 204 else {}

    assert set(example.parameters) <= set(known), "no such parameter"
    assert {where for where, one in known.items() if one.get("required")} <= set(example.parameters), "it is required"
    assert [text for where, value in example.parameters.items() for text in wrong(known[where]["schema"], value)] == []
    assert {where: one["example"] for where, one in known.items() if "example" in one} == example.parameters
    assert media.get("example", msgspec.UNSET) == example.answer
    assert wrong(media.get("schema", {}), media.get("example")) == []
    if "requestBody" not in operation:
        assert example.body is msgspec.UNSET
        return
    [asked] = operation["requestBody"]["content"].values()
    assert asked["example"] == example.body
    assert wrong(asked["schema"], asked["example"]) == []


# -- What the service answers ------------------------------------------------------------------------------------------


class Story:
    """Sends the examples. What the service names otherwise (ids, addresses) is learned from its answers, and used from then on."""

    def __init__(self, server: str, key: str, receiver: Receiver, slug: str) -> None:
        self.server, self.key, self.receiver = server, key, receiver
        self.real = {SHOP: receiver.url.rstrip("/"), "shop.stripe": f"{slug}.stripe"}
        self.until_the_end = AsyncExitStack()
        self.differences: list[str] = []
        self.answers: dict[str, Any] = {}

    async def tells(self, name: str, example: OperationExample, **headers: str) -> None:
        method, path = name.split()
        address = re.sub(r"\{(\w+)\}", lambda at: str(self.here(example.path[at[1]])), path)
        body = None if example.body is msgspec.UNSET else json.dumps(self.here(example.body)).encode()
        query = {
            name: str(value).lower() if value in (True, False) else str(value)
            for name, value in self.here(example.query).items()
        }
        if signer := SIGNERS.get(name):
            headers["Stripe-Signature"] = sign(body or b"", signer.encode())
        sent = {
            "Authorization": f"Bearer {self.key}",
            **({"Content-Type": "application/json"} if body else {}),
            **headers,
        }
        async with (
            aiohttp.ClientSession(self.server, headers=sent) as session,
            session.request(method, address, params=query, data=body) as response,
        ):
            text = await response.text()
        if response.status != example.status:
            self.differences.append(f"{name}: {response.status} {text[:300]}")
            return
        if link := re.search(r"/file\?token=([^\"]+)", text):
            self.real[TOKEN] = link[1]
        is_json = response.content_type == "application/json" and text
        self.take(name, example, json.loads(text) if is_json else text or msgspec.UNSET)

    def take(self, name: str, example: OperationExample, answer: Any) -> None:
        self.learn(example.answer, answer)
        if RECORD:
            self.answers.setdefault(name, answer if answer is msgspec.UNSET else self.as_example(answer))
            return
        if example is description.examples[name]:  # a step between two of them has none to compare
            self.differences += [f"{name}: {text}" for text in differences(example.answer, answer)]

    def learn(self, example: Any, answer: Any) -> None:
        """Note the service's values in place of the example's."""
        if isinstance(example, dict) and isinstance(answer, dict):
            for name in example.keys() & answer.keys():
                self.learn(example[name], answer[name])
        elif isinstance(example, list) and isinstance(answer, list):
            for mine, real in zip(example, answer, strict=False):
                self.learn(mine, real)
        elif is_name(example) and type(example) is type(answer):
            self.real.setdefault(str(example), str(answer))

    def here(self, value: Any) -> Any:
        """An example's value with the names that the service has given."""
        return _each(value, lambda text: _replaced(text, self.real.items()))

    def as_example(self, answer: Any) -> Any:
        def named(text: str) -> str:
            text = _replaced(text, ((real, mine) for mine, real in self.real.items() if mine != DELIVERY))
            for pattern, shown in SECRETS:
                text = pattern.sub(shown, text)
            return text

        return _each(_short(answer), named, {int(self.real.get(DELIVERY, 0)): int(DELIVERY)})


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def _each(value: Any, change: Callable[[str], str], numbers: Mapping[int, int] = MappingProxyType({})) -> Any:
    """The value with every text in it changed, and `numbers` where they are ids."""
    if isinstance(value, dict):
        return {
            name: numbers.get(one, one) if name == "id" and type(one) is int else _each(one, change, numbers)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_each(one, change, numbers) for one in value]
    return change(value) if isinstance(value, str) else value


def is_name(value: Any) -> bool:
    """Whether it is the service that decides on it: ids, and tokens of links."""
    text = str(value)
    return text == DELIVERY or bool(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", text))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value[:ITEMS]]
    return value if not isinstance(value, str) or len(value) < 600 else value[:600].rpartition("\n")[0] + "\n…"


def differences(example: Any, answer: Any, at: str = "") -> list[str]:
    """Where the answer has other fields, or values of other types, than the example. Null may stand for any value."""
    if isinstance(example, dict) and isinstance(answer, dict):
        if at.rpartition(".")[2] in FREE:
            return []
        named = (
            [f"{at or 'the answer'} has not {sorted(example.keys() ^ answer.keys())}"]
            if example.keys() ^ answer.keys()
            else []
        )
        return named + [
            text
            for name in example.keys() & answer.keys()
            for text in differences(example[name], answer[name], f"{at}.{name}")
        ]
    if isinstance(example, list) and isinstance(answer, list):
        return [] if not answer or not example else differences(example[0], answer[0], f"{at}[0]")
    kinds = [float if isinstance(one, int) and not isinstance(one, bool) else type(one) for one in (example, answer)]
    return (
        []
        if kinds[0] is kinds[1] or None in (example, answer)
        else [f"{at or 'the answer'} is {answer!r}, not as {example!r}"]
    )


SIGNERS = {"POST /webhooks/stripe/{account}": WEBHOOK_SECRET, "POST /webhooks/billing": BILLING_SECRET}


@pytest.fixture
async def story(server: str, tenant, settings):
    settings.BILLING_WEBHOOK_SECRET = BILLING_SECRET
    await in_thread(make_processor, tenant, "default", options={"delay": 0})
    key = await make_key(tenant, "admin")
    async with sandbox_stripe() as stripe, Receiver() as receiver:
        await in_thread(make_stripe, tenant, stripe.url, options={"capture": "manual", "onlyByName": True})
        story = Story(server, key, receiver, tenant.slug)
        async with story.until_the_end:
            yield story


async def test_the_service_answers_every_example_as_it_is_written(story: Story):
    for name in ORDER:
        if before := BEFORE.get(name):
            await before(story)
        await story.tells(name, description.examples[name])
    if RECORD:
        record(story.answers)

    assert not story.differences, "\n".join(story.differences)


def record(answers: dict[str, Any]) -> None:
    for file in FILES:
        found = json.loads(file.read_text())
        for name, example in found.items():
            if name in BY_HAND:
                continue
            example.pop("answer", None)
            if answers.get(name, msgspec.UNSET) is not msgspec.UNSET:
                example["answer"] = answers[name]
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


# -- What happens between two examples ---------------------------------------------------------------------------------


async def _settle(_story: Story) -> None:
    await settle_due()


async def _hold(story: Story) -> None:
    held = {"correlationId": description.examples["POST /payments/{id}/capture"].path["id"], "amount": "80.00"}
    stripe = {"processor": "stripe", "paymentMethod": "pm_card_visa"}
    await story.tells("POST /payments", OperationExample(status=202, body={**held, **stripe}))
    await settle_due()


async def _refund(_story: Story) -> None:
    await settle_due(RefundWork())


async def _deliver(_story: Story) -> None:
    await settle_due(DeliveryWork())


async def _work(_story: Story) -> None:
    await settle_due(JobWork())


async def _fail(story: Story) -> None:
    """A job fails at once: its receiver has no such address."""
    story.receiver.answers(404)
    name = description.examples["POST /jobs/{id}/retry"].path["id"]
    body = {"kind": "http", "input": {"url": f"{SHOP}/nightly"}}
    await story.tells("POST /jobs", OperationExample(status=202, body=body, answer={"id": name}))
    await settle_due(JobWork())


async def _bury(story: Story) -> None:
    """The message is read again, and given up again."""
    for name in SEEK, BURY:
        await story.tells(name, description.examples[name])


async def _live(story: Story) -> None:
    """A worker is alive."""
    await story.until_the_end.enter_async_context(at_work())

    async def healthy() -> bool:
        async with aiohttp.ClientSession(story.server) as session, session.get("/health") as response:
            return response.status == 200

    await eventually(healthy)


BEFORE: dict[str, Callable[[Story], Awaitable[None]]] = {
    "GET /payments/{id}/status": _settle,
    "POST /payments/{id}/capture": _hold,
    "GET /payments/{id}/refunds": _refund,
    "GET /webhook-endpoints": _deliver,
    "GET /jobs/{id}": _work,
    "GET /jobs/{id}/callbacks": _deliver,
    "POST /jobs/{id}/retry": _fail,
    "POST /api/v1/messages/{partition}/{transaction}/retry": _bury,
    "GET /health": _live,
}
