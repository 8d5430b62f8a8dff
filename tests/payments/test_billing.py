"""Plans paid at Stripe: checkout, late and repeated webhooks, failed invoices, the portal, cancellation."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from limits import RateLimitItemPerHour

from payments.billing import advance, api, limits, platform, subscriptions
from payments.inbound.signature import UNKNOWN_SECRET
from payments.models import Plan, Subscription
from payments.models.billing import Dunning, Paid
from payments.pages import home
from registry.data import database
from registry.models import AuditEntry, Membership, Tenant
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import eventually
from tests.factories import in_thread
from tests.payments.signing_up import Person


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_UPS", RateLimitItemPerHour(100_000))
    monkeypatch.setattr(limits, "CHANGES", RateLimitItemPerHour(100_000))


@pytest.fixture
async def stripe(settings: Any) -> AsyncIterator[SandboxStripe]:
    """The platform's account; its webhooks are called only where a test says so."""
    async with sandbox_stripe() as found:
        settings.BILLING_STRIPE_KEY, settings.BILLING_STRIPE_URL = found.secret_key, found.url
        settings.BILLING_WEBHOOK_SECRET = found.webhook_secret
        yield found
        found.recovers()
        if found.webhooks.listeners and settings.BILLING_WEBHOOK_SECRET and found.all("subscription"):
            await eventually(lambda: not any(event.get("_undelivered") for event in found.all("event")))


@pytest.fixture
async def plan() -> Plan:
    fields = {"name": "Business", "price": 9900, "fee_share": "0.005"}
    return await in_thread(lambda: Plan.objects.create(slug=f"business-{uuid4().hex[:6]}", **fields))


@pytest.fixture
async def ann(server: str) -> AsyncIterator[Person]:
    async with Person(server) as person:
        yield person


def link_to_stripe(person: Person) -> str:
    return unescape(re.search(r'href="([^"]+)"[^>]*>To Stripe', person.page)[1])


async def pays(person: Person, address: str, card: str = "pm_card_visa") -> str:
    """Choose a card on Stripe's page; where it leads afterwards."""
    async with person.session.post(address, data={"card": card}, allow_redirects=False) as response:
        return response.headers.get("Location", "")


async def subscribes(ann: Person, plan: Plan) -> str:
    """What a sign-up paid by card leaves behind; the tenant's slug."""
    slug = await ann.founds(plan.slug)
    tenant, here = await in_thread(Tenant.objects.get, slug=slug), f"{ann.server}{ann.at}"
    plan = await in_thread(Plan.objects.get, pk=plan.pk)
    async with database.own_connection():
        address = await platform.checkout(tenant=tenant, plan=plan, email="ann@example.com", back=here, done=here)
        session = (await pays(ann, address)).partition("session=")[2]
        assert await platform.copy_checkout(tenant_id=tenant.pk, session_id=session)
    return slug


async def goes_to_stripe(ann: Person, plan: Plan) -> str:
    """The sign-up up to the link to Stripe's page: that link."""
    await ann.founds(plan.slug)
    await ann.sends(do="card")
    return link_to_stripe(ann)


async def subscription(slug: str = "") -> Subscription:
    return await in_thread(
        lambda: Subscription.objects.select_related("plan", "tenant").get(**({"tenant__slug": slug} if slug else {}))
    )


# -- Checkout ------------------------------------------------------------------------------------------------------------


async def test_a_plan_paid_by_card_at_stripe_is_active(ann, stripe, plan):
    slug = await ann.begins()
    await ann.goes_to_payment(plan.slug)
    await ann.sends(do="card")
    back = await pays(ann, link_to_stripe(ann))
    await ann.opens(back.removeprefix(ann.server))

    found = await subscription(slug)
    assert ann.at.endswith("/live")
    assert (found.status, found.plan, found.dunning) == (Paid.ACTIVE, plan, Dunning.NONE)
    assert stripe[found.stripe_subscription]["customer"] == found.stripe_customer
    assert stripe[found.stripe_subscription]["items"]["data"][0]["price"]["unit_amount"] == 9900
    assert 27 <= (found.period_end - datetime.now(UTC)).days <= 31


