"""Dunning of unpaid subscriptions: states, steps, transitions, and their effect on a tenant's keys."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from payments.billing import dunning, subscriptions
from payments.billing.advance import advance_all
from payments.models import Payment, Plan, Subscription
from payments.models.billing import Dunning, Paid
from registry.data import database
from registry.data.cache import STALE
from registry.models import AuditEntry, Tenant
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_tenant

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GRACE = timedelta(days=7)


def days_ago(days: int) -> datetime:
    return NOW - timedelta(days=days)


@pytest.mark.parametrize(
    ("status", "since", "step"),
    [
        (Paid.TRIALING, None, Dunning.NONE),
        (Paid.ACTIVE, None, Dunning.NONE),
        (Paid.ACTIVE, 30, Dunning.NONE),
        (Paid.PAST_DUE, None, Dunning.NOTICE),
        (Paid.PAST_DUE, 0, Dunning.NOTICE),
        (Paid.PAST_DUE, 6, Dunning.NOTICE),
        (Paid.PAST_DUE, 7, Dunning.REFUSED),
        (Paid.PAST_DUE, 300, Dunning.REFUSED),
        (Paid.UNPAID, None, Dunning.SUSPENDED),
        (Paid.CANCELED, None, Dunning.SUSPENDED),
    ],
    ids=str,
)
def test_every_state_has_a_dunning_step(status, since, step):
    found = dunning.step_of(status, past_due_since=None if since is None else days_ago(since), now=NOW, grace=GRACE)

    assert found == step


def test_every_pair_of_steps_that_a_state_can_lead_to_is_an_arrow():
    assert {(a, b) for a in Dunning for b in Dunning if a != b} - {
        (a, b) for a, targets in dunning.ARROWS.items() for b in targets
    } == set()


def test_every_step_is_explained_and_only_two_refuse_payments():
    assert set(dunning.CONSEQUENCES) == set(Dunning)
    assert {step for step, means in dunning.CONSEQUENCES.items() if means.refused} == {
        Dunning.REFUSED,
        Dunning.SUSPENDED,
    }
    assert {step for step, means in dunning.CONSEQUENCES.items() if not means.banner} == {Dunning.NONE}
    assert all(len(means.refused) <= 200 for means in dunning.CONSEQUENCES.values())


def test_every_status_of_stripe_is_known():
    words = {"incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"}

    assert set(dunning.STRIPE) == words
    assert set(dunning.STRIPE.values()) == set(Paid)


# -- What is written down ---------------------------------------------------------------------------------------------


@pytest.fixture
async def business() -> Plan:
    fields = {"name": "Business", "price": 9900, "trial_days": 14, "fee_share": "0.005"}
    return await in_thread(lambda: Plan.objects.create(slug=f"business-{uuid4().hex[:6]}", **fields))


@pytest.fixture
async def live() -> Tenant:
    return await in_thread(make_tenant, f"live-{uuid4().hex[:10]}", mode="live")


async def subscribed(tenant: Tenant, plan: Plan, **fields) -> None:
    await in_thread(lambda: Subscription.objects.create(tenant=tenant, plan=plan, **{"status": Paid.ACTIVE, **fields}))


async def advance(tenant: Tenant) -> Subscription:
    async with database.own_connection():
        await subscriptions.advance(tenant.pk)
    return await in_thread(lambda: Subscription.objects.get(pk=tenant.pk))


async def blocked(tenant: Tenant) -> str:
    return (await in_thread(Tenant.objects.get, pk=tenant.pk)).blocked


async def test_a_trial_that_ends_becomes_a_reminder_and_after_the_days_of_grace_a_refusal(live, business, settings):
    ended = datetime.now(UTC) - timedelta(hours=1)
    await subscribed(live, business, status=Paid.TRIALING, trial_end=ended)

    reminded = await advance(live)
    not_yet = await blocked(live)
    settings.BILLING_GRACE_DAYS = 0
    refused = await advance(live)

    assert (reminded.status, reminded.dunning, not_yet) == (Paid.PAST_DUE, Dunning.NOTICE, "")
    assert (reminded.past_due_since, refused.dunning) == (ended, Dunning.REFUSED)
    assert "past due" in await blocked(live)


async def test_a_trial_that_goes_on_changes_nothing_and_writes_nothing(live, business):
    await subscribed(live, business, status=Paid.TRIALING, trial_end=datetime.now(UTC) + timedelta(days=3))

    found = await advance(live)

    assert (found.status, found.dunning) == (Paid.TRIALING, Dunning.NONE)
    assert not await in_thread(AuditEntry.objects.exists)


async def test_a_subscription_at_stripe_is_not_ended_by_the_local_calendar(live, business):
    past = datetime.now(UTC) - timedelta(days=1)
    await subscribed(live, business, status=Paid.TRIALING, trial_end=past, stripe_subscription="sub_1")

    assert (await advance(live)).status == Paid.TRIALING


@pytest.mark.parametrize("mode", ["live", "sandbox"])
async def test_payments_of_a_suspended_tenant_are_refused_with_an_explanation_but_never_in_the_sandbox(
    server, business, mode
):
    tenant = await in_thread(make_tenant, f"{mode}-{uuid4().hex[:10]}", mode=mode)
    await subscribed(tenant, business, status=Paid.UNPAID)
    await advance(tenant)

    async with Api(server, await make_key(tenant)) as api:
        async with api.post("/payments", json={"amount": "1.00"}) as response:
            one, says = response.status, await response.json()
        async with api.post("/payments/batch", json={"items": [{"amount": "1.00"}]}) as response:
            many = response.status
        async with api.get("/payments") as response:
            read = response.status

    assert (one, many, read) == ((403, 403, 200) if mode == "live" else (202, 200, 200))
    if mode == "live":
        assert says["detail"] == dunning.CONSEQUENCES[Dunning.SUSPENDED].refused


async def test_a_suspended_tenant_that_repeats_an_accepted_payment_gets_it_as_before(server, live, business):
    async with Api(server, await make_key(live)) as before:
        paid = await before.pay("1.00")
    await subscribed(live, business, status=Paid.UNPAID)
    await advance(live)
    same, other, new = (
        {"correlationId": paid["correlationId"], "amount": "1.00"},
        {"correlationId": paid["correlationId"], "amount": "2.00"},
        {"correlationId": str(uuid4()), "amount": "1.00"},
    )

    async with Api(server, await make_key(live)) as api:  # a key that nobody has seen: nothing of it is remembered
        async with api.post("/payments", json=same) as response:
            replayed = response.status, response.headers.get("Idempotent-Replayed"), await response.json()
        async with api.post("/payments/batch", json={"items": [same]}) as response:
            batch = response.status, await response.json()
        refused = []
        for path, body in (
            ("/payments", other), ("/payments", new), ("/payments/batch", {"items": [same, new]}),
        ):  # fmt: skip
            async with api.post(path, json=body) as response:
                refused.append(response.status)

    assert replayed == (202, "true", paid)
    assert batch == (200, {"results": [{"correlationId": paid["correlationId"], "status": "replayed"}]})
    assert refused == [409, 403, 200]  # a batch has a verdict per item
    assert await in_thread(Payment.objects.filter(tenant=live).count) == 1


async def test_a_key_in_use_notices_within_a_second_that_the_invoice_was_paid(server, live, business):
    await subscribed(live, business, status=Paid.UNPAID)
    await advance(live)
    async with Api(server, await make_key(live)) as api:
        async with api.post("/payments", json={"amount": "1.00"}) as response:
            assert response.status == 403
        await in_thread(lambda: Subscription.objects.filter(pk=live.pk).update(status=Paid.ACTIVE))
        await advance(live)

        async def taken() -> bool:
            async with api.post("/payments", json={"amount": "1.00"}) as response:
                return response.status == 202

        await eventually(taken, within=10)  # of a busy machine
    assert STALE < 1


async def test_every_step_is_in_the_audit_trail_once(live, business):
    await subscribed(live, business, status=Paid.UNPAID)
    for _ in range(3):
        await advance(live)

    trail = await in_thread(lambda: list(AuditEntry.objects.values_list("actor", "action", "tenant_id")))
    assert trail == [("billing", "subscription.suspended", live.pk)]


async def test_the_owner_gets_one_email_per_step(live, business, settings, mailoutbox):
    settings.EMAIL_URL = "smtp://localhost"

    def make() -> None:
        from tests.factories import make_person

        make_person("olga", tenant=live, role="owner", email="olga@example.com")
        make_person("otto", tenant=live, role="operator", email="otto@example.com")

    await in_thread(make)
    await subscribed(live, business, status=Paid.PAST_DUE, past_due_since=datetime.now(UTC))
    for _ in range(2):
        await advance(live)

    assert [(letter.to, letter.subject) for letter in mailoutbox] == [
        (["olga@example.com"], "Your subscription: reminded")
    ]


async def test_a_plan_chosen_again_gives_no_second_trial(live, business):
    past = datetime.now(UTC) - timedelta(days=1)
    await subscribed(live, business, status=Paid.CANCELED, trial_end=past)

    async with database.own_connection():
        found = await subscriptions.begin(tenant=live, plan=business, actor="olga")

    assert (found.status, found.trial_end) == (Paid.PAST_DUE, past)


async def test_the_chore_advances_every_tenant(business):
    tenants = [await in_thread(make_tenant, f"t{n}-{uuid4().hex[:8]}", mode="live") for n in range(3)]
    for tenant in tenants:
        await subscribed(tenant, business, status=Paid.CANCELED)

    async with database.own_connection():
        await advance_all()

    assert {await blocked(tenant) for tenant in tenants} == {dunning.CONSEQUENCES[Dunning.SUSPENDED].refused}


async def test_the_fee_share_is_the_plans(live, business, tenant):
    await subscribed(live, business)

    assert str(await subscriptions.fee_share(live.pk)) == "0.005000"
    assert await subscriptions.fee_share(tenant.pk) == 0
