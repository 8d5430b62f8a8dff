"""Outbound webhooks: every subscribed endpoint gets every event, signed, at least once."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from payments.states import FAILED, SUCCEEDED
from registry.data import database
from registry.models import AuditEntry
from tests.bed.receiver import Receiver
from tests.bed.wire import response
from tests.conftest import eventually
from tests.factories import in_thread, make_payment, make_processor, make_tenant
from tests.queueing.hooks import (
    again,
    deliveries,
    delivering,
    endpoint,
    events,
    fan_out,
    make_due,
    seconds_to_go,
    tries,
    until,
    until_tried,
)
from tests.settling import accept


@pytest.fixture
async def receiver():
    async with Receiver() as found:
        yield found


async def something_happens(tenant, **fields):
    """A payment that was accepted and booked: two events."""
    processor = await in_thread(make_processor, tenant, f"p{uuid4().hex[:6]}")
    return await in_thread(make_payment, tenant, status=SUCCEEDED, processor=processor, **fields)


# -- What is told ------------------------------------------------------------------------------------------------


async def test_events_of_a_payment_are_delivered_in_order_with_its_status_object(tenant, receiver):
    hook = await endpoint(tenant, receiver.url)
    payment = await something_happens(tenant)

    async with delivering():
        await until(hook, "delivered", count=2)

    by_type = {one.type: one for one in receiver.heard}
    assert set(by_type) == {"payment.queued", "payment.succeeded"}
    told = by_type["payment.succeeded"].message
    assert told["data"] == {
        "correlationId": str(payment.correlation_id),
        "status": "succeeded",
        "amount": "19.90",
        "currency": "BRL",
        "processor": None,
        "attempts": 1,
        "updatedAt": told["timestamp"],
        "sequence": 2,
    }


async def test_every_delivery_is_signed_by_standard_webhooks(tenant, receiver):
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        await until(hook, "delivered")

    [heard] = receiver.heard
    assert heard.verify(hook.secret)["type"] == "payment.succeeded"
    assert heard.id.startswith("msg_")
    assert heard.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(heard.body, heard.headers)


async def test_an_endpoint_receives_only_the_event_types_it_subscribes_to(tenant, receiver):
    wanting = await endpoint(tenant, receiver.url, "payment.queued", "refund.*")
    all_payments = await endpoint(tenant, receiver.url + "/all", "payment.*")
    nothing_of_this = await endpoint(tenant, receiver.url + "/none", "dispute.opened")
    await something_happens(tenant)

    async with delivering():
        await until(all_payments, "delivered", count=2)
        await until(wanting, "delivered")

    assert [one.type for one in await deliveries(wanting)] == ["payment.queued"]
    assert await deliveries(nothing_of_this) == []
    assert (await again(nothing_of_this)).positions == (await again(wanting)).positions == {"payments": 2, "jobs": 0}


async def test_a_new_endpoint_receives_events_from_then_on(tenant, receiver):
    await something_happens(tenant)
    hook = await endpoint(tenant, receiver.url)
    later = await something_happens(tenant)

    async with delivering():
        await until(hook, "delivered", count=2)

    assert {one.data["correlationId"] for one in receiver.heard} == {str(later.correlation_id)}


async def test_events_of_another_tenant_are_not_delivered(tenant, receiver):
    other = await in_thread(make_tenant, f"other-{uuid4().hex[:8]}")
    mine, theirs = await endpoint(tenant, receiver.url + "/mine"), await endpoint(other, receiver.url + "/theirs")
    payment = await something_happens(tenant)

    async with delivering():
        await until(mine, "delivered", count=2)

    assert await deliveries(theirs) == []
    assert {(one.target, one.data["correlationId"]) for one in receiver.heard} == {
        ("/hook/mine", str(payment.correlation_id))
    }


async def test_a_payment_sends_webhooks_from_acceptance_to_booking(tenant, default, worker, receiver):
    hook = await endpoint(tenant, receiver.url)

    async with delivering():
        [accepted] = await accept(tenant)
        await until(hook, "delivered", count=3)

    told = sorted((one.data["sequence"], one.type) for one in receiver.heard)
    assert told == [(1, "payment.queued"), (2, "payment.processing"), (3, "payment.succeeded")]
    assert {one.data["correlationId"] for one in receiver.heard} == {str(accepted)}


async def test_two_workers_create_one_delivery_per_event(tenant, receiver):
    hook = await endpoint(tenant, receiver.url)
    payment = await something_happens(tenant)
    await events(payment, 3, 59)

    await asyncio.gather(*(fan_out(3) for _ in range(6)))

    assert [one.position for one in await deliveries(hook)] == list(range(1, 60))
    assert len({one.message_id for one in await deliveries(hook)}) == 59


async def test_all_endpoints_of_a_tenant_receive_an_event_under_the_same_id(tenant, receiver):
    first, second = await endpoint(tenant, receiver.url + "/1"), await endpoint(tenant, receiver.url + "/2")
    await something_happens(tenant)

    await fan_out()

    assert [d.message_id for d in await deliveries(first)] == [d.message_id for d in await deliveries(second)]


# -- When it does not work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "answered 500"),
        (404, "answered 404"),
        (301, "answered 301: redirects are not followed"),
        (307, "answered 307: redirects are not followed"),
    ],
)
async def test_a_response_other_than_2xx_is_retried(tenant, receiver, status, words):
    receiver.answers(status, b"no", location="http://127.0.0.1:1/elsewhere")
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        failed = await until_tried(hook)
        wait = await seconds_to_go(hook)
        receiver.answers(204, b"")
        await make_due(hook)
        [done] = await until(hook, "delivered")

    assert (failed.status, failed.answer, failed.error) == ("pending", status, words)
    assert 4 < wait < 6
    assert (done.attempt, done.answer, done.error) == (2, 204, "")
    assert len(set(receiver.ids)) == 1


async def test_retry_delays_follow_the_schedule_until_the_delivery_is_given_up(tenant, receiver):
    receiver.answers(500)
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)
    waits = []

    async with delivering():
        for attempt in range(1, 10):
            await until_tried(hook, attempt)
            waits.append(await seconds_to_go(hook))
            await make_due(hook)
        [dead] = await until(hook, "dead")

    schedule = [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert [planned - 2 < wait < planned * 1.11 for planned, wait in zip(schedule, waits, strict=True)] == [True] * 9
    assert (dead.attempt, receiver.calls) == (10, 10)
    assert [one.number for one in await tries(dead)] == list(range(1, 11))


async def test_retry_after_postpones_the_delivery_and_its_endpoint(tenant, receiver):
    receiver.answers_by(
        lambda heard: response(429, b"", retry_after="120") if heard.target == "/hook" else response(200)
    )
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        await until_tried(hook)
        beside = await endpoint(tenant, receiver.url + "/beside", "payment.succeeded")
        await something_happens(tenant)
        await until(beside, "delivered")
        wait, rest = await seconds_to_go_first(hook), (await again(hook)).rest_until - datetime.now(UTC)
        waiting = [(one.status, one.attempt) for one in await deliveries(hook)]
        receiver.answers(200)
        await database.fetch("UPDATE queueing_webhookendpoint SET rest_until = now() WHERE id = %s", [hook.pk])
        await make_due(hook)
        await until(hook, "delivered", count=2)

    assert 110 < wait < 125
    assert timedelta(seconds=105) < rest < timedelta(seconds=121)
    assert waiting == [("pending", 1), ("pending", 0)]


async def seconds_to_go_first(hook) -> float:
    sql = """SELECT extract(epoch FROM run_at - now())::float8 FROM queueing_webhookdelivery WHERE endpoint_id = %s
        ORDER BY id LIMIT 1"""
    return (await database.fetch(sql, [hook.pk]))[0][0]


async def test_a_response_410_ends_the_delivery_at_once(tenant, receiver):
    receiver.answers(410)
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():

        async def off() -> bool:
            return not (await again(hook)).enabled

        await eventually(off)

    standing = await again(hook)
    dead, note = await deliveries(hook)
    assert standing.disabled_reason == "The receiver answered 410 Gone: it accepts no more messages."
    assert (dead.status, dead.attempt) == ("dead", 1)
    assert (note.type, note.status) == ("endpoint.disabled", "noted")


async def test_an_unreachable_receiver_is_explained(tenant):
    async with Receiver() as receiver:
        url = receiver.url
    hook = await endpoint(tenant, url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        failed = await until_tried(hook)

    assert failed.error.startswith("no connection: ")
    assert failed.answer is None


async def test_a_large_response_is_truncated_and_counts_as_delivered(tenant, receiver):
    receiver.answers(200, b"x" * 300_000)
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        [done] = await until(hook, "delivered")

    [made] = await tries(done)
    assert made.body == "x" * 2048


async def test_a_response_with_a_content_encoding_is_logged_as_received(tenant, receiver):
    receiver.answers(200, b"\x1f\x8b\x08\0 bomb", content_encoding="gzip")
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        [done] = await until(hook, "delivered")

    [made] = await tries(done)
    assert receiver.heard[0].headers["accept-encoding"] == "identity"
    assert "bomb" in made.body
    assert made.headers["content-encoding"] == "gzip"


async def test_the_log_has_the_request_and_the_response(tenant, receiver):
    receiver.answers(503, b"come back later", x_server="theirs", set_cookie="session=1")
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        failed = await until_tried(hook)

    [made] = await tries(failed)
    assert (made.number, made.answer, made.body, made.error) == (1, 503, "come back later", "answered 503")
    assert made.headers["x-server"] == "theirs"
    assert "set-cookie" not in made.headers
    assert made.signature == receiver.heard[0].headers["webhook-signature"]
    assert str(int(made.signed_at.timestamp())) == receiver.heard[0].headers["webhook-timestamp"]
    assert json.loads(failed.body) == receiver.heard[0].message


async def test_an_endpoint_is_disabled_after_five_days_of_failures(tenant, receiver):
    receiver.answers(500)
    hook = await endpoint(tenant, receiver.url, "payment.succeeded")
    await something_happens(tenant)

    async with delivering():
        await until_tried(hook)
        first = await again(hook)
        await database.fetch(
            "UPDATE queueing_webhookendpoint SET failing_since = now() - interval '121 hours' WHERE id = %s", [hook.pk]
        )
        await make_due(hook)
        await until_tried(hook, attempts=2)
        after_one_event = await again(hook)
        await something_happens(tenant)

        async def off() -> bool:
            return not (await again(hook)).enabled

        await eventually(off)

    entries = await in_thread(
        lambda: list(AuditEntry.objects.order_by("id").values_list("action", "actor", "tenant_id"))
    )
    assert first.enabled
    assert first.failing_since is not None
    assert after_one_event.enabled  # it may be the event
    assert entries[-1] == ("endpoint.disable", "webhooks", tenant.pk)
    assert (await deliveries(hook))[-1].type == "endpoint.disabled"


async def test_a_successful_delivery_resets_the_count_of_failures(tenant, receiver):
    receiver.answers_by(lambda heard: response(500 if heard.type == "payment.queued" else 200))
    hook = await endpoint(tenant, receiver.url)
    await database.fetch(
        "UPDATE queueing_webhookendpoint SET failing_since = now() - interval '119 hours' WHERE id = %s", [hook.pk]
    )
    payment = await in_thread(make_payment, tenant, status=FAILED)

    async with delivering():

        async def both_tried() -> bool:
            return [d.attempt for d in await deliveries(hook)] == [1, 1]

        await eventually(both_tried)
        await events(payment, 3, 3)

        async def well() -> bool:
            return (await deliveries(hook))[-1].status == "delivered" and (await again(hook)).failing_since is None

        await eventually(well)

    assert (await again(hook)).enabled


async def test_the_documented_verification_accepts_our_requests_and_refuses_forged_ones(tenant, receiver):
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    shown: dict = {}
    exec(next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def verify" in block), shown)
    hook = await endpoint(tenant, receiver.url, "payment.queued")
    await something_happens(tenant)

    async with delivering():
        await until(hook, "delivered")

    [heard] = receiver.heard
    old = {**heard.headers, "webhook-timestamp": "1600000000"}
    assert shown["verify"](hook.secret, heard.headers, heard.body)
    assert not shown["verify"](hook.secret, heard.headers, heard.body + b" ")
    assert not shown["verify"](hook.secret, old, heard.body)
    assert not shown["verify"]("whsec_" + "A" * 32, heard.headers, heard.body)