async def test_a_trial_by_card_is_a_trial_at_stripe(ann, stripe, plan):
    await in_thread(lambda: Plan.objects.update(trial_days=14))
    slug = await subscribes(ann, plan)

    found = await subscription(slug)
    assert (found.status, found.trial_end is not None) == (Paid.TRIALING, True)


async def test_a_declined_card_leaves_the_sign_up_where_it_was(ann, stripe, plan):
    await ann.founds(plan.slug)
    await ann.sends(do="card")

    leads_to = await pays(ann, link_to_stripe(ann), "pm_card_chargeDeclined")

    assert leads_to == ""
    assert (await subscription()).status == Paid.UNPAID
    await ann.opens(ann.at.replace("payment", "live"))
    assert ann.at.endswith("/payment")


async def test_two_clicks_make_one_customer_one_price_and_one_page(ann, stripe, plan):
    await ann.founds(plan.slug)
    form = {**ann.hidden(), "do": "card"}

    async def click() -> str:
        async with ann.session.post(ann.at, data=form) as response:
            return unescape(re.search(r'href="([^"]+)"[^>]*>To Stripe', await response.text())[1])

    pages = await asyncio.gather(click(), click())

    assert len({*pages}) <= 2  # a minute may begin between them
    assert len(stripe.all("checkout.session", status="open")) == 1
    assert (len(stripe.all("customer")), len(stripe.all("price"))) == (1, 1)


async def test_a_second_tab_ends_the_page_of_the_first(ann, stripe, plan):
    gold = await in_thread(lambda: Plan.objects.create(slug=f"gold-{uuid4().hex[:6]}", name="Gold", price=99900))
    first = await goes_to_stripe(ann, plan)
    await ann.opens(ann.at.replace("payment", "plan"))
    await ann.sends(plan=gold.slug)
    await ann.sends(do="card")
    second = link_to_stripe(ann)

    ways = [await pays(ann, first), await pays(ann, second)]

    assert [bool(way) for way in ways] == [False, True]
    assert [one["items"]["data"][0]["price"]["unit_amount"] for one in stripe.all("subscription")] == [99900]


async def test_an_open_checkout_page_of_the_same_plan_is_reused(ann, stripe, plan):
    first = await goes_to_stripe(ann, plan)
    await ann.opens(ann.at)

    await ann.sends(do="card")

    assert link_to_stripe(ann) == first
    assert len(stripe.all("checkout.session")) == 1


async def test_a_customer_who_paid_in_another_tab_gets_no_second_subscription(ann, stripe, plan):
    await pays(ann, await goes_to_stripe(ann, plan))
    await ann.opens(ann.at)

    await ann.sends(do="card")

    assert ann.errors == ["There is a paid plan already; it may have been paid for in another tab."]
    assert "The plan is already paid." in ann.page
    assert (await subscription()).status == Paid.ACTIVE
    assert not stripe.all("checkout.session", status="open")


async def test_a_payment_while_another_checkout_page_is_created_expires_that_page(ann, stripe, plan, monkeypatch):
    first = await goes_to_stripe(ann, plan)
    look, ways = platform._pages, []

    async def paying_meanwhile(*of: Any) -> Any:
        if not ways:
            ways.append(await pays(ann, first))
        return await look(*of)

    monkeypatch.setattr(platform, "_pages", paying_meanwhile)
    await ann.opens(ann.at)
    await ann.sends(do="card")

    assert ways[0] and ann.errors == ["There is a paid plan already; it may have been paid for in another tab."]
    assert not stripe.all("checkout.session", status="open")
    assert len(stripe.all("subscription")) == 1


async def test_the_plans_page_refuses_a_second_subscription_too(ann, stripe, plan):
    slug = await ann.founds(plan.slug)
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=plan.slug)
    await pays(ann, link_to_stripe(ann))
    await ann.opens(address)

    await ann.sends(address, do="subscribe", plan=plan.slug)

    assert ann.code == 409
    assert len(stripe.all("checkout.session")) == 1


