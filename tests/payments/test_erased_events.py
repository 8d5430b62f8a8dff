"""Events of Stripe about a payment, its refunds and disputes are erased with it."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from payments.models import InboundEvent
from registry.data import database
from registry.models import Tenant
from registry.tenants import erasure
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_stripe
from tests.payments.refunding import ask, hearing, paying_back, until_all

OF_RETURNS = ("refund.", "charge.refunded", "charge.dispute.")  # what a worker handles beside the payment itself


@pytest.fixture
async def stripe(tenant, server) -> AsyncIterator[SandboxStripe]:
    """The tenant's account at the sandbox Stripe, which tells us of everything that happens there."""
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url)
        sandbox.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")
        yield sandbox


@pytest.fixture
async def payments(api: Api, tenant, worker, stripe) -> list[UUID]:
    """Two card payments that succeeded, were refunded in part, and are disputed; all that Stripe told of it is handled."""
    ids = [UUID((await api.pay("10.00", paymentMethod="pm_card_visa"))["correlationId"]) for _ in range(2)]
    async with hearing(), paying_back():
        for one in ids:
            await api.until(str(one), "succeeded")
            await ask(api, one, {"amount": "4.00"})
            await until_all(one, "returned")
        for intent in stripe.all("payment_intent"):
            await stripe.disputes(intent["latest_charge"])
        await eventually(lambda: all_handled(tenant, len(stripe.all("event"))))
    return ids


async def all_handled(tenant: Tenant, told: int) -> bool:
    sql = "SELECT count(*) FROM payments_inboundevent WHERE tenant_id = %s AND closed IS NOT NULL"
    return (await database.fetch(sql, [tenant.pk])) == [(told,)]


async def events(tenant: Tenant) -> list[InboundEvent]:
    return await in_thread(lambda: list(InboundEvent.objects.filter(tenant=tenant)))


async def test_events_of_refunds_and_disputes_know_their_payment(tenant, payments):
    found = [one for one in await events(tenant) if one.type.startswith(OF_RETURNS)]

    assert {one.type for one in found} >= {"charge.refunded", "charge.dispute.created"}
    assert [one.type for one in found if one.payment_id is None] == []


async def test_all_events_of_a_payment_are_erased_with_it_and_none_of_another(tenant, stripe, payments):
    erased, kept = (str(one).encode() for one in payments)
    intents = {one["metadata"]["registry_payment"].encode(): one["id"].encode() for one in stripe.all("payment_intent")}
    before = await events(tenant)

    async with database.own_connection():
        await erasure.erase_payments(tenant_id=tenant.pk, correlation_ids=payments[:1], actor="olga", reason="asked to")

    left = {one.pk: bytes(one.body) for one in await events(tenant)}
    assert "charge.succeeded" in {one.type for one in before}
    assert [body for body in left.values() if erased in body or intents[erased] in body] == []
    of_the_other = [one.pk for one in before if intents[kept] in bytes(one.body)]
    assert of_the_other
    assert all(left[pk] for pk in of_the_other)
