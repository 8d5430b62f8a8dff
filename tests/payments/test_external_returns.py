"""Refunds and disputes of external bookings are stored with them, whatever label they have at Stripe."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import stripe as library

from payments.books import ledger
from payments.inbound.decisions import MAX_TRIES
from payments.inbound.receive import ReceivedEvent, read_head, receive
from payments.inbound.work import InboundWork
from payments.models import Difference, Payment, Processor
from payments.reconciliation import comparison, operate
from registry.data import database
from registry.models import Tenant
from sandbox.webhooks import payload
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.factories import in_thread, make_stripe
from tests.payments.inbound import handled, handling, rows
from tests.payments.refunding import lines, sums
from tests.payments.test_inbound_work import make_dispute
from tests.settling import accept, settle_all

HOUR = timedelta(hours=1)
VISA = {
    "amount": 1990,
    "currency": "brl",
    "allowed_payment_method_types": ["card"],
    "payment_method": "pm_card_visa",
    "confirm": True,
}


class Account:
    """A tenant's account at Stripe, where others book and give back as well."""

    def __init__(self, tenant: Tenant, stripe: SandboxStripe, number: int, client: Any, work: InboundWork) -> None:
        self.tenant, self.stripe, self.number, self.client, self.work = tenant, stripe, number, client, work

    async def books(self, **metadata: str) -> str:
        """An intent that somebody else made, and was paid."""
        return (await self.client.payment_intents.create_async({**VISA, "metadata": metadata})).id

    async def can_refund(self, intent: str, amount: int) -> None:
        await self.client.refunds.create_async({"payment_intent": intent, "amount": amount})

    async def tells(self) -> None:
        """All its events arrive, and are handled once."""
        for event in self.stripe.all("event"):
            body = payload(event)
            await receive(ReceivedEvent(self.tenant.pk, self.number, read_head(body), body, "{}", "delivery"))
        await handled(self.work)

    async def hears_of(self, kind: str, id: str) -> None:
        """An event about an object of that id arrives."""
        body = json.dumps({"id": f"evt_{id}", "type": kind, "created": 1, "data": {"object": {"id": id}}}).encode()
        await receive(ReceivedEvent(self.tenant.pk, self.number, read_head(body), body, "{}", "delivery"))

    async def hears_again_to_the_last(self) -> None:
        """Twice, and once more after as many tries as an event has."""
        await self.hears_again()
        await self.hears_again()
        await database.fetch(
            "UPDATE payments_inboundevent SET attempt = tries_from + %s WHERE closed IS NULL", [MAX_TRIES - 1]
        )
        await self.hears_again()

    async def hears_again(self) -> None:
        await database.fetch("UPDATE payments_inboundevent SET run_at = now() WHERE closed IS NULL")
        await handled(self.work)


@pytest.fixture
async def account(tenant) -> AsyncIterator[Account]:
    async with sandbox_stripe() as stripe, handling() as work:
        processor = await in_thread(make_stripe, tenant, stripe.url)
        http = library.AIOHTTPClient()
        client = library.StripeClient(stripe.secret_key, base_addresses={"api": stripe.url}, http_client=http)
        yield Account(tenant, stripe, processor.pk, client.v1, work)
        await http.close_async()


@pytest.fixture
async def payment(tenant, account) -> UUID:
    """One of our own, paid by card."""
    [one] = await accept(tenant, method={"paymentMethod": "pm_card_visa"})
    await settle_all(tenant)
    return one


async def taken_in(tenant: Tenant) -> UUID:
    """Compare the books, and take the one booking that only Stripe has into ours."""
    now = datetime.now(UTC)
    [account] = await comparison.accounts_of(tenant.pk)
    await comparison.reconcile(account, comparison.Window(now - HOUR, now + HOUR))
    one = await in_thread(Difference.objects.get)
    assert await operate.book(difference_id=one.pk, actor="olga", reason="it was paid")
    return (await in_thread(Payment.objects.latest, "id")).correlation_id


def labels_of(tenant: Tenant, payment: UUID) -> dict[str, str]:
    return {"registry_tenant": str(tenant.pk), "registry_payment": str(payment)}


async def is_sound(tenant: Tenant) -> bool:
    return (await ledger.prove(tenant_id=tenant.pk)).sound


@pytest.mark.parametrize("labelled", [True, False], ids=["with the label of another payment", "without a label"])
async def test_a_refund_of_a_booking_taken_as_external_is_stored_with_it(tenant, account, payment, labelled):
    intent = await account.books(**labels_of(tenant, payment) if labelled else {})
    external = await taken_in(tenant)

    await account.can_refund(intent, 300)
    await account.tells()

    assert (await sums(external), await sums(payment)) == ((300, 300), (0, 0))
    assert set(await rows(tenant, "status")) == {"done"}
    assert await is_sound(tenant)


async def test_a_dispute_of_a_booking_taken_as_external_is_stored_with_it(tenant, account, payment):
    intent = await account.books(**labels_of(tenant, payment))
    external = await taken_in(tenant)

    await account.stripe.disputes(account.stripe[intent]["latest_charge"])
    await account.tells()

    assert await lines(external, "dispute") == [("balance", 1990), ("processor", -1990)]
    assert await lines(payment, "dispute") == []
    assert await is_sound(tenant)


async def test_a_refund_waits_until_its_booking_is_taken_as_external_and_changes_no_other_payment(
    tenant, account, payment
):
    intent = await account.books(**labels_of(tenant, payment))
    await account.can_refund(intent, 300)

    await account.tells()
    before = await sums(payment)
    external = await taken_in(tenant)
    await account.hears_again()

    assert before == (0, 0)
    assert (await sums(external), await sums(payment)) == ((300, 300), (0, 0))


async def test_a_refund_of_our_own_payment_is_stored_with_that_payment(tenant, account, payment):
    [intent] = account.stripe.all("payment_intent")

    await account.can_refund(intent["id"], 300)
    await account.tells()

    assert await sums(payment) == (300, 300)


async def test_refunds_of_bookings_made_by_others_are_ignored(tenant, account, payment):
    await account.can_refund(await account.books(), 300)

    await account.tells()

    assert await sums(payment) == (0, 0)
    assert set(await rows(tenant, "status")) == {"done"}


async def test_an_event_about_an_object_that_the_account_does_not_have_is_finally_ignored(tenant, account):
    for kind, id in (("refund.updated", "re_x"), ("charge.dispute.created", "du_x")):
        await account.hears_of(kind, id)

    await account.hears_again_to_the_last()

    ended = ("done", "ignored", "stripe has no object with this id")
    assert await rows(tenant, "status, outcome, error") == [ended] * 2


async def test_an_event_about_a_dispute_of_ours_that_the_account_lost_is_not_ignored(tenant, account, payment):
    processor = await Processor.async_objects.aget(pk=account.number)
    ours = await Payment.async_objects.select_related("tenant").aget(correlation_id=payment)
    await in_thread(make_dispute, ours, processor, "du_x")
    await account.hears_of("charge.dispute.updated", "du_x")

    await account.hears_again_to_the_last()

    assert await rows(tenant, "status, error") == [("received", "stripe has no object with this id")]