# -- A trial is had once -----------------------------------------------------------------------------------------------


async def ends_at_stripe(found: Subscription) -> None:
    """It is canceled there, and we have heard of it."""
    async with platform.account() as client:
        await client.v1.subscriptions.cancel_async(found.stripe_subscription)
    async with database.own_connection():
        await api.follow(found.stripe_customer)


async def takes(ann: Person, slug: str, plan: Plan) -> str:
    """Choose a plan on its page and pay for it at Stripe's; where that leads."""
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=plan.slug)
    back = await pays(ann, link_to_stripe(ann))
    await ann.opens(back.removeprefix(ann.server))
    return back


async def test_a_used_trial_is_not_given_again(ann, stripe, plan):
    await in_thread(lambda: Plan.objects.update(trial_days=14))
    slug = await subscribes(ann, plan)
    await ends_at_stripe(await subscription(slug))
    await in_thread(lambda: Subscription.objects.update(trial_end=datetime.now(UTC) - timedelta(days=1)))

    await takes(ann, slug, plan)

    assert (await subscription(slug)).status == Paid.ACTIVE
    assert [one["status"] for one in stripe.all("subscription")] == ["canceled", "active"]


async def test_a_paid_period_does_not_renew_the_trial(ann, stripe, plan):
    await in_thread(lambda: Plan.objects.update(trial_days=14))
    slug = await subscribes(ann, plan)
    await ends_at_stripe(await subscription(slug))
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    await in_thread(lambda: Subscription.objects.update(trial_end=past))

    for _ in range(2):
        await takes(ann, slug, plan)
        await ends_at_stripe(await subscription(slug))

    assert (await subscription(slug)).trial_end == past
    assert [one["trial_end"] is None for one in stripe.all("subscription")] == [False, True, True]


@pytest.mark.parametrize(("days", "kept"), [(5, True), (1, False)], ids=["days", "hours"])
async def test_a_trial_that_began_without_a_card_keeps_its_end_by_card(ann, stripe, plan, days, kept):
    await in_thread(lambda: Plan.objects.update(trial_days=14))
    slug = await ann.founds(plan.slug)
    await ann.sends(do="start")
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    await in_thread(lambda: Subscription.objects.update(trial_end=end))

    await takes(ann, slug, plan)

    [made] = stripe.all("subscription")
    assert (made["status"], made["trial_end"]) == (("trialing", int(end.timestamp())) if kept else ("active", None))
    assert (await subscription(slug)).trial_end == end


async def test_the_return_from_stripe_is_verified(ann, stripe, plan):
    await ann.founds(plan.slug)
    await ann.sends(do="card")
    session = link_to_stripe(ann).rpartition("/")[2]

    await ann.opens(f"{ann.at.replace('payment', 'paid')}?session={session}")

    assert (ann.code, ann.at.endswith("/paid")) == (422, True)
    assert "Stripe has no payment yet" in ann.errors[0]


async def test_a_checkout_of_another_customer_is_refused(ann, stripe, plan, server):
    async with Person(server) as bob:
        await bob.founds(plan.slug)
        await bob.sends(do="card")
        theirs = await pays(bob, link_to_stripe(bob))
    slug = await ann.founds(plan.slug)

    await ann.opens(f"{ann.at.replace('payment', 'paid')}?{theirs.partition('?')[2]}")

    assert ann.code == 422
    assert not await in_thread(Subscription.objects.filter(tenant__slug=slug).exists)


async def test_while_stripe_is_unavailable_the_page_says_so_and_nothing_is_lost(ann, stripe, plan):
    await ann.founds(plan.slug)
    stripe.fails("error_before")

    await ann.sends(do="card")

    assert ann.errors == ["Stripe did not answer as expected; try again in a moment."]
    stripe.recovers()
    await ann.sends(do="card")
    assert link_to_stripe(ann).startswith(stripe.url)


