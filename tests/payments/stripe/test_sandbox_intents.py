"""The sandbox's payment intents, through the real library."""

import pytest
import stripe as library

from tests.bed.stripe import SandboxStripe

CARD = {"amount": 1990, "currency": "brl", "allowed_payment_method_types": ["card"]}
VISA = {**CARD, "payment_method": "pm_card_visa", "confirm": True}
SECURE = {**VISA, "payment_method": "pm_card_threeDSecure2Required", "return_url": "https://shop.example/back"}


async def test_a_good_card_succeeds_at_once(client):
    intent = await client.payment_intents.create_async({**VISA, "expand": ["latest_charge"]})

    assert (intent.status, intent.amount_received, intent.latest_charge.paid) == ("succeeded", 1990, True)


async def test_the_fee_is_part_of_the_charge(client):
    params = {**VISA, "capture_method": "automatic", "expand": ["latest_charge.balance_transaction"]}

    intent = await client.payment_intents.create_async(params)

    booked = intent.latest_charge.balance_transaction
    assert (booked.amount, booked.fee, booked.net) == (1990, 88, 1902)


async def test_an_intent_without_a_method_waits_for_one(client):
    created = await client.payment_intents.create_async(CARD)

    confirmed = await client.payment_intents.confirm_async(created.id, {"payment_method": "pm_card_visa"})

    assert (created.status, confirmed.status) == ("requires_payment_method", "succeeded")


async def test_a_card_that_requires_authentication_redirects_to_a_page(client, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(SECURE)

    action = intent.next_action
    assert (intent.status, action.type) == ("requires_action", "redirect_to_url")
    assert action.redirect_to_url.url.startswith(f"{stripe.url}/sandbox/3ds/{intent.id}?")


async def test_after_authentication_the_intent_succeeds(client, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(SECURE)

    await stripe.authenticates(intent.id)

    assert (await client.payment_intents.retrieve_async(intent.id)).status == "succeeded"


async def test_a_failed_authentication_removes_the_method_of_the_intent(client, stripe: SandboxStripe):
    intent = await client.payment_intents.create_async(SECURE)

    await stripe.authenticates(intent.id, passed=False)

    intent = await client.payment_intents.retrieve_async(intent.id)
    assert intent.status == "requires_payment_method"
    assert intent.last_payment_error.code == "payment_intent_authentication_failure"


async def test_off_session_no_authentication_is_possible(client):
    with pytest.raises(library.CardError) as declined:
        await client.payment_intents.create_async({**SECURE, "off_session": True})

    assert declined.value.error.code == "authentication_required"


@pytest.mark.parametrize(
    "card, code, decline_code",
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ],
)
async def test_a_declined_card_is_an_error_that_carries_the_intent(client, card, code, decline_code):
    with pytest.raises(library.CardError) as declined:
        await client.payment_intents.create_async({**VISA, "payment_method": card})

    error = declined.value.error
    assert (error.code, error.decline_code) == (code, decline_code)
    assert error.payment_intent.status == "requires_payment_method"


async def test_an_amount_that_is_held_can_be_captured_in_part(client):
    held = await client.payment_intents.create_async({**VISA, "capture_method": "manual"})

    captured = await client.payment_intents.capture_async(held.id, {"amount_to_capture": 1000})

    assert (held.status, held.amount_capturable) == ("requires_capture", 1990)
    assert (captured.status, captured.amount_received) == ("succeeded", 1000)


async def test_more_than_is_authorized_cannot_be_captured(client):
    held = await client.payment_intents.create_async({**VISA, "capture_method": "manual"})

    with pytest.raises(library.InvalidRequestError) as refused:
        await client.payment_intents.capture_async(held.id, {"amount_to_capture": 1991})

    assert refused.value.error.code == "amount_too_large"


async def test_a_waiting_intent_can_be_canceled_and_then_never_paid(client):
    waiting = await client.payment_intents.create_async(SECURE)

    canceled = await client.payment_intents.cancel_async(waiting.id)

    assert canceled.status == "canceled"
    with pytest.raises(library.InvalidRequestError) as refused:
        await client.payment_intents.confirm_async(waiting.id, {"payment_method": "pm_card_visa"})
    assert refused.value.error.code == "payment_intent_unexpected_state"


async def test_a_succeeded_intent_cannot_be_canceled(client):
    intent = await client.payment_intents.create_async(VISA)

    with pytest.raises(library.InvalidRequestError) as refused:
        await client.payment_intents.cancel_async(intent.id)

    assert refused.value.error.payment_intent.status == "succeeded"


async def test_a_list_is_read_page_by_page_the_newest_first(client):
    made = [(await client.payment_intents.create_async(CARD)).id for _ in range(5)]

    listed = await client.payment_intents.list_async({"limit": 2})

    assert listed.has_more
    assert [intent.id async for intent in listed.auto_paging_iter()] == made[::-1]


async def test_an_intent_is_found_by_its_metadata(client):
    intent = await client.payment_intents.create_async({**CARD, "metadata": {"registry_payment": "a-1"}})
    await client.payment_intents.create_async({**CARD, "metadata": {"registry_payment": "b-2"}})

    found = await client.payment_intents.search_async({"query": "metadata['registry_payment']:'a-1'"})

    assert [one.id for one in found.data] == [intent.id]


@pytest.mark.parametrize(
    "wrong, code",
    [
        ({"amuont": 5}, "parameter_unknown"),
        ({"transfer_data": {"destiny": "acct_1"}}, "parameter_unknown"),
        ({"amount": 49}, "amount_too_small"),
        ({"amount": "19.90"}, "parameter_invalid_integer"),
        ({"description": "x", "currency": ""}, "parameter_invalid_empty"),
        ({"payment_method": "pm_nobodys"}, "resource_missing"),
        ({"customer": "cus_nobodys"}, "resource_missing"),
    ],
)
async def test_an_invalid_request_is_refused_and_leaves_nothing_behind(client, stripe: SandboxStripe, wrong, code):
    with pytest.raises(library.InvalidRequestError) as refused:
        await client.payment_intents.create_async({**CARD, **wrong})

    assert (refused.value.error.code, stripe.all("payment_intent")) == (code, [])


async def test_a_confirmation_that_may_redirect_needs_somewhere_to_return_to(client, stripe: SandboxStripe):
    with pytest.raises(library.InvalidRequestError) as refused:
        await client.payment_intents.create_async(
            {"amount": 1990, "currency": "brl", "payment_method": "pm_card_visa", "confirm": True}
        )

    assert (refused.value.error.param, stripe.all("payment_intent")) == ("return_url", [])


async def test_a_wrong_key_is_refused(stripe: SandboxStripe):
    from tests.payments.stripe.conftest import client_of, close

    intruder = client_of(stripe.url, "sk_test_somebody_else")

    with pytest.raises(library.AuthenticationError):
        await intruder.v1.payment_intents.create_async(CARD)
    await close(intruder)
