"""Banners of a payment's page: in every state one sentence on what happened, one on the money, and only actions that are safe."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.models import Difference
from payments.pages.codes import WORDS, words
from payments.pages.explain.banner import LINKS, PROCESSORS, Banner
from payments.pages.explain.payer import explain_to_payer
from payments.pages.explain.rules import explain
from payments.pages.facts import (
    DiscrepancyFact,
    DisputeFact,
    LastAttempt,
    LetterFact,
    PaymentFacts,
    RefundFact,
    RouteFact,
)
from payments.pages.operate import GUARDS
from payments.states import (
    CANCELED,
    FAILED,
    PROCESSING,
    QUEUED,
    REQUIRES_ACTION,
    SUCCEEDED,
    TERMINAL,
    UNCERTAIN,
    RefundStatus,
    Reversal,
    Status,
)

NOW = datetime(2026, 7, 15, 12, tzinfo=UTC)
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
WORKING, BROKEN, OFF = (
    RouteFact(name="acquirer", enabled=True),
    RouteFact(name="acquirer", enabled=True, breaker="open"),
    RouteFact(name="acquirer", enabled=False),
)
OPEN_LETTER = LetterFact(id=1, code="timeout", at=NOW)
CLOSED_LETTER = LetterFact(id=1, code="timeout", at=NOW, resolution="closed", resolved_by="olga", resolved_at=NOW)


def facts(status: Status = QUEUED, **more: Any) -> PaymentFacts:
    fields: dict[str, Any] = {
        "now": NOW,
        "id": 1,
        "amount": 1990,
        "currency": "BRL",
        "created_at": NOW,
        "changed_at": NOW,
        "due_at": NOW,
        "processor": "acquirer",
        "kind": "stripe",
        "fee": 100,
        "processors": [WORKING],
    }
    return PaymentFacts(status=status, **fields | more)


def last(outcome: str = "unknown", code: str = "timeout", **more: Any) -> LastAttempt:
    return LastAttempt(outcome=outcome, code=code, at=NOW, **more)


def action(type_: str, **more: Any) -> LastAttempt:
    return last("requires_action", "", action={"type": type_, **more})


def dispute(status: str = "needs_response", withdrawn: int = 1990, **more: Any) -> DisputeFact:
    return DisputeFact(reference="du_1", amount=1990, currency="BRL", status=status, withdrawn=withdrawn, **more)


def discrepancy(kind: str) -> DiscrepancyFact:
    return DiscrepancyFact(
        id=1, kind=kind, processor="acquirer", our_status="succeeded", our_amount=1990, our_currency="BRL", their_amount=990,
        their_currency="BRL", our_refunded=0, their_refunded=500,
    )  # fmt: skip


def of_refund(status: RefundStatus, **more: Any) -> RefundFact:
    return RefundFact(id=1, amount=500, status=status, **more)


UNEXPECTED = [  # the state's name, the payment, and the verbs that are offered
    ("waiting", facts(processors=[BROKEN]), ["processors", "cancel"]),
    ("waiting", facts(processors=[OFF]), ["processors", "cancel"]),
    ("waiting", facts(processors=[]), ["processors", "cancel"]),
    ("waiting", facts(wanted="other"), ["processors", "cancel"]),
    ("scheduled", facts(scheduled_for=NOW + timedelta(days=1), due_at=NOW + timedelta(days=1)), ["cancel"]),
    ("retrying", facts(attempt=2, tries=2, last=last("not_booked", "http_500")), ["cancel"]),
    ("uncertain", facts(UNCERTAIN, attempt=15, tries=15, last=last(asked=14)), ["look_again"]),
    ("dead_letter", facts(UNCERTAIN, due_at=NEVER, letter=OPEN_LETTER, last=last()), ["replay", "close"]),
    ("dead_letter", facts(FAILED, letter=OPEN_LETTER, code="http_401", last=last("not_booked")), ["replay", "close"]),
    ("closed", facts(UNCERTAIN, due_at=NEVER, letter=CLOSED_LETTER, last=last()), ["look_again"]),
    ("requires_action", facts(REQUIRES_ACTION, last=action("authenticate", needs="method")), ["payers_page", "cancel"]),
    ("requires_action", facts(REQUIRES_ACTION, last=action("capture")), ["capture", "cancel"]),
    ("requires_action", facts(REQUIRES_ACTION, last=action("wait")), ["look_again"]),
    (
        "partly_captured",
        facts(
            UNCERTAIN, due_at=NEVER, code="amount_differs", letter=OPEN_LETTER, last=last(action={"received": 1200})
        ),
        ["close", "replay"],
    ),
    ("failed", facts(FAILED, code="insufficient_funds"), []),
    ("failed", facts(FAILED, code="http_401", letter=CLOSED_LETTER), []),
    ("partly_refunded", facts(SUCCEEDED, refunded=500, owed_back=500), ["refund_page"]),
    ("refunded", facts(SUCCEEDED, refunded=1990, owed_back=1990), []),
    ("refunding", facts(SUCCEEDED, owed_back=500), []),
    ("refund_failed", facts(SUCCEEDED, refund=of_refund(RefundStatus.FAILED, code="refund_declined")), ["refund_page"]),
    (
        "refund_failed",
        facts(SUCCEEDED, owed_back=500, refund=of_refund(RefundStatus.OWED, stopped=True)),
        ["retry_refund", "close_refund"],
    ),
    (
        "refund_failed",
        facts(SUCCEEDED, owed_back=500, refund=of_refund(RefundStatus.UNCERTAIN, stopped=True)),
        ["retry_refund", "close_refund"],
    ),
    ("disputed", facts(SUCCEEDED, dispute=dispute(due_by=NOW)), ["dispute_page"]),
    ("disputed", facts(SUCCEEDED, dispute=dispute(withdrawn=0)), ["dispute_page", "refund_page"]),
    ("dispute_lost", facts(SUCCEEDED, dispute=dispute("lost", closed=True)), []),
    ("discrepancy", facts(SUCCEEDED, discrepancy=discrepancy("amount")), ["recheck", "close_discrepancy", "discrepancies"]),
    ("discrepancy", facts(FAILED, discrepancy=discrepancy("missing_here")), ["recheck", "book", "discrepancies"]),
    ("discrepancy", facts(SUCCEEDED, discrepancy=discrepancy("duplicate")), ["recheck", "book", "discrepancies"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "payment", "verbs"), UNEXPECTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_unexpected_state_has_a_banner_with_its_safe_actions(state: str, payment: PaymentFacts, verbs: list[str]):
    [banner] = [one for one in explain(payment, may_act=True) if one.state == state]

    assert [offer.verb for offer in banner.offers] == verbs
    assert is_told(banner)


def is_told(banner: Banner) -> bool:
    """One sentence on what happened, and something on the money; no code of a processor."""
    sentences = re.findall(r"[.!?](?:\s|$)", banner.what)
    return len(sentences) == 1 and banner.money.endswith(".") and not re.search(r"\w_\w", banner.what + banner.money)


EXPECTED = [
    facts(),
    facts(PROCESSING, attempt=1, tries=1, last=last("", "")),
    facts(SUCCEEDED),
    facts(CANCELED),
    facts(SUCCEEDED, refund=of_refund(RefundStatus.FAILED, code="closed")),
    facts(SUCCEEDED, dispute=dispute("won", withdrawn=0, closed=True)),
    facts(SUCCEEDED, letter=OPEN_LETTER),
]


@pytest.mark.parametrize("payment", EXPECTED)
def test_a_payment_that_goes_as_expected_has_no_banner(payment: PaymentFacts):
    assert explain(payment, may_act=True) == []


def test_a_given_up_payment_that_is_looked_up_again_is_uncertain_and_no_dead_letter():
    payment = facts(UNCERTAIN, letter=OPEN_LETTER, due_at=NOW, last=last())

    assert [banner.state for banner in explain(payment, may_act=True)] == ["uncertain"]


# -- Any combination ---------------------------------------------------------------------------------------------

anything = st.builds(
    facts,
    st.sampled_from(Status),
    code=st.sampled_from(["", "timeout", "amount_differs", "insufficient_funds", "http_500"]),
    attempt=st.integers(0, 30),
    tries=st.integers(0, 30),
    due_at=st.sampled_from([NOW, NOW + timedelta(hours=1), NEVER]),
    scheduled_for=st.sampled_from([None, NOW + timedelta(days=1)]),
    wanted=st.sampled_from(["", "acquirer", "other"]),
    canceling=st.booleans(),
    refunded=st.sampled_from([0, 500, 1990]),
    owed_back=st.sampled_from([0, 500, 1990]),
    kind=st.sampled_from(["http", "stripe", "sandbox"]),
    last=st.sampled_from([None, last(), action("capture"), action("authenticate", needs="method"), action("wait")]),
    letter=st.sampled_from([None, OPEN_LETTER, CLOSED_LETTER]),
    refund=st.sampled_from([None, *(of_refund(s, stopped=stopped) for s in RefundStatus for stopped in (False, True))]),
    dispute=st.sampled_from([None, dispute(), dispute(withdrawn=0), dispute("lost", closed=True)]),
    discrepancy=st.sampled_from([None, *(discrepancy(kind) for kind in Difference.Kind.values)]),
    processors=st.sampled_from(
        [[], [WORKING], [BROKEN], [OFF], [BROKEN, RouteFact(name="other", enabled=True, failing=True)]]
    ),
)


@given(anything)
def test_every_banner_of_any_payment_is_told_and_its_actions_exist(payment: PaymentFacts):
    for banner in explain(payment, may_act=True):
        assert is_told(banner), banner
        assert {offer.verb for offer in banner.offers} <= {*GUARDS, *LINKS}
        assert len(banner.offers) <= 3 and len({offer.verb for offer in banner.offers} - LINKS) <= 2


@given(anything)
def test_who_may_not_act_is_offered_nothing_that_changes_anything(payment: PaymentFacts):
    acting, looking = explain(payment, may_act=True), explain(payment, may_act=False)

    assert [(one.state, one.what, one.money) for one in looking] == [(one.state, one.what, one.money) for one in acting]
    assert {offer.verb for banner in looking for offer in banner.offers} <= {PROCESSORS}


@given(anything)
def test_what_is_offered_says_what_it_means_for_the_money_before_it_is_done(payment: PaymentFacts):
    for banner in explain(payment, may_act=True):
        for offer in banner.offers:
            if offer.verb in GUARDS:
                assert GUARDS[offer.verb].warning(payment).endswith(".")


@given(anything)
def test_a_payer_is_told_of_their_money_and_of_nothing_else(payment: PaymentFacts):
    note = explain_to_payer(payment, "Corner shop")

    told = f"{note.what} {note.money} {note.at_label}"
    assert note.what.endswith(".") and note.money.endswith(".")
    assert not re.search(r"acquirer|disput|evidence|fee\b|breaker|attempt|decline|timeout|http|funds", told, re.I), told
    assert payment.shown_to_payers not in (Reversal.DISPUTED, Reversal.DISPUTE_LOST)


@given(anything)
def test_nobody_is_told_that_no_money_moved_while_that_is_unknown(payment: PaymentFacts):
    banners = explain(payment, may_act=True)
    told = explain_to_payer(payment, "Corner shop").money + "".join(one.money for one in banners)

    if payment.status is UNCERTAIN or payment.charge_unknown:
        assert "not been charged" not in told
        assert "No money has moved" not in told
    if payment.status is FAILED and payment.charge_unknown:
        assert "replay" not in {offer.verb for banner in banners for offer in banner.offers}


@given(anything)
def test_a_payment_without_a_worker_and_without_an_end_is_always_explained(payment: PaymentFacts):
    stuck = payment.given_up or payment.status is REQUIRES_ACTION
    if stuck and payment.status not in TERMINAL and (payment.letter or payment.status is REQUIRES_ACTION):
        assert explain(payment, may_act=True) != []


# -- Codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("insufficient_funds", "the account has not enough money"),
        ("http_503", "HTTP 503"),
        ("a_code_of_tomorrow", "a code of tomorrow"),
    ],
)
def test_a_code_is_told_in_words(code: str, text: str):
    assert words(code) == text


def test_words_of_codes_fit_into_a_sentence():
    assert [code for code, text in WORDS.items() if text[-1] in ".!" or "_" in text] == []
