"""Operators switch operations between queued and inline: for all or per tenant, with a reason."""

import pytest
from django.test import Client
from django.utils import timezone

from queueing.models import Worker
from registry.models import AuditEntry, Flag
from tests.factories import make_person, make_tenant
from tests.registry.test_admin import as_person, choose, confirm, listing, page, text

WHY = "their school fees are due today"


@pytest.fixture
def operator() -> Client:
    return as_person(make_person("olga"))


@pytest.fixture
def flag() -> Flag:
    Flag.objects.all().delete()  # a fresh database has some
    return Flag.objects.create(name="inline.payment", superusers=False)


@pytest.mark.parametrize(
    ("action", "everyone"), [("switch_inline", True), ("switch_queued", False), ("switch_tenants", None)]
)
def test_a_switch_is_set_for_everyone_and_recorded(operator, flag, action, everyone):
    Flag.objects.filter(pk=flag.pk).update(everyone=not everyone)

    confirm(operator, choose(operator, action, flag), WHY)

    assert Flag.objects.get().everyone is everyone
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.reason) == ("olga", "switch.everyone", WHY)
    assert entry.detail == {"everyone": [not everyone, everyone]}


@pytest.mark.parametrize("operation", ["payment", "refund"])
def test_a_switch_of_a_tenant_is_changed_on_its_page_and_back(operator, flag, operation):
    acme, other = make_tenant("acme"), make_tenant("other")
    Flag.objects.filter(pk=flag.pk).update(name=f"inline.{operation}")
    flag.tenants.set([other])

    confirm(operator, choose(operator, f"tenant_{operation}_inline", acme), WHY)
    switched = {tenant.slug for tenant in flag.tenants.all()}
    confirm(operator, choose(operator, f"tenant_{operation}_queued", acme), WHY)

    assert switched == {"acme", "other"}
    assert {tenant.slug for tenant in flag.tenants.all()} == {"other"}
    assert [(e.action, e.tenant_id) for e in AuditEntry.objects.order_by("id")] == [
        ("switch.inline", acme.pk),
        ("switch.queued", acme.pk),
    ]


def test_tenants_are_named_on_the_switchs_page_with_a_reason(operator, flag):
    acme = make_tenant("acme")

    operator.post(page(flag), {"everyone": "unknown", "tenants": [acme.pk], "note": "", "reason": WHY})

    assert [tenant.slug for tenant in flag.tenants.all()] == ["acme"]
    assert AuditEntry.objects.get().reason == WHY


@pytest.mark.parametrize("role", ["owner", "operator"])
def test_members_of_a_tenant_do_not_see_switches(flag, role):
    person = as_person(make_person(tenant=make_tenant("acme"), role=role))

    assert person.get(listing(Flag)).status_code == 403


@pytest.mark.parametrize(
    ("queue", "fields", "expected"),
    [
        ("payments", {}, "1 worker at work"),
        ("payments", {"everyone": True}, "switched on for everyone; 1 worker for what is left over"),
        ("inline", {}, "fall-back: no worker is alive, the web processes do their work"),
        ("", {"everyone": True}, "no worker is alive; what is accepted waits"),
    ],
    ids=["queued", "inline", "standing-in", "nobody"],
)
def test_the_list_shows_the_effective_value_and_its_reason(operator, flag, queue, fields, expected):
    Flag.objects.filter(pk=flag.pk).update(**fields)
    if queue:
        Worker.objects.create(queue=queue, hostname="here", pid=1, heartbeat_at=timezone.now())

    seen = text(operator.get(listing(Flag)))

    assert expected in seen


@pytest.mark.parametrize(
    ("queue", "fields", "named", "expected"),
    [
        ("refunds", {}, 0, "1 worker at work"),
        ("refunds", {"everyone": True}, 0, "switched on for everyone; 1 worker for what is left over"),
        ("refunds", {}, 2, "inline for 2 tenants, else 1 worker"),
        ("inline", {}, 0, "no worker is alive; what is accepted waits"),
        ("inline", {}, 1, "inline for 1 tenant; no worker is alive, the others&#x27; wait"),
        ("inline", {"everyone": True}, 0, "switched on for everyone; no worker is alive, what is left over waits"),
    ],
    ids=["queued", "inline", "named", "nobody", "named-alone", "inline-alone"],
)
def test_the_switch_of_refunds_applies_and_no_web_process_replaces_their_workers(
    operator, queue, fields, named, expected
):
    Flag.objects.all().delete()
    flag = Flag.objects.create(name="inline.refund", superusers=False, **fields)
    flag.tenants.set([make_tenant() for _ in range(named)])
    Worker.objects.create(queue=queue, hostname="here", pid=1, heartbeat_at=timezone.now())

    assert expected in text(operator.get(listing(Flag)))


def test_a_switch_without_effect_is_marked(operator, flag):
    Flag.objects.filter(pk=flag.pk).update(name="inline.dispute", everyone=True)

    assert "no operation uses a switch of this name" in text(operator.get(listing(Flag)))


def test_the_list_names_the_tenants_that_are_inline(operator, flag):
    flag.tenants.set([make_tenant("acme"), make_tenant("beta")])

    seen = text(operator.get(listing(Flag)))

    assert "inline for acme, beta" in seen