async def test_a_customer_who_did_not_return_is_activated_by_the_webhook(ann, stripe, plan, server):
    stripe.calls(f"{server}/webhooks/billing")
    slug = await ann.founds(plan.slug)
    await ann.sends(do="card")

    await pays(ann, link_to_stripe(ann))

    async def active() -> bool:
        return (await subscription(slug)).status == Paid.ACTIVE

    await eventually(active)


# -- Invoices that fail -----------------------------------------------------------------------------------------------------


async def test_a_failed_invoice_starts_reminders_and_a_paid_one_ends_them(ann, stripe, plan, server, monkeypatch):
    for kept in ("fresh", "stale"):  # the home would show what needed attention some seconds ago
        monkeypatch.setattr(home.needs, kept, 0.0)
    slug = await subscribes(ann, plan)
    stripe.calls(f"{server}/webhooks/billing")
    name = (await subscription(slug)).stripe_subscription

    async def at(step: Dunning) -> bool:
        return (await subscription(slug)).dunning == step

    await stripe.renews(name, paid=False)
    await eventually(lambda: at(Dunning.NOTICE))
    await ann.opens(f"/?tenant={slug}")
    assert "The last invoice could not be paid" in ann.page
    await ann.opens(f"/plan?tenant={slug}")
    await ann.sends(f"/plan?tenant={slug}", do="card")
    await pays(ann, link_to_stripe(ann))

    await eventually(lambda: at(Dunning.NONE))
    await ann.opens(f"/?tenant={slug}")
    assert "The last invoice could not be paid" not in ann.page


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 2, 2)], ids=["in-order", "backwards", "doubled"])
async def test_events_in_any_order_end_in_the_newest_state_of_stripe(ann, stripe, plan, order):
    slug = await subscribes(ann, plan)
    found = await subscription(slug)
    await stripe.renews(found.stripe_subscription, paid=False)
    await stripe.renews(found.stripe_subscription, paid=True)

    for _ in order:  # whatever an event says, it leads to the same look
        async with database.own_connection():
            await api.follow(found.stripe_customer)

    assert (await subscription(slug)).status == Paid.ACTIVE


