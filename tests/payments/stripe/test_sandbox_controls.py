"""The sandbox's controls, as another process uses them."""

import pytest
import stripe as library

from tests.bed.stripe import SandboxStripe
from tests.conftest import eventually
from tests.registry.raw_http import all_of, line, status_of

VISA = {
    "amount": 1990,
    "currency": "brl",
    "allowed_payment_method_types": ["card"],
    "payment_method": "pm_card_visa",
    "confirm": True,
}


async def told(http, path: str, **body) -> dict:
    async with http.post(f"/sandbox/control/{path}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_a_fault_is_set_takes_effect_and_is_removed(client, http):
    await told(http, "faults", trouble="rate_limit", on="POST /v1/payment_intents")
    with pytest.raises(library.RateLimitError):
        await client.payment_intents.create_async(VISA)

    async with http.delete("/sandbox/control/faults"):
        intent = await client.payment_intents.create_async(VISA)

    assert intent.status == "succeeded"


async def test_received_requests_are_listed_with_their_keys(client, http):
    await client.payment_intents.create_async(VISA, {"idempotency_key": "k-1"})

    async with http.get("/sandbox/control/received") as answer:
        (seen,) = await answer.json()

    assert (seen["method"], seen["path"], seen["idempotencyKey"]) == ("POST", "/v1/payment_intents", "k-1")


async def test_a_dispute_is_opened_and_won(client, http, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(VISA)

    dispute = await told(http, "disputes", charge=intent.latest_charge, reason="duplicate")
    closed = await told(http, f"disputes/{dispute['id']}/close", won=True)

    assert (dispute["status"], closed["status"]) == ("needs_response", "won")
    assert {"charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated"} <= {
        event["type"] for event in stripe.all("event")
    }


async def test_an_event_is_sent_again(client, http, stripe: SandboxStripe, listening):
    await client.payment_intents.create_async(VISA)
    await eventually(lambda: "payment_intent.succeeded" in listening.types)
    event = next(event for event in stripe.all("event") if event["type"] == "payment_intent.succeeded")

    await told(http, "resend", events=[event["id"]])

    await eventually(lambda: listening.types.count("payment_intent.succeeded") == 2)


async def test_the_publishable_key_controls_nothing(stripe: SandboxStripe, http):
    headers = {"Authorization": f"Bearer {stripe.sandbox.publishable_key}"}

    async with http.get("/sandbox/control/received", headers=headers) as answer:
        assert answer.status == 401


async def test_an_unknown_control_is_refused(http):
    async with http.post("/sandbox/control/faults", json={"trouble": "earthquake"}) as answer:
        assert answer.status == 400


async def test_requests_beyond_the_limits_are_refused_and_the_server_continues(client, stripe: SandboxStripe):
    """Its server is ours: a head within limits, a body within limits, and an answer that can be read."""
    head = b"POST /v1/payment_intents HTTP/1.1\r\nHost: x\r\n"
    large_head = await all_of(stripe.url, head + b"A: " + b"x" * 70_000)
    large_body = await all_of(stripe.url, head + b"Content-Length: 9000000\r\n\r\n" + b"x" * 2_000_000)

    assert (status_of(large_head), status_of(large_body)) == (431, 413)
    assert (await client.payment_intents.create_async(VISA)).status == "succeeded"


async def test_a_truncated_body_is_refused(client, http, stripe: SandboxStripe):
    half = b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nname=half"
    async with line(stripe.url) as (_, writer):
        writer.write(half)
        await writer.drain()

    await client.payment_intents.create_async(VISA)
    async with http.get("/sandbox/control/received") as answer:
        assert [seen["path"] for seen in await answer.json()] == ["/v1/payment_intents"]
