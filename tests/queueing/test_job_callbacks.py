"""Callbacks of jobs, and jobs as a source of webhook events (docs/decisions/031)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from queueing.jobs import webhooks
from queueing.jobs.addresses import CHECKS
from queueing.jobs.http_clients import CLIENTS
from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import callbacks, deliveries, job_secret, sources
from queueing.outbound.work import DeliveryWork
from queueing.work.drain import run_until_idle
from registry.data import database
from registry.http.ssrf import Outside
from registry.models import Tenant
from tests.bed.receiver import Receiver
from tests.conftest import Api, make_key
from tests.queueing.hooks import deliveries as deliveries_to
from tests.queueing.hooks import endpoint, fan_out
from tests.queueing.test_jobs import get, make_due, post, run, submit

SOURCE = sources.SOURCES["jobs"]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """It takes callbacks at /hook, and calls of jobs."""
    async with Receiver() as found:
        yield found


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    """What jobs of these tests call."""
    async with Receiver() as found:
        yield found
    await CLIENTS.close()
    await CHECKS.close()


async def called_back(api: Api, target: Receiver, url: str, **fields: Any) -> dict[str, Any]:
    """Submit a job that has a callback."""
    return await submit(api, "http", input={"url": target.url}, callbackUrl=url, **fields)


async def deliver(*, outside: Outside | None = None) -> list[bool]:
    """One round of fan-out, and everything that is due."""
    await fan_out()
    work = DeliveryWork(outside=outside)
    async with database.own_connection():
        try:
            return await run_until_idle(work)
        finally:
            await work.close()


async def owed() -> list[WebhookDelivery]:
    async with database.own_connection():
        return [one async for one in WebhookDelivery.async_objects.filter(callback_url__gt="").order_by("id")]


async def receivers() -> list[WebhookEndpoint]:
    async with database.own_connection():
        return [one async for one in WebhookEndpoint.async_objects.filter(callback=True).order_by("id")]


async def secret_of(tenant: Tenant) -> str:
    async with database.own_connection():
        return (await job_secret.of(tenant.pk)).newest


# -- Callbacks -----------------------------------------------------------------------------------------------------


async def test_a_job_that_succeeded_calls_back_signed_with_the_tenants_job_secret(
    api: Api, tenant: Tenant, receiver: Receiver, target: Receiver
) -> None:
    job = await called_back(api, target, f"{receiver.url}?job=7")
    await run()
    await deliver()

    [heard] = receiver.heard
    message = heard.verify(await secret_of(tenant))
    shown = await get(api, f"/jobs/{job['id']}")
    assert (heard.target, message["type"]) == ("/hook?job=7", "job.succeeded")
    assert message["data"] == {
        name: shown[name]
        for name in (
            "id",
            "kind",
            "status",
            "attempts",
            "createdAt",
            "startedAt",
            "finishedAt",
            "updatedAt",
            "sequence",
        )
    }


async def test_a_job_that_failed_calls_back_once_it_has_no_attempt_left(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    target.answers(500)
    job = await called_back(api, target, receiver.url, maxAttempts=2)
    for _ in range(2):
        await run()
        await deliver()
        await make_due(job["id"])

    assert receiver.types == ["job.failed"]
    assert receiver.heard[0].data["error"] == {"code": "http_500", "detail": "answered 500: {}"}


async def test_a_job_that_was_canceled_calls_back(api: Api, receiver: Receiver, target: Receiver) -> None:
    job = await called_back(api, target, receiver.url)
    await post(api, f"/jobs/{job['id']}/cancel")
    await post(api, f"/jobs/{job['id']}/cancel")
    await deliver()

    assert [(one.type, one.data["id"]) for one in receiver.heard] == [("job.canceled", job["id"])]


async def test_a_job_without_a_callback_calls_nobody(api: Api, receiver: Receiver, target: Receiver) -> None:
    await submit(api, "http", input={"url": target.url})
    await run()
    await deliver()

    assert (await owed(), await receivers()) == ([], [])


async def test_the_next_outcome_of_a_job_that_was_retried_calls_back_too(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    """Also if the retry comes before the callback of the failure was made."""
    target.answers(404)
    job = await called_back(api, target, receiver.url)
    await run()
    target.answers(200)
    await post(api, f"/jobs/{job['id']}/retry", 202)
    await run()
    await deliver()

    assert sorted(receiver.types) == ["job.failed", "job.succeeded"]
    assert len(set(receiver.ids)) == 2


async def test_a_callback_that_fails_is_tried_again_under_the_same_id_and_is_in_the_log(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    receiver.answers(503, b"later")
    job = await called_back(api, target, receiver.url)
    await run()
    await deliver()
    [waiting] = (await get(api, f"/jobs/{job['id']}/callbacks"))["items"]
    receiver.answers(200)
    await database.fetch("UPDATE queueing_webhookdelivery SET run_at = now()")
    await deliver()

    [done] = (await get(api, f"/jobs/{job['id']}/callbacks"))["items"]
    whole = await get(api, f"/webhook-deliveries/{done['id']}")
    assert (waiting["status"], waiting["answer"], done["status"], done["attempts"]) == ("pending", 503, "delivered", 2)
    assert (done["callbackUrl"], done["endpoint"], done["jobId"]) == (receiver.url, None, job["id"])
    assert done["correlationId"] is None
    assert len(set(receiver.ids)) == 1
    assert [one["response"]["status"] for one in whole["tries"]] == [200, 503]


async def test_a_callback_is_replayed_by_hand_under_the_same_id(
    server: str, api: Api, tenant: Tenant, receiver: Receiver, target: Receiver
) -> None:
    job = await called_back(api, target, receiver.url)
    await run()
    await deliver()
    [done] = (await get(api, f"/jobs/{job['id']}/callbacks"))["items"]

    async with Api(server, await make_key(tenant, "admin")) as admin:
        await post(admin, f"/webhook-deliveries/{done['id']}/replay", 202)
    await deliver()

    assert (len(receiver.heard), len(set(receiver.ids))) == (2, 1)


async def test_the_mark_and_the_delivery_are_one_transaction(
    api: Api, receiver: Receiver, target: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies while it makes a delivery has made none, and the next one makes it."""
    await called_back(api, target, receiver.url)
    await run()
    with monkeypatch.context() as broken:
        broken.setattr(callbacks, "_deliveries", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await callbacks.owe(SOURCE)
    none = await owed()

    await deliver()

    assert (none, receiver.types) == ([], ["job.succeeded"])


async def test_two_workers_make_every_callback_once(api: Api, receiver: Receiver, target: Receiver) -> None:
    items = [{"kind": "http", "input": {"url": target.url}, "callbackUrl": f"{receiver.url}/{n}"} for n in range(40)]
    async with api.post("/jobs/batch", json={"items": items}) as answer:
        assert answer.status == 200
    await run()

    await asyncio.gather(*(callbacks.owe(SOURCE) for _ in range(4)))

    assert sorted(one.callback_url for one in await owed()) == sorted(one["callbackUrl"] for one in items)


async def test_addresses_of_one_origin_share_a_receiver_and_others_do_not_wait_for_it(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    async with Receiver() as other:
        for url in (f"{receiver.url}?n=1", f"{receiver.url}?n=2", other.url):
            await called_back(api, target, url)
        await run()
        await deliver()

        found = [one.url for one in await receivers()]
    assert sorted(found) == sorted(url.removesuffix("/hook") for url in (receiver.url, other.url))


async def test_receivers_of_callbacks_are_no_endpoints(
    server: str, tenant: Tenant, api: Api, receiver: Receiver, target: Receiver
) -> None:
    await called_back(api, target, receiver.url)
    await run()
    await deliver()
    [hidden] = await receivers()

    async with Api(server, await make_key(tenant, "admin")) as admin:
        assert (await get(admin, "/webhook-endpoints"))["items"] == []
        await get(admin, f"/webhook-endpoints/{hidden.uuid}", 404)
        await get(admin, f"/webhook-endpoints/{hidden.uuid}/deliveries", 404)


async def test_a_receiver_that_is_gone_stays_open_for_later_callbacks(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    receiver.answers(410)
    await called_back(api, target, receiver.url)
    await run()
    await deliver()
    receiver.answers(200)
    await called_back(api, target, receiver.url)
    await run()
    await deliver()

    assert [one.status for one in await owed()] == ["dead", "delivered"]


async def test_receivers_without_deliveries_are_removed_and_those_with_some_stay(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    await called_back(api, target, receiver.url)
    await run()
    await deliver()
    await database.fetch("UPDATE queueing_webhookendpoint SET changed_at = now() - interval '2 hours'")
    async with database.own_connection():
        await deliveries.trim()
        kept = len(await receivers())
        await database.fetch("UPDATE queueing_webhookdelivery SET changed_at = now() - interval '31 days'")
        await deliveries.trim()

    assert (kept, await receivers(), await owed()) == (1, [], [])


async def test_an_address_that_leads_inside_by_the_time_of_the_callback_gets_nothing(
    api: Api, receiver: Receiver, target: Receiver
) -> None:
    await called_back(api, target, receiver.url)
    await run()
    await deliver(outside=Outside(private=False))

    [delivery] = await owed()
    assert (receiver.heard, delivery.status) == ([], "pending")
    assert "is not a public address" in delivery.error


async def test_a_callback_to_loopback_is_refused_where_private_addresses_are(
    api: Api, receiver: Receiver, target: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    body = {"kind": "http", "input": {"url": "https://8.8.8.8/"}, "callbackUrl": receiver.url}
    async with api.post("/jobs", json=body) as answer:
        refusal = await answer.json()

    assert (answer.status, [error["field"] for error in refusal["errors"]]) == (422, ["callbackUrl"])


async def test_callbacks_of_other_tenants_jobs_are_unknown(api: Api, stranger: Api, target: Receiver) -> None:
    job = await called_back(api, target, "http://127.0.0.1:9999/")

    for id in (job["id"], uuid4()):
        await get(stranger, f"/jobs/{id}/callbacks", 404)


# -- Webhook events ------------------------------------------------------------------------------------------------


async def test_endpoints_subscribe_to_jobs_as_to_payments(api: Api, tenant: Tenant, target: Receiver) -> None:
    hooks = {
        events: await endpoint(tenant, "http://127.0.0.1:9999/", events)
        for events in ("*", "job.*", "job.failed", "payment.*")
    }
    job = await submit(api, "http", input={"url": target.url})
    await run()
    await fan_out()

    types = {events: [one.type for one in await deliveries_to(hook)] for events, hook in hooks.items()}
    every = ["job.queued", "job.running", "job.succeeded"]
    assert types == {"*": every, "job.*": every, "job.failed": [], "payment.*": []}
    assert {str(one.subject) for one in await deliveries_to(hooks["*"])} == {job["id"]}


async def test_reports_of_progress_are_no_webhook_events(api: Api, tenant: Tenant, target: Receiver) -> None:
    hook = await endpoint(tenant, "http://127.0.0.1:9999/", "job.*")
    await submit(api, "http", input={"url": target.url})
    await run()
    await database.fetch(
        """UPDATE queueing_jobevent SET progress = '{"done": 1, "total": 2, "message": ""}' WHERE status = 'running'"""
    )
    await fan_out()

    assert [one.type for one in await deliveries_to(hook)] == ["job.queued", "job.succeeded"]


async def test_an_address_that_is_callback_and_endpoint_gets_both_messages_under_one_id(
    api: Api, tenant: Tenant, receiver: Receiver, target: Receiver
) -> None:
    await endpoint(tenant, receiver.url, "job.succeeded")
    await called_back(api, target, receiver.url)
    await run()
    await deliver()

    assert (receiver.types, len(set(receiver.ids))) == (["job.succeeded"] * 2, 1)


def test_the_examples_of_the_test_kit_are_still_those_of_payments() -> None:
    assert sources.example_source().noun == "payment"
    assert set(webhooks.EXAMPLES) <= set(webhooks.TYPES)
