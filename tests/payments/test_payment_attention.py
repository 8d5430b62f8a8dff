"""What needs attention of payments: dead letters, refunds, disputes, discrepancies, processors, events, proofs."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from django.urls import resolve
from django.utils import timezone

from payments.books import ledger
from payments.models import Difference, Dispute, Endpoint, InboundEvent, LedgerProof, Refund
from payments.settle.operate import close_means, replay_means
from payments.states import FAILED, SUCCEEDED, UNCERTAIN, RefundStatus
from registry.operators.attention import Severity
from tests.attending import named
from tests.factories import in_thread, make_dead_letter, make_payment, make_processor, make_tenant
from tests.settling import accept


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def default(acme):
    return make_processor(acme)


@pytest.fixture
def paid(acme, default):
    return make_payment(acme, status=SUCCEEDED, processor=default)


async def test_dead_letters_say_what_they_mean_for_the_money_in_each_currency(acme):
    def letters() -> None:
        for status, amount, currency in (
            (UNCERTAIN, 1990, "BRL"),
            (UNCERTAIN, 500, "USD"),
            (FAILED, 123_456_700, "BRL"),
        ):
            make_dead_letter(make_payment(acme, status=status, amount=amount, currency=currency))
        make_dead_letter(make_payment(acme, status=FAILED), resolution="closed")

    await in_thread(letters)

    [item] = await named("payments.dead_letters")

    assert item.sentence == (
        "3 payments ran out of attempts. 2 (19.90 BRL and 5.00 USD) uncertain: the payer may have been charged; "
        "1 (1,234,567.00 BRL) failed: the payer was not charged."
    )
    assert (item.severity, item.count) == (Severity.CRITICAL, 3)


async def test_closing_an_uncertain_dead_letter_says_what_it_means_for_the_money(acme):
    def letters() -> list[Any]:
        return [make_dead_letter(make_payment(acme, status=status)) for status in (UNCERTAIN, FAILED, SUCCEEDED)]

    doubtful, failed, settled = await in_thread(letters)

    closing = await in_thread(close_means, [doubtful, failed])
    assert "1 payment, 19.90 BRL: uncertain. The payer may have been charged." in closing
    assert "1 payment, 19.90 BRL: failed. The processor did not book it, and the payer was not charged." in closing
    assert "uncertain" not in await in_thread(close_means, [failed])
    assert "in another state by now" in await in_thread(close_means, [settled])
    replaying = await in_thread(replay_means, [doubtful, failed])
    assert "The same processor is asked first" in replaying
    assert "the payer is charged if it succeeds" in replaying


async def test_stopped_refunds_wait_for_somebody(acme, default, paid):
    def refund(**fields: Any) -> Refund:
        given = {"number": Refund.objects.count() + 1, "status": RefundStatus.UNCERTAIN, **fields}
        return Refund.objects.create(
            tenant=acme, payment=paid, public_id=uuid4(), fingerprint=bytes(16), amount=500, currency="BRL", processor=default, **given
        )  # fmt: skip

    await in_thread(refund)
    assert await named("refunds.stopped") == []
    await in_thread(refund, stopped_at=timezone.now())

    [item] = await named("refunds.stopped")

    assert item.sentence == "1 refund failed and nobody retries: 5.00 BRL may not have reached the payer."
    assert item.admin == "/admin/payments/refund/?tenant=acme&state=stopped"


@pytest.mark.parametrize(
    ("days", "severity"), [(10, Severity.WARNING), (2, Severity.CRITICAL), (-1, Severity.CRITICAL)]
)
async def test_disputes_are_urgent_when_their_evidence_is_due_soon(acme, default, paid, days, severity):
    due = timezone.now() + timedelta(days=days)
    fields = {"tenant": acme, "payment": paid, "processor": default, "amount": 1990, "currency": "BRL"}
    await in_thread(Dispute.objects.create, reference="du_1", status="needs_response", due_by=due, **fields)
    await in_thread(Dispute.objects.create, reference="du_2", status="under_review", due_by=due, **fields)

    [item] = await named("disputes.due")
    assert item.admin == "/admin/payments/dispute/?tenant=acme"

    assert (item.severity, item.count) == (severity, 1)
    assert item.sentence.startswith("1 dispute of 19.90 BRL wants evidence, the first ")
    assert f"{due:%Y-%m-%d %H:%M:%S} UTC" in item.sentence


async def test_discrepancies_are_counted_by_kind(acme, default):
    for key, kind in (("a", "missing_here"), ("b", "amount"), ("c", "amount")):
        given = {"tenant": acme, "processor": default, "kind": kind, "key": key, "requested_at": timezone.now()}
        await in_thread(Difference.objects.create, **given)

    [item] = await named("discrepancies")

    assert "3 discrepancies between a processor's records and ours: 2 amount, 1 missing here." in item.sentence
    assert item.severity is Severity.CRITICAL


async def test_a_processor_with_an_open_breaker_is_named_with_its_tenants(acme, default):
    other = await in_thread(make_tenant, "other")
    [well] = await named("processors.down")
    assert (well.severity, well.count) == (Severity.WELL, 1)
    shared = {"kind": "http", "url": "http://pay.example"}
    for tenant in (acme, other):
        await in_thread(make_processor, tenant, "cards", **shared)
    opened = timezone.now() - timedelta(minutes=3)
    await in_thread(
        Endpoint.objects.create, key="http:http://pay.example", breaker="open", failures=12, breaker_changed_at=opened
    )

    [item], [mine] = await named("processors.down"), await named("processors.down", [acme.pk])

    assert item.sentence.startswith("cards of acme, cards of other: the breaker is open after 12 failures")
    assert mine.sentence.startswith("cards: the breaker is open")
    assert mine.page == "/processors"
    assert item.since == opened
    assert await named("processors.down", [(await in_thread(make_tenant)).pk]) == []


async def test_a_processor_that_reports_to_be_failing_is_a_warning_and_a_disabled_one_is_nothing(acme, default):
    await in_thread(Endpoint.objects.create, key=default.endpoint, failing=True, polled_at=timezone.now())

    [item] = await named("processors.down", [acme.pk])
    assert (item.severity, "reports that it is failing" in item.sentence) == (Severity.WARNING, True)

    default.enabled = False
    await in_thread(default.save)
    assert await named("processors.down", [acme.pk]) == []


async def test_a_tenant_whose_payments_wait_because_all_its_processors_are_down_is_shown_to_operators(acme, default):
    other = await in_thread(make_tenant, "other")
    await in_thread(make_processor, other)
    for tenant in (acme, other):
        await accept(tenant, 2)
    assert await named("processors.none") == []

    down = {"key": default.endpoint, "breaker": "open", "failures": 7, "breaker_changed_at": timezone.now()}
    await in_thread(Endpoint.objects.create, **down)
    [item] = await named("processors.none")

    assert item.sentence.startswith("No processor of acme takes payments: 2 payments wait.")
    assert (item.severity, item.count) == (Severity.CRITICAL, 2)
    assert parse_qs(urlsplit(item.admin).query) == {"tenant": ["acme"]}


async def test_a_tenant_without_waiting_payments_or_with_a_processor_beside_is_not_shown(acme, default):
    await in_thread(make_tenant)  # without a processor, and without payments
    await in_thread(Endpoint.objects.create, key=default.endpoint, failing=True, polled_at=timezone.now())
    assert await named("processors.none") == []
    await accept(acme, 1)
    assert len(await named("processors.none")) == 1

    await in_thread(lambda: make_processor(acme, "named", options={"onlyByName": True}))
    assert len(await named("processors.none")) == 1
    await in_thread(make_processor, acme, "fallback")
    assert await named("processors.none") == []


async def test_dead_events_of_processors_wait_for_somebody(acme, default):
    await in_thread(
        InboundEvent.objects.create,
        tenant=acme, processor=default, event_id="evt_1", type="charge.refunded", created=timezone.now(), body=b"{}",
        source="delivery", status="dead",
    )  # fmt: skip

    [item] = await named("inbound.dead")

    assert item.count == 1
    assert "a refund or dispute may be missing" in item.sentence
    assert item.admin == "/admin/payments/inboundevent/?tenant=acme&status=dead"


# -- Proofs ------------------------------------------------------------------------------------------------------


async def test_the_last_proof_of_ledger_and_roll_ups_is_shown_with_its_result(paid):
    [before] = await named("ledger.proof")
    assert not before.known

    await ledger.prove_next()

    [of_ledger], [of_rollups] = await named("ledger.proof"), await named("rollups.proof")
    assert of_ledger.sentence == "The ledger: the last proof is sound (1 payment and 3 lines, all)."
    assert of_ledger.severity is Severity.WELL
    assert of_rollups.severity is Severity.CRITICAL  # the factory writes no roll-ups
    assert "so summaries are wrong" in of_rollups.sentence


async def test_an_unsound_or_missing_proof_of_the_ledger_needs_attention():
    found = {"payments": 7, "lines": 20, "unbalanced": 2, "missing": 1, "strange": 0, "rollups_off": 0}
    given = {"whole": True, "last_line": 1, "found": found}
    await in_thread(LedgerProof.objects.create, at=timezone.now(), sound=False, **given)

    [unsound] = await named("ledger.proof")
    assert unsound.severity is Severity.CRITICAL
    assert "2 payments, refunds or disputes whose lines do not add up to zero; 1 payments without" in unsound.sentence

    late = {**given, "found": {**found, "unbalanced": 0, "missing": 0}}
    await in_thread(LedgerProof.objects.create, at=timezone.now() - timedelta(hours=2), sound=True, **late)
    [overdue] = await named("ledger.proof")
    assert (overdue.severity, "the next ones did not run" in overdue.sentence) == (Severity.WARNING, True)


async def test_each_item_leads_a_merchant_to_the_page_where_it_is_resolved(acme, default, paid):
    def troubles() -> None:
        make_dead_letter(make_payment(acme, status=UNCERTAIN))
        of = {"tenant": acme, "payment": paid, "processor": default, "amount": 500, "currency": "BRL"}
        unsure = {"status": RefundStatus.UNCERTAIN, "stopped_at": timezone.now()}
        Refund.objects.create(number=1, public_id=uuid4(), fingerprint=bytes(16), **unsure, **of)
        Dispute.objects.create(reference="du_1", status="needs_response", **of)
        Endpoint.objects.create(key=default.endpoint, failing=True, polled_at=timezone.now())

    await in_thread(troubles)

    sources = ("payments.dead_letters", "refunds.stopped", "disputes.due", "processors.down")
    pages = [(await named(source, [acme.pk]))[0].page for source in sources]

    found = [(resolve(urlsplit(page).path).url_name, parse_qs(urlsplit(page).query)) for page in pages]
    assert found == [
        ("payment_list", {"status": ["attention"]}),
        ("refund_list", {"status": ["stopped"]}),
        ("dispute_list", {"status": ["needs_response"]}),
        ("processors", {}),
    ]
