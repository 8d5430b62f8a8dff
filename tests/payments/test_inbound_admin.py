"""Inbound events in the admin: escaped content; replay and close with a reason."""

import json

import pytest
from django.utils import timezone

from payments.models import InboundEvent
from registry.models import AuditEntry
from tests.factories import make_payment, make_person, make_processor, make_tenant
from tests.registry.test_admin import as_person, choose, confirm, listing, page, text


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def operator():
    return as_person(make_person("olga"))


def make_event(tenant, **fields) -> InboundEvent:
    number = InboundEvent.objects.count()
    return InboundEvent.objects.create(
        tenant=tenant,
        **{
            **({} if "processor" in fields else {"processor_id": 0}),
            "event_id": f"evt_{number}",
            "type": "payment_intent.succeeded",
            "created": timezone.now(),
            "body": b"{}",
            "source": "delivery",
            "status": "done",
            **fields,
        },
    )


def test_the_list_shows_outcomes_of_events_and_links_their_payments(acme, operator):
    processor, payment = make_processor(acme, "cards"), make_payment(acme)
    make_event(acme, outcome="looked at again", payment_id=payment.pk, processor=processor)
    make_event(acme, type="charge.refunded", status="dead", error="gave up after 20 tries")

    seen = text(operator.get(listing(InboundEvent)))

    for words in ("looked at again", "gave up after 20 tries", "cards", "removed", f"/payment/{payment.pk}/change/"):
        assert words in seen


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ({"status": "dead"}, ["evt_1"]),
        ({"status": "received"}, ["evt_2"]),
        ({"type": "charge."}, ["evt_1"]),
        ({"q": "evt_2"}, ["evt_2"]),
        ({"q": "evt_unknown"}, []),
        ({"since": "1h"}, ["evt_2", "evt_1", "evt_0"]),
    ],
    ids=str,
)
def test_the_list_is_filtered_and_searched(acme, operator, question, found):
    processor = make_processor(acme, "cards", kind="stripe")
    make_event(acme, processor=processor)
    make_event(acme, processor=processor, type="charge.refunded", status="dead")
    make_event(acme, processor=processor, status="received")

    answer = operator.get(listing(InboundEvent), question)

    assert [row.event_id for row in answer.context["cl"].result_list] == found


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (json.dumps({"note": "<script>alert(1)</script>"}).encode(), "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('{"a":{"name":"Zoë"}}'.encode(), "&quot;name&quot;: &quot;Zoë&quot;"),
        (b"\xff<b>", "\ufffd&lt;b&gt;"),
        (b"[" * 100_000 + b"]" * 100_000, "[[["),
        (b'"' + b"x" * 200_000 + b'"', "characters more"),
    ],
    ids=["script", "pretty", "not UTF-8", "deep", "long"],
)
def test_a_body_is_shown_escaped_and_readable_whatever_it_is(acme, operator, body, shown):
    event = make_event(acme, body=body, headers={"user-agent": "<i>Stripe</i>"})

    seen = text(operator.get(page(event)))

    assert shown in seen
    assert "&lt;i&gt;Stripe&lt;/i&gt;" in seen
    assert "<script>alert(1)" not in seen


def test_a_dead_event_is_replayed_with_a_reason_and_is_due_again(acme, operator):
    event = make_event(acme, status="dead", error="gave up", attempt=20)

    confirm(operator, choose(operator, "inbound_replay", event), "it was our database")

    event.refresh_from_db()
    assert (event.status, event.error, event.attempt, event.tries_from) == ("received", "", 20, 20)
    entry = AuditEntry.objects.get()
    assert (entry.tenant, entry.actor, entry.action, entry.reason) == (
        acme, "olga", "inbound.replay", "it was our database",
    )  # fmt: skip
    assert event.event_id in entry.target


def test_dead_events_are_closed_and_others_are_left_out(acme, operator):
    dead, done = make_event(acme, status="dead"), make_event(acme)

    asked = choose(operator, "inbound_close", dead, done)
    confirm(operator, asked)

    assert sorted(InboundEvent.objects.values_list("status", flat=True)) == ["closed", "done"]
    assert [entry.action for entry in AuditEntry.objects.all()] == ["inbound.close"]


def test_members_see_their_own_tenants_events_and_viewers_cannot_replay(acme):
    other = make_tenant("other")
    mine, theirs = make_event(acme, status="dead"), make_event(other, status="dead")
    viewer = as_person(make_person("vera", tenant=acme, role="viewer"))

    seen = viewer.get(listing(InboundEvent))
    choose(viewer, "inbound_replay", mine)

    assert [row.pk for row in seen.context["cl"].result_list] == [mine.pk]
    assert viewer.get(page(theirs)).status_code == 302
    assert "inbound_replay" not in text(seen)
    assert set(InboundEvent.objects.values_list("status", flat=True)) == {"dead"}
