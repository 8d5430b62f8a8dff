"""The sandbox's refunds and disputes, through the real library."""

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


async def paid(client, card: str = "pm_card_visa") -> library.PaymentIntent:
    return await client.payment_intents.create_async({**VISA, "payment_method": card})


async def test_a_payment_is_refunded_in_parts(client):
    intent = await paid(client)

    first = await client.refunds.create_async({"payment_intent": intent.id, "amount": 1000})
    rest = await client.refunds.create_async({"payment_intent": intent.id})

    assert (first.status, rest.amount) == ("succeeded", 990)
    assert (await client.charges.retrieve_async(intent.latest_charge)).refunded


async def test_a_refund_above_the_rest_is_refused(client):
    intent = await paid(client)
    await client.refunds.create_async({"payment_intent": intent.id, "amount": 1000})

    with pytest.raises(library.InvalidRequestError) as refused:
        await client.refunds.create_async({"payment_intent": intent.id, "amount": 991})

    assert refused.value.error.param == "amount"


async def test_a_fully_refunded_payment_is_not_refunded_again(client):
    intent = await paid(client)
    await client.refunds.create_async({"payment_intent": intent.id})

    with pytest.raises(library.InvalidRequestError) as refused:
        await client.refunds.create_async({"payment_intent": intent.id, "amount": 1})

    assert refused.value.error.code == "charge_already_refunded"


async def test_an_unpaid_payment_is_not_refunded(client):
    intent = await client.payment_intents.create_async({"amount": 1990, "currency": "brl"})

    with pytest.raises(library.InvalidRequestError):
        await client.refunds.create_async({"payment_intent": intent.id})


@pytest.mark.parametrize("card, ends", [("pm_card_pendingRefund", "succeeded"), ("pm_card_refundFail", "failed")])
async def test_some_refunds_end_later(client, stripe: SandboxStripe, card, ends):
    intent = await paid(client, card)

    refund = await client.refunds.create_async({"payment_intent": intent.id})

    await eventually(lambda: stripe[refund.id]["status"] == ends)
    left = stripe[intent.latest_charge]["amount_refunded"]
    assert left == (1990 if ends == "succeeded" else 0)


async def test_refunds_are_listed_by_their_payment(client):
    intent, other = await paid(client), await paid(client)
    refund = await client.refunds.create_async({"payment_intent": intent.id, "metadata": {"order": "1"}})
    await client.refunds.create_async({"payment_intent": other.id})

    listed = await client.refunds.list_async({"payment_intent": intent.id})

    assert [(one.id, one.metadata["order"]) for one in listed.data] == [(refund.id, "1")]


async def test_a_disputed_charge_loses_its_money_and_a_fee(client, stripe: SandboxStripe):
    intent = await paid(client, "pm_card_createDispute")

    await eventually(lambda: stripe.all("dispute"))

    (dispute,) = (await client.disputes.list_async({"payment_intent": intent.id})).data
    (line,) = dispute.balance_transactions
    assert (dispute.status, line.amount, line.fee) == ("needs_response", -1990, 1500)
    with pytest.raises(library.InvalidRequestError) as refused:
        await client.refunds.create_async({"payment_intent": intent.id})
    assert refused.value.error.code == "charge_disputed"


@pytest.mark.parametrize("evidence, verdict", [("winning_evidence", "won"), ("losing_evidence", "lost")])
async def test_evidence_decides_a_dispute(client, stripe: SandboxStripe, evidence, verdict):
    intent = await paid(client)
    dispute = await stripe.disputes(intent.latest_charge)

    closed = await client.disputes.update_async(dispute["id"], {"evidence": {"uncategorized_text": evidence}})

    assert closed.status == verdict
    assert sum(line.amount for line in closed.balance_transactions) == (0 if verdict == "won" else -1990)
