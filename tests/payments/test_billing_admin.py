"""Admin pages of plans and subscriptions."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from payments.models import Invitation, Plan, SignUp, Subscription
from payments.models.billing import Dunning, Paid
from registry.models import AuditEntry, Tenant
from tests.factories import make_person, make_tenant
from tests.registry.test_admin import as_person, choose, confirm, listing, page, text

WHY = "they moved house"


@pytest.fixture
def operator() -> Client:
    return as_person(make_person("olga"))


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme", mode="live")


@pytest.fixture
def subscription(acme: Tenant) -> Subscription:
    plan = Plan.objects.create(slug="gold", name="Gold", price=9900, trial_days=14)
    past = timezone.now() - timedelta(days=9)
    return Subscription.objects.create(
        tenant=acme, plan=plan, status=Paid.PAST_DUE, trial_end=past, past_due_since=past, dunning=Dunning.REFUSED
    )


def test_the_list_shows_plan_state_and_next_step_of_each_subscription(operator, subscription):
    seen = text(operator.get(listing(Subscription)))

    assert "Gold" in seen and "past due" in seen and "live payments refused" in seen


def test_a_trial_is_made_longer_with_a_reason(operator, subscription):
    operator.post(page(subscription), {"trial_end_0": "2030-01-01", "trial_end_1": "00:00:00", "reason": WHY})

    subscription.refresh_from_db()
    assert (subscription.trial_end.year, subscription.status, subscription.past_due_since) == (
        2030,
        Paid.TRIALING,
        None,
    )
    assert AuditEntry.objects.get(action="subscription.change").reason == WHY


def test_a_subscription_at_stripe_is_not_changed_by_hand(operator, subscription):
    Subscription.objects.update(stripe_subscription="sub_1")

    operator.post(page(subscription), {"trial_end_0": "2030-01-01", "trial_end_1": "00:00:00", "reason": WHY})

    subscription.refresh_from_db()
    assert (subscription.trial_end.year, subscription.status) != (2030, Paid.TRIALING)


def test_a_plan_is_offered_no_longer_and_offered_again(operator, subscription):
    confirm(operator, choose(operator, "plan_withdraw", subscription.plan), WHY)
    assert not Plan.objects.get(slug="gold").offered

    confirm(operator, choose(operator, "plan_offer", subscription.plan), WHY)
    assert Plan.objects.get(slug="gold").offered


def test_a_plan_is_added_with_a_reason(operator):
    fields = {
        "slug": "silver",
        "name": "Silver",
        "price": 4900,
        "currency": "BRL",
        "fee_share": "0.01",
    }
    operator.post(
        "/admin/payments/plan/add/", {**fields, "trial_days": 7, "position": 3, "offered": "on", "reason": WHY}
    )

    assert Plan.objects.get(slug="silver").price == 4900
    assert AuditEntry.objects.get().action == "plan.add"


@pytest.mark.parametrize("model", [Subscription, SignUp, Invitation])
def test_a_tenants_people_see_their_own_rows_only(subscription, acme, model):
    other = make_tenant("other")
    user = make_person("bob", tenant=other)
    SignUp.objects.create(tenant=acme, user=user)
    Invitation.objects.create(tenant=acme, email="x@acme.example", invited_by="olga")

    seen = text(as_person(user).get(listing(model)))

    assert "acme" not in seen


def test_only_superusers_see_plans(subscription, acme):
    assert as_person(make_person("carl", tenant=acme)).get(listing(Plan)).status_code == 403
