"""The sandbox's controls, as another process uses them."""

import pytest
import stripe as library

from tests.bed.stripe import SandboxStripe
from tests.conftest import eventually

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


async def test_a_fault_is_set_and_seen_and_taken_away(client, http):
    await told(http, "faults", trouble="rate_limit", on="POST /v1/payment_intents")
    with pytest.raises(library.RateLimitError):
        await client.payment_intents.create_async(VISA)

    async with http.delete("/sandbox/control/faults"):
        intent = await client.payment_intents.create_async(VISA)

    assert intent.status == "succeeded"


async def test_what_was_received_is_listed_with_its_keys(client, http):
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


async def test_a_control_that_nobody_knows_is_refused(http):
    async with http.post("/sandbox/control/faults", json={"trouble": "earthquake"}) as answer:
        assert answer.status == 400
