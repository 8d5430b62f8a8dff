"""The sandbox's events: signed, retried, delayed, repeated, shuffled, listed."""

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
    "capture_method": "automatic",
}
TYPES = {"payment_intent.created", "charge.succeeded", "payment_intent.succeeded"}


async def test_events_have_a_signature_that_the_library_accepts(client, listening):
    intent = await client.payment_intents.create_async(VISA, {"idempotency_key": "k-1"})

    await eventually(lambda: set(listening.types) == TYPES)

    told = next(event for event in listening.events if event.type == "payment_intent.succeeded")
    assert (told.data.object.id, told.request.idempotency_key) == (intent.id, "k-1")


async def test_a_changed_body_is_not_accepted_by_the_library(client, listening):
    await client.payment_intents.create_async(VISA)
    await eventually(lambda: listening.bodies)

    body, signature = listening.bodies[0]
    with pytest.raises(library.SignatureVerificationError):
        library.Webhook.construct_event(body.replace(b"1990", b"1991"), signature, "whsec_bed")


async def test_an_endpoint_that_fails_is_called_again(client, stripe: SandboxStripe, listening):
    listening.status = 500
    await client.payment_intents.create_async(VISA)
    await eventually(lambda: len(listening.bodies) >= 3)

    listening.status = 200

    await eventually(lambda: not any(event["pending_webhooks"] for event in stripe.all("event")))


async def test_events_can_be_delayed_repeated_and_shuffled(client, stripe: SandboxStripe, listening):
    stripe.webhooks.held, stripe.webhooks.copies = True, 3
    await client.payment_intents.create_async(VISA)

    stripe.webhooks.send_undelivered(shuffled=True)

    await eventually(lambda: len(listening.types) == 9)
    assert {listening.types.count(type_) for type_ in TYPES} == {3}


async def test_events_that_were_not_accepted_are_listed_as_undelivered(client, stripe: SandboxStripe, listening):
    stripe.webhooks.held = True
    await client.payment_intents.create_async(VISA)

    undelivered = await client.events.list_async({"delivery_success": False})
    delivered = await client.events.list_async({"delivery_success": True})

    assert ({event.type for event in undelivered.data}, delivered.data) == (TYPES, [])


async def test_events_are_listed_by_type(client):
    await client.payment_intents.create_async(VISA)

    listed = await client.events.list_async({"types": ["charge.*"]})

    assert [event.type for event in listed.data] == ["charge.succeeded"]


async def test_undelivered_events_are_delivered_after_a_restart(tmp_path, listening, stripe):
    from tests.bed.stripe import sandbox_stripe
    from tests.payments.stripe.conftest import client_of, close

    (hook,) = stripe.webhooks.listeners
    async with sandbox_stripe(data=tmp_path / "journal") as before:
        before.calls(hook.url)
        before.webhooks.held = True
        client = client_of(before.url, before.secret_key)
        await client.v1.payment_intents.create_async(VISA)
        await close(client)

    async with sandbox_stripe(data=tmp_path / "journal") as after:
        after.calls(hook.url)
        after.webhooks.send_undelivered()

        await eventually(lambda: set(listening.types) == TYPES)
