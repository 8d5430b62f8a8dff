"""Decisions after an outcome, for any outcome and any history."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from payments.processors.base import Account, Outcome, Result
from payments.settle import decisions
from payments.settle.decisions import (
    GIVE_UP_AFTER,
    LONGEST_BACKOFF,
    MAX_ATTEMPTS,
    MAX_QUESTIONS,
    PaymentClaim,
    Settlement,
)
from payments.states import CANCELED, FAILED, PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN, Status

ACCOUNT = Account(
    id=1, tenant_id=1, name="default", kind="http", url="", fee_ppm=0, options={}, enabled=True, endpoint="e"
)
outcomes = st.builds(
    Outcome,
    result=st.sampled_from(Result),
    code=st.sampled_from(["http_500", "timeout", "http_402"]),
    healthy=st.booleans(),
    outage=st.booleans(),
    retry_after=st.floats(0, 60),
    reference=st.sampled_from(["", "pi_1"]),
)
CERTAIN = {Result.BOOKED: SUCCEEDED, Result.REQUIRES_ACTION: REQUIRES_ACTION, Result.CANCELED: CANCELED}


@st.composite
def claims(draw, status: Status = PROCESSING) -> PaymentClaim:
    now = datetime.now(UTC)
    number = draw(st.integers(1, 400))
    return PaymentClaim(
        tenant_id=1,
        payment_id=1,
        correlation_id=UUID(int=1),
        amount=1990,
        currency="BRL",
        status=status,
        was=status,
        number=number,
        tries=draw(st.integers(1, number)),
        account=ACCOUNT,
        reason="",
        requested_at=now,
        in_doubt_since=now - timedelta(seconds=7) if status is UNCERTAIN else None,
        in_doubt_for=7.0 if status is UNCERTAIN else 0.0,
        taken_at=0.0,
        created_at=now - draw(st.sampled_from([timedelta(), GIVE_UP_AFTER + timedelta(minutes=1)])),
    )


def sound(settlement: Settlement) -> None:
    """What holds for every decision."""
    waits = settlement.status in (QUEUED, UNCERTAIN)
    assert (settlement.wait is not None) == waits
    assert settlement.wait is None or 0 <= settlement.wait <= max(LONGEST_BACKOFF, 60.0)
    assert (settlement.status is SUCCEEDED) == (settlement.outcome is Result.BOOKED)
    assert not (settlement.dead and settlement.status in (SUCCEEDED, QUEUED, *CERTAIN.values()))


@given(claims(), outcomes)
def test_a_first_send_ends_by_its_outcome_and_only_an_unknown_one_is_uncertain(claim, outcome):
    settlement = decisions.after_send(claim, outcome, 5)

    sound(settlement)
    assert (settlement.status is UNCERTAIN) == (outcome.result is Result.UNKNOWN)
    assert CERTAIN.get(outcome.result) in (None, settlement.status)
    assert settlement.in_doubt_since is None  # from now on
    assert settlement.reference == outcome.reference


@given(claims(), outcomes.filter(lambda outcome: outcome.result is Result.NOT_BOOKED))
def test_a_payment_that_was_not_booked_is_retried_up_to_a_limit_and_beyond_it_in_an_outage(claim, outcome):
    patient = outcome.outage and datetime.now(UTC) - claim.created_at < GIVE_UP_AFTER

    settlement = decisions.after_send(claim, outcome, 5)

    over = claim.tries >= MAX_ATTEMPTS and not patient
    assert (settlement.status, settlement.dead) == ((FAILED, True) if over else (QUEUED, False))
    assert over or settlement.wait >= outcome.retry_after


@given(claims(), outcomes.filter(lambda outcome: outcome.result is Result.DECLINED))
def test_a_decline_is_final_and_no_dead_letter(claim, outcome):
    settlement = decisions.after_send(claim, outcome, 5)

    assert (settlement.status, settlement.dead) == (FAILED, False)


@given(claims(UNCERTAIN), outcomes)
def test_only_an_outcome_certain_for_all_sends_ends_uncertainty_and_only_an_unknown_repeat_renews_it(claim, outcome):
    settlement = decisions.after_repeat(claim, outcome, 5)

    sound(settlement)
    assert settlement.status is CERTAIN.get(outcome.result, UNCERTAIN)
    assert settlement.reference == outcome.reference
    if settlement.status is UNCERTAIN:
        renewed = outcome.result is Result.UNKNOWN
        assert settlement.in_doubt_since == (None if renewed else claim.in_doubt_since)
        assert settlement.dead == (claim.tries >= MAX_QUESTIONS)


@given(claims(UNCERTAIN))
def test_a_payment_that_was_never_booked_is_due_at_once_at_any_processor(claim):
    settlement = decisions.never_booked(claim, 5)

    sound(settlement)
    assert (settlement.status, settlement.wait, settlement.dead) == (QUEUED, 0.0, False)
