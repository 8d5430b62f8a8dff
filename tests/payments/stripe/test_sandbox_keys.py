"""The sandbox's idempotency keys and its faults: what a client sees when an answer is lost."""

import asyncio

import pytest
import stripe as library

from tests.bed.stripe import SandboxStripe
from tests.conftest import eventually

CARD = {"amount": 1990, "currency": "brl", "allowed_payment_method_types": ["card"]}
VISA = {**CARD, "payment_method": "pm_card_visa", "confirm": True}
KEY = {"idempotency_key": "decision-1"}


async def test_the_same_request_under_the_same_key_is_executed_once(client, stripe: SandboxStripe):
    first = await client.payment_intents.create_async(VISA, KEY)

    again = await client.payment_intents.create_async(VISA, KEY)

    assert (again.id, again.last_response.headers["idempotent-replayed"]) == (first.id, "true")
    assert len(stripe.all("charge")) == 1


async def test_another_request_under_the_same_key_is_refused(client):
    await client.payment_intents.create_async(VISA, KEY)

    with pytest.raises(library.IdempotencyError):
        await client.payment_intents.create_async({**VISA, "amount": 1991}, KEY)


async def test_a_decline_is_replayed_under_its_key(client, stripe: SandboxStripe):
    declined = {**VISA, "payment_method": "pm_card_chargeDeclined"}
    with pytest.raises(library.CardError):
        await client.payment_intents.create_async(declined, KEY)

    with pytest.raises(library.CardError):
        await client.payment_intents.create_async(declined, KEY)

    assert len(stripe.all("charge")) == 1


async def test_an_invalid_request_does_not_use_its_key(client):
    with pytest.raises(library.InvalidRequestError):
        await client.payment_intents.create_async({**VISA, "amuont": 1}, KEY)

    intent = await client.payment_intents.create_async(VISA, KEY)

    assert intent.status == "succeeded"


async def test_a_key_in_use_is_a_conflict(client, stripe: SandboxStripe):
    stripe.fails("slow_after", times=1, seconds=0.3)
    first = asyncio.create_task(client.payment_intents.create_async(VISA, KEY))
    await eventually(lambda: stripe.all("charge"))

    with pytest.raises(library.APIError) as conflict:
        await client.payment_intents.create_async(VISA, KEY)

    assert (conflict.value.http_status, conflict.value.error.code) == (409, "idempotency_key_in_use")
    assert (await first).status == "succeeded"


async def test_a_key_is_forgotten_after_a_day(client, stripe: SandboxStripe):
    first = await client.payment_intents.create_async(VISA, KEY)
    await stripe.puts_clock_forward(24 * 3600)

    again = await client.payment_intents.create_async(VISA, KEY)

    assert again.id != first.id


@pytest.mark.parametrize("trouble, executed", [("drop_before", 0), ("drop_after", 1)])
async def test_a_lost_connection_may_be_before_or_after_the_execution(client, stripe: SandboxStripe, trouble, executed):
    stripe.fails(trouble, on="POST /v1/payment_intents", times=1)

    with pytest.raises(library.APIConnectionError):
        await client.payment_intents.create_async(VISA, KEY)

    assert len(stripe.all("charge")) == executed
    assert (await client.payment_intents.create_async(VISA, KEY)).status == "succeeded"
    assert len(stripe.all("charge")) == 1


async def test_a_500_after_the_execution_is_kept_under_its_key(client, stripe: SandboxStripe):
    stripe.fails("error_after", times=1)
    for _ in range(2):
        with pytest.raises(library.APIError):
            await client.payment_intents.create_async(VISA, KEY)

    assert [intent["status"] for intent in stripe.all("payment_intent")] == ["succeeded"]


async def test_a_500_without_an_execution_can_be_kept_under_its_key_as_well(client, stripe: SandboxStripe):
    stripe.fails("error_kept", times=1)
    for _ in range(2):
        with pytest.raises(library.APIError):
            await client.payment_intents.create_async(VISA, KEY)

    assert stripe.all("payment_intent") == []
    assert (await client.payment_intents.create_async(VISA, {"idempotency_key": "decision-2"})).status == "succeeded"


@pytest.mark.parametrize("trouble, error", [("error_before", library.APIError), ("rate_limit", library.RateLimitError)])
async def test_requests_refused_before_the_execution_can_be_repeated(client, stripe: SandboxStripe, trouble, error):
    stripe.fails(trouble, times=1)
    with pytest.raises(error):
        await client.payment_intents.create_async(VISA, KEY)

    assert (await client.payment_intents.create_async(VISA, KEY)).status == "succeeded"


async def test_received_requests_can_be_read(client, stripe: SandboxStripe):
    await client.payment_intents.create_async({**CARD, "metadata": {"order": "7"}}, KEY)

    (seen,) = stripe.received("POST /v1/payment_intents")
    assert (seen.idempotency_key, seen.params["metadata[order]"], seen.status) == ("decision-1", "7", 200)


async def test_an_account_survives_a_restart_with_its_keys(tmp_path):
    from tests.bed.stripe import sandbox_stripe
    from tests.payments.stripe.conftest import client_of, close

    ids = []
    for _ in range(2):
        async with sandbox_stripe(data=tmp_path / "stripe.journal") as stripe:
            client = client_of(stripe.url, stripe.secret_key)
            ids.append((await client.v1.payment_intents.create_async(VISA, KEY)).id)
            await close(client)

    assert (len(stripe.all("charge")), ids[0]) == (1, ids[1])