async def test_a_slow_read_does_not_overwrite_a_later_one(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    found = await subscription(slug)
    newest = dict(stripe[found.stripe_subscription])
    later, earlier = datetime.now(UTC), datetime.now(UTC) - timedelta(seconds=5)

    async with database.own_connection():
        first = await subscriptions.copy(tenant_id=found.pk, newest={**newest, "status": "unpaid"}, asked_at=later)
        second = await subscriptions.copy(tenant_id=found.pk, newest=newest, asked_at=earlier)

    assert (first, second, (await subscription(slug)).status) == (True, False, Paid.UNPAID)


async def test_an_ended_subscription_does_not_change_the_new_one(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    found = await subscription(slug)
    price = (await in_thread(Plan.objects.get, pk=plan.pk)).stripe_price
    async with platform.account() as client:
        await client.v1.subscriptions.cancel_async(found.stripe_subscription)
        method = stripe.all("payment_method", customer=found.stripe_customer)[0]["id"]
        fresh = await client.v1.subscriptions.create_async(
            {"customer": found.stripe_customer, "items": [{"price": price}], "default_payment_method": method}
        )

    async with database.own_connection():
        await api.follow(found.stripe_customer)

    found = await subscription(slug)
    assert (found.stripe_subscription, found.status) == (fresh.id, Paid.ACTIVE)


@pytest.mark.parametrize(
    ("ours", "signed_with"),
    [("whsec_bed", "whsec_of_somebody_else"), ("", "whsec_bed"), ("", UNKNOWN_SECRET.decode())],
    ids=["another", "we-have-none", "what-stands-in-for-none"],
)
async def test_an_event_that_the_platforms_secret_did_not_sign_is_refused(stripe, server, settings, ours, signed_with):
    settings.BILLING_WEBHOOK_SECRET = ours
    stripe.calls(f"{server}/webhooks/billing", secret=signed_with)

    await stripe.tells("invoice.paid", {"id": "in_1", "object": "invoice", "customer": "cus_1"})

    await eventually(lambda: stripe.deliveries)
    assert {delivery.status for delivery in stripe.deliveries} == {400}


async def test_an_ended_subscription_does_not_change_a_following_free_plan(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    await ends_at_stripe(await subscription(slug))
    free = await in_thread(lambda: Plan.objects.create(slug=f"free-{uuid4().hex[:6]}", name="Free"))
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=free.slug)
    old = datetime.now(UTC) - timedelta(days=2)
    await in_thread(lambda: Subscription.objects.update(asked_at=old))

    async with database.own_connection():
        await advance.advance_all()

    found = await subscription(slug)
    assert (found.plan, found.status, found.dunning, found.tenant.blocked) == (free, Paid.ACTIVE, Dunning.NONE, "")
    assert found.asked_at > old


async def test_if_all_subscriptions_have_ended_the_known_one_is_copied(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    found = await subscription(slug)
    price = (await in_thread(Plan.objects.get, pk=plan.pk)).stripe_price
    async with platform.account() as client:
        method = stripe.all("payment_method", customer=found.stripe_customer)[0]["id"]
        fresh = await client.v1.subscriptions.create_async(
            {"customer": found.stripe_customer, "items": [{"price": price}], "default_payment_method": method}
        )
        for name in (found.stripe_subscription, fresh.id):
            await client.v1.subscriptions.cancel_async(name)

    async with database.own_connection():
        await api.follow(found.stripe_customer)

    known = found.stripe_subscription
    found = await subscription(slug)
    assert (found.stripe_subscription, found.status) == (known, Paid.CANCELED)


async def test_while_stripe_is_unavailable_an_event_is_refused_so_that_it_is_sent_again(ann, stripe, plan, server):
    slug = await subscribes(ann, plan)
    name = (await subscription(slug)).stripe_subscription
    stripe.calls(f"{server}/webhooks/billing", types=("customer.subscription.updated",))
    stripe.fails("error_before", on="GET /v1/subscriptions*")

    await stripe.renews(name, paid=False)
    await eventually(lambda: 503 in {delivery.status for delivery in stripe.deliveries})
    stripe.recovers()

    async def noticed() -> bool:
        return (await subscription(slug)).dunning == Dunning.NOTICE

    await eventually(noticed)


async def test_an_event_of_an_unknown_customer_is_accepted_and_changes_nothing(stripe, server):
    stripe.calls(f"{server}/webhooks/billing")

    await stripe.tells("customer.subscription.updated", {"id": "sub_x", "object": "subscription", "customer": "cus_x"})
    await stripe.tells("charge.succeeded", {"id": "ch_x", "object": "charge"})

    await eventually(lambda: len(stripe.deliveries) == 2)
    assert {delivery.status for delivery in stripe.deliveries} == {200}


# -- The owner's page -----------------------------------------------------------------------------------------------------


async def test_the_plans_page_shows_the_invoices_and_leads_to_the_portal(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    await ann.opens(f"/plan?tenant={slug}")
    shown = ann.page

    await ann.sends(f"/plan?tenant={slug}", do="card")

    assert "R$99.00" in shown and 'class="tag">paid' in shown
    assert link_to_stripe(ann).startswith(f"{stripe.url}/sandbox/portal/")


async def test_invoices_that_cannot_be_read_are_not_an_empty_list(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    stripe.fails("error_before", on="GET /v1/invoices*")

    await ann.opens(f"/plan?tenant={slug}")

    assert (ann.code, "the invoices cannot be shown" in ann.page, "None yet." in ann.page) == (200, True, False)


async def test_the_owner_cancels_the_plan_with_a_reason_and_resumes_it(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="cancel", reason="")
    without = ann.errors
    await ann.sends(address, do="cancel", reason="we close for the winter")
    ending = await subscription(slug)
    await ann.sends(address, do="go-on")

    assert without == ["Say why, in at most 500 characters."]
    assert ending.cancel_at == ending.period_end
    assert (await subscription(slug)).cancel_at is None
    trail = await in_thread(lambda: dict(AuditEntry.objects.values_list("action", "reason")))
    assert trail["subscription.cancel"] == "we close for the winter"


@pytest.mark.parametrize("role", ["operator", "viewer"])
async def test_others_see_the_plan_and_change_nothing(ann, stripe, plan, role):
    slug = await subscribes(ann, plan)
    await in_thread(lambda: Membership.objects.filter(tenant__slug=slug).update(role=role))
    await ann.opens(f"/plan?tenant={slug}")
    seen = ann.code
    await ann.opens("/signup?new")

    await ann.sends(f"/plan?tenant={slug}", do="cancel", reason="no right to")

    assert (seen, ann.code) == (200, 404)
    assert (await subscription(slug)).cancel_at is None


async def test_the_plan_of_another_tenant_is_not_found(ann, stripe, plan, server):
    slug = await subscribes(ann, plan)
    async with Person(server) as bob:
        await bob.begins()
        await bob.opens(f"/plan?tenant={slug}")

        assert bob.code == 404


async def test_a_tenant_chooses_a_plan_later_on_its_own_page(ann, stripe, plan):
    slug = await ann.founds(plan.slug)
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=plan.slug)
    back = await pays(ann, link_to_stripe(ann))

    await ann.opens(back.removeprefix(ann.server))

    assert (ann.code, ann.at) == (200, "/plan")
    assert (await subscription(slug)).status == Paid.ACTIVE


async def test_a_plan_that_cannot_be_taken_is_not_offered_and_says_why(ann, plan):
    """Without cards: a plan with a price, and the tenant's own."""
    await in_thread(Plan.objects.exclude(pk=plan.pk).update, offered=False)
    free = await in_thread(lambda: Plan.objects.create(slug=f"free-{uuid4().hex[:6]}", name="Free", price=0))
    slug = await ann.founds()
    address = f"/plan?tenant={slug}"
    await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=free.slug)

    page = await ann.opens(address)
    assert ">Subscribe<" not in page
    assert "This is your plan." in page and "It has a price, and this service takes no cards." in page
    for one, why in ((plan, "this service takes no cards"), (free, "This is your plan.")):
        await ann.opens(address)
        assert why in await ann.sends(address, do="subscribe", plan=one.slug)
        assert ann.code == 409

    other = await in_thread(lambda: Plan.objects.create(slug=f"other-{uuid4().hex[:6]}", name="Other", price=0))
    assert ">Subscribe<" in await ann.opens(address)
    await ann.sends(address, do="subscribe", plan=other.slug)
    assert (await subscription(slug)).plan.slug == other.slug


async def test_the_own_plan_is_offered_where_it_can_be_paid_by_card(ann, stripe, plan):
    slug = await ann.founds(plan.slug)

    page = await ann.opens(f"/plan?tenant={slug}")

    assert ">Subscribe<" in page and "This is your plan." not in page


async def test_the_return_while_billing_is_off_leads_to_the_plan_with_an_explanation(ann):
    await ann.begins()

    await ann.opens("/plan/paid?session=cs_test_1")

    assert (ann.code, ann.at) == (200, "/plan")
    assert "This service takes no subscriptions by card" in ann.page


async def test_the_daily_check_finds_changes_without_a_webhook(ann, stripe, plan):
    slug = await subscribes(ann, plan)
    found = await subscription(slug)
    await stripe.renews(found.stripe_subscription, paid=False)
    await in_thread(lambda: Subscription.objects.update(asked_at=datetime.now(UTC) - timedelta(days=2)))

    async with database.own_connection():
        await advance.advance_all()

    assert (await subscription(slug)).dunning == Dunning.NOTICE


async def test_no_card_number_is_received(ann, stripe, plan):
    """Neither pages nor tables have a place for one: the card is Stripe's page's."""
    slug = await subscribes(ann, plan)
    await ann.opens(f"/plan?tenant={slug}")

    row = await in_thread(lambda: Subscription.objects.filter(tenant__slug=slug).values().get())
    assert "4242" not in str(row) + ann.page
    assert not await in_thread(lambda: Tenant.objects.filter(settings__icontains="4242").exists())
