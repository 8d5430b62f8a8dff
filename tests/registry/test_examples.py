"""The examples of the OpenAPI document: each request is sent to the real service, and its answer has the shape of the example's.

RECORD_EXAMPLES=1 writes the answers into the files, in place of comparing them.
"""

import json
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import msgspec
import pytest

import registry.urls  # noqa: F401 - every route describes itself before anybody asks
from payments.refunds.work import RefundWork
from queueing.jobs.work import JobWork
from queueing.outbound.work import DeliveryWork
from registry.edge.api import api as description
from registry.edge.examples import OperationExample
from tests.bed.receiver import Receiver
from tests.bed.stripe import sandbox_stripe
from tests.conftest import at_work, eventually, make_key
from tests.factories import in_thread, make_processor, make_stripe
from tests.registry.story import BILLING_SECRET, BY_HAND, RECORD, SHOP, Story
from tests.settling import settle_due

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted(path for app in ("registry", "queueing", "payments") for path in (PROJECT / app).rglob("examples.json"))
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
