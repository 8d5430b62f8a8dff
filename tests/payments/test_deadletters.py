"""Dead letters: replayed once, at the same processor if uncertain, with an audited reason."""

import asyncio

import pytest

from payments.models import DeadLetter, Payment, PaymentEvent
from payments.settle import dead_letters
from payments.states import FAILED, QUEUED, SUCCEEDED, UNCERTAIN
from registry.data import database
from registry.data.loop import sync_twin
from registry.models import AuditEntry
from tests.factories import make_dead_letter, make_payment, make_processor, make_tenant


@pytest.fixture
def tenant():
    return make_tenant("acme")


def replay(letter: DeadLetter) -> bool:
    return sync_twin(dead_letters.replay)(dead_letter_id=letter.pk, actor="olga", reason="it was maintenance")


def test_a_failed_payment_is_queued_again_with_its_attempts_kept(tenant):
    payment = make_payment(tenant, status=FAILED, processor=make_processor(tenant), code="declined", attempt=8)
    letter = make_dead_letter(payment)

    assert replay(letter) is True

    payment.refresh_from_db()
    letter.refresh_from_db()
    assert (payment.status, payment.attempt, payment.sequence, payment.code) == (QUEUED, 8, 3, "")
    assert payment.run_at <= payment.changed_at
    assert (letter.resolution, letter.resolved_by) == ("replayed", "olga")
    assert letter.resolved_at is not None


def test_a_replay_is_an_event_with_the_next_number_of_the_stream(tenant):
    payment = make_payment(tenant, status=FAILED)
    before = PaymentEvent.objects.filter(tenant=tenant).order_by("-position")[0].position

    replay(make_dead_letter(payment))

    event = PaymentEvent.objects.get(payment=payment, sequence=3)
    assert (event.position, event.status) == (before + 1, QUEUED)
    assert "olga" not in event.detail
    assert "maintenance" not in event.detail


def test_a_replayed_uncertain_payment_stays_uncertain_and_is_due_at_once(tenant):
    later = make_payment(tenant, status=UNCERTAIN, processor=make_processor(tenant))
    Payment.objects.filter(pk=later.pk).update(run_at="2099-01-01T00:00Z")

    assert replay(make_dead_letter(later)) is True

    later.refresh_from_db()
    assert later.status == UNCERTAIN
    assert later.run_at == later.changed_at
    assert PaymentEvent.objects.get(payment=later, sequence=3).status == UNCERTAIN


def test_concurrent_replays_of_a_dead_letter_count_once(tenant):
    letter = make_dead_letter(make_payment(tenant, status=FAILED))

    @sync_twin
    async def all_at_once() -> list[bool]:
        @database.own_connection()
        async def one(number: int) -> bool:
            return await dead_letters.replay(dead_letter_id=letter.pk, actor=f"olga {number}", reason="again")

        return await asyncio.gather(*map(one, range(10)))

    assert sorted(all_at_once()) == [False] * 9 + [True]
    assert PaymentEvent.objects.filter(payment=letter.payment).count() == 3
    assert AuditEntry.objects.filter(action="deadletter.replay").count() == 1


def test_a_payment_in_another_state_is_unchanged_and_its_dead_letter_stays_open(tenant):
    letter = make_dead_letter(make_payment(tenant, status=SUCCEEDED, processor=make_processor(tenant)))

    assert replay(letter) is False

    letter.refresh_from_db()
    assert letter.resolution == ""
    assert Payment.objects.get(pk=letter.payment_id).status == SUCCEEDED
    assert not AuditEntry.objects.exists()


def test_an_unknown_dead_letter_returns_false():
    assert sync_twin(dead_letters.replay)(dead_letter_id=404, actor="olga", reason="?") is False
    assert sync_twin(dead_letters.close)(dead_letter_id=404, actor="olga", reason="?") is False


@pytest.mark.parametrize("status", [FAILED, UNCERTAIN])
def test_closing_a_dead_letter_leaves_the_payment_unchanged(tenant, status):
    payment = make_payment(tenant, status=status)
    letter = make_dead_letter(payment)

    closed = sync_twin(dead_letters.close)(dead_letter_id=letter.pk, actor="olga", reason="paid in cash")
    again = sync_twin(dead_letters.close)(dead_letter_id=letter.pk, actor="olga", reason="paid in cash")

    letter.refresh_from_db()
    assert (closed, again, letter.resolution) == (True, False, "closed")
    assert Payment.objects.get(pk=payment.pk).status == status
    assert Payment.objects.get(pk=payment.pk).sequence == payment.sequence


def test_operator_and_reason_are_in_the_audit_trail_of_the_tenant(tenant):
    payment = make_payment(tenant, status=FAILED)

    replay(make_dead_letter(payment))

    entry = AuditEntry.objects.get()
    assert (entry.tenant, entry.actor, entry.action, entry.rows) == (tenant, "olga", "deadletter.replay", 1)
    assert entry.reason == "it was maintenance"
    assert str(payment.correlation_id) in entry.target


def test_without_its_audit_entry_nothing_is_replayed(tenant, monkeypatch):
    letter = make_dead_letter(make_payment(tenant, status=FAILED))

    async def refuses(**_):
        raise RuntimeError("no entry, no action")

    monkeypatch.setattr("registry.tenants.audit.record", refuses)
    with pytest.raises(RuntimeError):
        replay(letter)

    letter.refresh_from_db()
    assert letter.resolution == ""
    assert Payment.objects.get(pk=letter.payment_id).status == FAILED
