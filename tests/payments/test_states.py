"""The state table is complete, and everything derived from it agrees with it."""

import pytest

from payments.models import Payment
from payments.states import (
    ARROWS,
    CANCELED,
    FAILED,
    LOOKS,
    OPEN,
    PROCESSING,
    QUEUED,
    REQUIRES_ACTION,
    SHOWN_LOOKS,
    TERMINAL,
    UNCERTAIN,
    Reversal,
    Status,
    shown_as,
    shown_state,
    sources_of,
)
from registry.data import database
from registry.models import Tenant
from tests.factories import in_thread, make_payment


def test_every_state_has_transitions_and_they_lead_to_states():
    assert set(ARROWS) == set(Status)
    assert all(target in Status for targets in ARROWS.values() for target in targets)


def test_no_transition_leads_to_its_own_state():
    assert [state for state, targets in ARROWS.items() if state in targets] == []


def test_no_transition_leaves_a_final_state_except_the_replay_of_a_failed_payment():
    leaving = {(state, target) for state in TERMINAL for target in ARROWS[state]}

    assert leaving == {(FAILED, QUEUED)}


def test_succeeded_and_canceled_are_final():
    assert ARROWS[Status.SUCCEEDED] == ARROWS[CANCELED] == frozenset()


def test_a_payment_that_may_be_at_a_processor_is_canceled_only_by_the_processors_answer():
    """A payment that requires an action is looked at again first, and so in a worker's hands."""
    assert set(sources_of(CANCELED)) == {QUEUED, PROCESSING, UNCERTAIN}


def test_every_state_can_be_reached_and_every_state_can_end():
    assert reachable(QUEUED) == set(Status)
    assert [state for state in Status if not (reachable(state) & TERMINAL)] == []


def reachable(start: Status) -> set[Status]:
    found, new = set(), {start}
    while new:
        found |= new
        new = {target for state in new for target in ARROWS[state]} - found
    return found


@pytest.mark.parametrize("target", Status)
def test_the_sources_of_a_state_are_its_transitions_backwards(target):
    assert set(sources_of(target)) == {state for state in Status if target in ARROWS[state]}


def test_a_state_is_open_final_or_waits_for_the_payer():
    assert OPEN | TERMINAL | {REQUIRES_ACTION} == set(Status)
    assert not OPEN & TERMINAL


def test_every_state_has_a_look_of_its_own_without_colour():
    assert set(LOOKS) == set(Status)
    assert len({look.shape for look in LOOKS.values()}) == len(Status)
    assert all(look.sentence.endswith(".") and look.colour for look in LOOKS.values())


def test_every_shown_state_has_a_look_of_its_own_without_colour():
    assert set(SHOWN_LOOKS) == {*Status, *Reversal}
    assert len({look.shape for look in SHOWN_LOOKS.values()}) == len(SHOWN_LOOKS)
    assert all(look.sentence.endswith(".") and look.colour for look in SHOWN_LOOKS.values())
    assert [shown_as(state.value) for state in SHOWN_LOOKS] == list(SHOWN_LOOKS)


@pytest.mark.parametrize(
    ("refunded", "disputed", "lost", "expected"),
    [
        (0, False, False, Status.SUCCEEDED),
        (1, False, False, Reversal.PARTLY_REFUNDED),
        (1000, False, False, Reversal.REFUNDED),
        (0, True, False, Reversal.DISPUTED),
        (1000, True, True, Reversal.DISPUTED),
        (1000, False, True, Reversal.DISPUTE_LOST),
    ],
)
def test_a_succeeded_payment_is_shown_as_what_took_its_money_back(refunded, disputed, lost, expected):
    assert shown_state("succeeded", amount=1000, refunded=refunded, disputed=disputed, lost=lost) is expected


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SUCCEEDED])
def test_a_payment_that_has_not_succeeded_is_shown_by_its_status(status):
    assert shown_state(status, amount=1000, refunded=0, disputed=False, lost=False) is status


@pytest.mark.parametrize("status", Status)
async def test_the_database_closes_exactly_the_payments_without_work_left(tenant: Tenant, status: Status):
    payment = await in_thread(make_payment, tenant, status=status)

    async with database.own_connection():
        found = await Payment.async_objects.aget(tenant_id=tenant.pk, id=payment.id)

    assert found.closed == (None if status in OPEN else status.value)
