"""Events about payment intents: a worker asks Stripe again only if Stripe's state differs from ours."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from payments.inbound.work import InboundWork
from queueing.work.drain import Drain
from registry.data import database
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api
from tests.factories import in_thread, make_stripe
from tests.payments.inbound import deliver, event, handled, handling, rows
from tests.settling import settle_one, settle_until

SECURE = "pm_card_threeDSecure2Required"


@pytest.fixture
async def stripe(tenant) -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as sandbox:
        sandbox.account = await in_thread(make_stripe, tenant, sandbox.url)
        yield sandbox


@pytest.fixture
async def work():
    async with handling() as work:
        yield work


def about(intent, **fields):
    """An event about the intent in its current state."""
    return event("payment_intent.whatever", {**intent}, **fields)


async def arrives(server, stripe: SandboxStripe, what) -> None:
    assert (await deliver(server, stripe.account, what, secrets=(stripe.webhook_secret,)))[0] == 200


async def waiting_for_its_payer(api: Api, stripe: SandboxStripe) -> tuple[dict, dict]:
    """A payment that requires authentication, and its intent."""
    payment = await api.pay(paymentMethod=SECURE)
    await settle_one(api, payment, "requires_action")
    return payment, stripe.all("payment_intent")[-1]


async def timeline(api: Api, payment: dict) -> list[str]:
    return [step["status"] for step in (await api.detail(payment["correlationId"]))["timeline"]]


async def test_a_webhook_of_stripe_settles_a_payment_that_the_payer_authenticated(server, api, worker, tenant, stripe):
    """End to end: sent by Stripe, stored, handled, looked up, booked."""
    stripe.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")
    inbound = InboundWork()
    drain = Drain(inbound)
    working = asyncio.create_task(drain.run(seconds=60))
    payment = await api.pay(paymentMethod=SECURE)
    await api.until(payment["correlationId"], "requires_action")

    await stripe.authenticates(stripe.all("payment_intent")[-1]["id"])
    await api.until(payment["correlationId"], "succeeded")

    drain.stop()
    await working
    await inbound.close()
    assert await timeline(api, payment) == ["queued", "processing", "requires_action", "processing", "succeeded"]


async def test_an_event_that_changes_nothing_leaves_no_trace_on_the_timeline(server, api, tenant, stripe, work):
    payment, intent = await waiting_for_its_payer(api, stripe)
    for _ in range(3):
        await arrives(server, stripe, about(intent))

    await handled(work)

    assert await rows(tenant, "status, outcome, payment_id IS NOT NULL") == [("done", "nothing new", True)] * 3
    assert await timeline(api, payment) == ["queued", "processing", "requires_action"]


async def test_an_old_event_makes_a_worker_read_the_current_state(server, api, tenant, stripe, work):
    payment, intent = await waiting_for_its_payer(api, stripe)
    old = about(intent)
    await stripe.authenticates(intent["id"])
    await arrives(server, stripe, old)

    await handled(work)

    await settle_one(api, payment, "succeeded")
    assert await rows(tenant, "outcome") == ["looked at again"]


async def test_an_event_about_a_final_payment_changes_nothing_and_starts_no_look_up(server, api, tenant, stripe, work):
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_one(api, payment, "succeeded")
    [intent] = stripe.all("payment_intent")
    await arrives(server, stripe, about(intent))
    asked = len(stripe.received())

    await handled(work)

    assert await rows(tenant, "status, outcome") == [("done", "nothing new")]
    assert len(stripe.received()) == asked


async def test_a_payment_that_a_worker_has_leased_is_looked_up_later(server, api, tenant, stripe, work):
    payment = await api.pay(paymentMethod="pm_card_visa")
    await database.fetch(
        "UPDATE payments_payment SET status = 'processing', lease_id = 1, leased_until = now() + interval '1 minute'"
    )
    await arrives(server, stripe, about(labelled(tenant, payment["correlationId"])))

    await handled(work)

    assert await rows(tenant, "status, error") == [("received", "a worker has leased the payment")]


def labelled(tenant, correlation_id: str, **fields):
    metadata = {"registry_payment": correlation_id, "registry_tenant": str(tenant.pk), **fields}
    return {"id": "pi_1", "object": "payment_intent", "metadata": metadata}


async def test_an_event_of_a_payment_that_is_not_stored_yet_is_retried(server, tenant, stripe, work):
    await arrives(server, stripe, about(labelled(tenant, str(uuid4()))))

    await handled(work)

    assert await rows(tenant, "status, error") == [("received", "there is no such payment yet")]


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {},
        {"order": "6735"},
        {"registry_payment": "2f0e5be5-3a61-4a35-9e5b-95f8a5a5f1c1"},
        {"registry_payment": "2f0e5be5-3a61-4a35-9e5b-95f8a5a5f1c1", "registry_tenant": "0"},
        {"registry_payment": "no id", "registry_tenant": "mine"},
        {"registry_payment": 7, "registry_tenant": "mine"},
    ],
    ids=str,
)
async def test_payments_made_by_others_at_the_same_account_are_ignored(server, tenant, stripe, work, labels):
    labels = {**labels, "registry_tenant": str(tenant.pk)} if labels and "mine" in labels.values() else labels
    await arrives(server, stripe, about({"id": "pi_1", "object": "payment_intent", "metadata": labels}))

    await handled(work)

    assert await rows(tenant, "status, outcome") == [("done", "not ours")]


async def test_while_stripe_fails_the_event_waits(server, api, tenant, stripe, work):
    payment, intent = await waiting_for_its_payer(api, stripe)
    stripe.fails("error_before", on="GET /v1/payment_intents/*")
    await arrives(server, stripe, about(intent))

    await handled(work)

    [(status, error)] = await rows(tenant, "status, error")
    assert status == "received"
    assert error.startswith("stripe gave no clear answer")
    assert await timeline(api, payment) == ["queued", "processing", "requires_action"]


async def test_the_look_up_and_the_outcome_of_the_event_are_one_transaction(
    server, api, tenant, stripe, work, monkeypatch
):
    payment, intent = await waiting_for_its_payer(api, stripe)
    await stripe.authenticates(intent["id"])
    await arrives(server, stripe, about(intent))
    monkeypatch.setattr("payments.inbound.payments.lifecycle.look_again_within", looks_and_fails)

    await handled(work)

    assert await rows(tenant, "status, error") == [("received", "RuntimeError: the disk is full")]
    assert await timeline(api, payment) == ["queued", "processing", "requires_action"]
    monkeypatch.undo()
    await database.fetch("UPDATE payments_inboundevent SET run_at = now()")
    await handled(work)
    await settle_one(api, payment, "succeeded")


async def looks_and_fails(conn, *, tenant_id: int, correlation_ids: list[UUID]):
    await conn.execute("UPDATE payments_payment SET status = 'processing' WHERE tenant_id = %s", [tenant_id])
    raise RuntimeError("the disk is full")


async def test_a_changed_action_at_stripe_is_stored(server, api, tenant, stripe, work):
    """The payer failed to authenticate: now it waits for another method."""
    payment, intent = await waiting_for_its_payer(api, stripe)
    await stripe.authenticates(intent["id"], passed=False)
    await arrives(server, stripe, about(intent))

    await handled(work)

    async def taken_over() -> bool:
        return (await api.status(payment["correlationId"]))["status"] in ("failed", "canceled", "requires_action") and (
            await timeline(api, payment)
        )[3:4] == ["processing"]

    await settle_until(tenant, taken_over)
