"""The same story through the real library against our sandbox and against localstripe, an independent one.

Where they differ the difference is named: an adapter's method that differs, or a test of one alone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import stripe as library

from tests.bed.localstripe import SECRET_KEY, localstripe
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import eventually
from tests.payments.stripe.conftest import Listening, client_of, close

VISA, SECURE, DECLINED = "pm_card_visa", "pm_card_threeDSecure2Required", "pm_card_chargeCustomerFail"


class Ours:
    """Cards by name; only cards are allowed, else a confirmation would want a return URL, as at Stripe."""

    extra = {"allowed_payment_method_types": ["card"]}

    def __init__(self, stripe: SandboxStripe, client: Any) -> None:
        self.stripe, self.url, self.client = stripe, stripe.url, client

    async def method(self, card: str) -> str:
        return card

    async def authenticate(self, intent: library.PaymentIntent, *, passed: bool) -> None:
        await self.stripe.authenticates(intent.id, passed=passed)

    async def listens(self, url: str) -> None:
        self.stripe.calls(url)


class Theirs:
    """localstripe: cards by number where it knows no name; the type of method is not asked."""

    extra: dict[str, Any] = {}
    numbers = {SECURE: "4000000000003220"}

    def __init__(self, url: str, client: Any) -> None:
        self.url, self.client = url, client

    async def method(self, card: str) -> str:
        if card not in self.numbers:
            return card
        made = {"number": self.numbers[card], "exp_month": 12, "exp_year": 2034, "cvc": "123"}
        return (await self.client.payment_methods.create_async({"type": "card", "card": made})).id

    async def authenticate(self, intent: library.PaymentIntent, *, passed: bool) -> None:
        """What its own Stripe.js does."""
        said = {"success": str(passed).lower(), "client_secret": intent.client_secret, "key": "pk_test_x"}
        async with aiohttp.ClientSession(self.url) as session:
            async with session.post(f"/v1/payment_intents/{intent.id}/_authenticate", data=said) as answer:
                assert answer.status == 200, await answer.text()

    async def listens(self, url: str) -> None:
        said = {"url": url, "secret": "whsec_bed"}
        async with aiohttp.ClientSession(self.url) as session:
            async with session.post("/_config/webhooks/ours", data=said) as answer:
                assert answer.status == 200


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    with localstripe() as url:
        yield url


@pytest.fixture(params=["ours", "theirs"])
async def played(request: pytest.FixtureRequest, theirs: str) -> AsyncIterator[Ours | Theirs]:
    if request.param == "theirs":
        client = client_of(theirs, SECRET_KEY)
        yield Theirs(theirs, client.v1)
        await close(client)
        return
    async with sandbox_stripe() as stripe:
        client = client_of(stripe.url, stripe.secret_key)
        yield Ours(stripe, client.v1)
        await close(client)


async def made(played: Ours | Theirs, card: str, **more: Any) -> library.PaymentIntent:
    asked = {"amount": 1990, "currency": "eur", "payment_method": await played.method(card), **played.extra, **more}
    return await played.client.payment_intents.create_async(asked)


async def test_a_payment_is_created_authenticated_and_refunded(played):
    intents, refunds = played.client.payment_intents, played.client.refunds
    intent = await made(played, SECURE, metadata={"registry_payment": "a-1"})
    assert (intent.status, intent.metadata["registry_payment"]) == ("requires_confirmation", "a-1")

    confirmed = await intents.confirm_async(intent.id)
    assert (confirmed.status, confirmed.next_action.type) == ("requires_action", "use_stripe_sdk")
    await played.authenticate(confirmed, passed=True)
    settled = await intents.retrieve_async(intent.id, {"expand": ["latest_charge.balance_transaction"]})
    assert (settled.status, settled.latest_charge.amount) == ("succeeded", 1990)

    await refunds.create_async({"payment_intent": intent.id, "amount": 990})
    await refunds.create_async({"payment_intent": intent.id, "amount": 1000, "metadata": {"order": "2"}})
    listed = await refunds.list_async({"payment_intent": intent.id})
    # Of what was made within a second localstripe lists the oldest first, Stripe and ours the newest.
    assert {(one.amount, one.status) for one in listed.data} == {(1000, "succeeded"), (990, "succeeded")}
    assert intent.id in {one.id for one in (await intents.list_async({"limit": 100})).data}


async def test_a_failed_authentication_leaves_the_intent_without_a_method(played):
    intent = await made(played, SECURE, confirm=True)

    await played.authenticate(intent, passed=False)

    found = await played.client.payment_intents.retrieve_async(intent.id)
    assert (found.status, found.payment_method) == ("requires_payment_method", None)
    assert found.last_payment_error.code == "payment_intent_authentication_failure"


async def test_an_amount_is_held_and_captured_in_part(played):
    held = await made(played, VISA, confirm=True, capture_method="manual")

    captured = await played.client.payment_intents.capture_async(held.id, {"amount_to_capture": 1000})

    assert (held.status, captured.status) == ("requires_capture", "succeeded")


async def test_a_decline_is_a_card_error(played):
    with pytest.raises(library.CardError) as declined:
        await made(played, DECLINED, confirm=True)

    assert declined.value.error.code == "card_declined"


async def test_a_waiting_payment_is_canceled(played):
    intent = await made(played, SECURE, confirm=True)

    assert (await played.client.payment_intents.cancel_async(intent.id)).status == "canceled"


async def test_an_unknown_object_is_missing(played):
    with pytest.raises(library.InvalidRequestError) as missing:
        await played.client.payment_intents.retrieve_async("pi_nobodys")

    assert missing.value.http_status == 404


async def test_events_carry_a_signature_that_the_library_accepts(played):
    listening = Listening()
    async with listening.open() as url:
        await played.listens(url)
        intent = await made(played, VISA, confirm=True)

        def told() -> bool:
            mine = [event.type for event in listening.events if event.data.object.id == intent.id]
            return "payment_intent.succeeded" in mine

        assert await eventually(told)


# -- Where they differ -----------------------------------------------------------------------------------------


async def test_localstripe_knows_no_idempotency_keys_and_ours_does(played):
    asked = {"amount": 1990, "currency": "eur", **played.extra}
    key = {"idempotency_key": "decision-1"}

    first, again = await asyncio.gather(
        *(played.client.payment_intents.create_async(asked, key) for _ in range(2)), return_exceptions=True
    )

    names = {one.id for one in (first, again) if isinstance(one, library.PaymentIntent)}
    assert len(names) == (1 if isinstance(played, Ours) else 2)


async def test_localstripe_refunds_more_than_was_paid_and_ours_does_not(played):
    intent = await made(played, VISA, confirm=True)
    asked = {"payment_intent": intent.id, "amount": 1500}
    await played.client.refunds.create_async(asked)

    if isinstance(played, Ours):
        with pytest.raises(library.InvalidRequestError):
            await played.client.refunds.create_async(asked)
    else:
        assert (await played.client.refunds.create_async(asked)).status == "succeeded"
