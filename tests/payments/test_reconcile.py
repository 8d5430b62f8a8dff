"""A processor's books against ours: each kind of difference is made and found, and what an operator does resolves it once."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from django_async_backend.db import async_new_connection

from payments import differences, ledger, reconcile, refunds
from payments.differences import NotBookable
from payments.models import (
    Attempt,
    Difference,
    LedgerEntry,
    Payment,
    PaymentEvent,
    Reconciliation,
    SandboxBooking,
    SandboxRefund,
)
from payments.processors import KINDS
from payments.processors.base import Record, ShowsBooks, Unanswered
from payments.reconcile import SAMPLE, Window
from payments.states import CANCELED, FAILED, PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN
from registry import database
from registry.api import iso
from registry.models import AuditEntry
from tests.bed.stripe import sandbox_stripe
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_payment, make_processor, make_stripe, make_tenant
from tests.payments.refunding import paying_back
from tests.settling import accept, until_settled

WHY = "the provider explained it"
HOUR = timedelta(hours=1)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
MORNING = Window(NOON - HOUR, NOON)


@pytest.fixture
async def books(tenant):
    """A processor of kind sandbox, whose books the tests write in."""
    return await in_thread(make_processor, tenant, "default", fee="0.05")


@pytest.fixture
async def other_books(tenant):
    return await in_thread(make_processor, tenant, "fallback", fee="0.15")


def book_here(tenant, processor, *, at=NOON - HOUR / 2, **fields) -> Payment:
    """A payment that we know as booked there, with its ledger lines and roll-ups."""
    payment = make_payment(tenant, status=SUCCEEDED, processor=processor, **fields)
    Payment.objects.filter(pk=payment.pk).update(requested_at=at)
    Attempt.objects.filter(payment=payment).update(requested_at=at)
    return Payment.objects.get(pk=payment.pk)


def book_there(
    processor, *, correlation_id: UUID | None = None, at=NOON - HOUR / 2, amount=1990, currency="BRL"
) -> UUID:
    """An entry in the processor's own books."""
    booking = SandboxBooking.objects.create(
        processor_id=processor.pk,
        correlation_id=correlation_id or uuid4(),
        amount=amount,
        currency=currency,
        requested_at=at,
    )
    return booking.correlation_id


def book_both(tenant, processor, **theirs) -> Payment:
    payment = book_here(tenant, processor)
    book_there(processor, correlation_id=payment.correlation_id, **theirs)
    return payment


async def account(tenant, name="default"):
    return next(one for one in await reconcile.accounts_of(tenant.pk) if one.name == name)


async def compare(tenant, name="default", window=MORNING, **options):
    return await reconcile.reconcile(await account(tenant, name), window, **options)


def found() -> list[Difference]:
    return list(Difference.objects.order_by("id"))


async def the_difference(kind: str) -> Difference:
    [one] = await in_thread(found)
    assert (one.kind, one.resolution) == (kind, "")
    return one


# -- What is found ---------------------------------------------------------------------------------------------


async def test_books_that_agree_have_no_difference(tenant, books):
    for _ in range(3):
        await in_thread(book_both, tenant, books)

    outcome = await compare(tenant)

    assert outcome == reconcile.Outcome(records=3, payments=3, differences=0, unanswered=0, finished=True)
    assert await in_thread(found) == []


async def test_what_workers_settle_agrees(tenant, books, other_books, worker):
    await accept(tenant, 20)
    await until_settled(tenant)
    now = datetime.now(UTC)

    outcome = await compare(tenant, window=Window(now - HOUR, now))

    assert (outcome.records, outcome.payments, outcome.differences) == (20, 20, 0)


async def test_a_booking_of_a_payment_that_we_never_saw_is_missing_here(tenant, books):
    correlation = await in_thread(book_there, books)

    await compare(tenant)

    one = await the_difference("missing_here")
    assert (one.correlation_id, one.payment_id, one.their_amount, one.our_status) == (correlation, None, 1990, "")


@pytest.mark.parametrize("status", [FAILED, CANCELED])
async def test_a_booking_of_a_payment_that_did_not_succeed_is_missing_here(tenant, books, status):
    payment = await in_thread(make_payment, tenant, status=status, processor=books)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))

    await compare(tenant)

    one = await the_difference("missing_here")
    assert (one.payment_id, one.our_status, one.our_amount) == (payment.pk, status, 1990)


@pytest.mark.parametrize("status", [PROCESSING, UNCERTAIN, REQUIRES_ACTION])
async def test_a_payment_on_its_way_is_no_difference_yet_and_one_that_stands_still_there_is(tenant, books, status):
    long_ago = timezone.now() - HOUR
    moving = await in_thread(
        lambda: make_payment(tenant, status=status, processor=books, created_at=long_ago, changed_at=timezone.now())
    )
    await in_thread(lambda: book_there(books, correlation_id=moving.correlation_id))
    await compare(tenant)
    assert await in_thread(found) == []

    await in_thread(Payment.objects.filter(pk=moving.pk).update, changed_at=long_ago)
    await compare(tenant, again=True)

    assert (await the_difference("missing_here")).our_status == status


async def test_our_booking_that_the_processor_denies_is_missing_there(tenant, books):
    payment = await in_thread(book_here, tenant, books)

    await compare(tenant)

    one = await the_difference("missing_there")
    assert (one.payment_id, one.our_amount, one.their_amount) == (payment.pk, 1990, None)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("amount", {"amount": 1991}), ("currency", {"currency": "USD"})], ids=["amount", "currency"]
)
async def test_figures_that_differ_are_found(tenant, books, kind, theirs):
    await in_thread(lambda: book_both(tenant, books, **theirs))

    await compare(tenant)

    one = await the_difference(kind)
    assert (one.our_amount, one.our_currency) == (1990, "BRL")
    assert (one.their_amount, one.their_currency) == (theirs.get("amount", 1990), theirs.get("currency", "BRL"))


async def test_a_refund_that_only_one_side_has_is_found(tenant, books):
    payment = await in_thread(book_both, tenant, books)
    await in_thread(give_back, books, payment, 500)

    await compare(tenant)

    one = await the_difference("refunded")
    assert (one.our_refunded, one.their_refunded) == (0, 500)


def give_back(processor, payment, amount: int) -> None:
    SandboxRefund.objects.create(
        processor_id=processor.pk,
        refund_id=uuid4(),
        correlation_id=payment.correlation_id,
        amount=amount,
        currency=payment.currency,
        requested_at=NOON,
    )


async def test_what_two_processors_booked_is_a_duplicate_at_the_one_that_our_books_do_not_name(
    tenant, books, other_books
):
    payment = await in_thread(book_both, tenant, books)
    await in_thread(lambda: book_there(other_books, correlation_id=payment.correlation_id))

    await compare(tenant)
    await compare(tenant, "fallback")

    one = await the_difference("duplicate")
    assert (one.processor_id, one.payment_id) == (other_books.pk, payment.pk)


def record(payment: Payment, reference: str) -> Record:
    return Record(
        correlation_id=payment.correlation_id,
        reference=reference,
        amount=payment.amount,
        currency="brl",
        refunded=0,
        requested_at=NOON,
    )


async def test_what_one_processor_booked_twice_is_a_duplicate(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    here, known, seen = await account(tenant), {}, set()
    twice = [record(payment, "pi_1"), record(payment, "pi_2")]
    await reconcile.learn(here, twice, known)

    verdicts = [reconcile.judge(here, one, known, seen) for one in twice]

    assert verdicts[0] is None
    assert (verdicts[1].kind, verdicts[1].key) == ("duplicate", "pi_2")


async def test_only_the_window_is_compared_its_end_excluded(tenant, books):
    await in_thread(lambda: book_here(tenant, books, at=NOON))
    await in_thread(lambda: book_there(books, at=NOON))
    first = await in_thread(lambda: book_here(tenant, books, at=NOON - HOUR))

    outcome = await compare(tenant)

    assert (outcome.records, outcome.payments) == (0, 1)
    assert (await the_difference("missing_there")).payment_id == first.pk


async def test_a_booking_whose_time_differs_there_is_asked_about_before_it_is_missed(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id, at=NOON + HOUR))

    outcome = await compare(tenant)

    assert (outcome.payments, outcome.differences) == (1, 0)


async def test_other_tenants_payments_are_not_looked_at(tenant, books, stranger):
    theirs = await in_thread(make_processor, await in_thread(lambda: _stranger()), "default")
    await in_thread(book_there, theirs)

    outcome = await compare(tenant)

    assert (outcome.records, outcome.differences) == (0, 0)


def _stranger():
    from registry.models import Tenant

    return Tenant.objects.get(slug__startswith="other-")


# -- One way -----------------------------------------------------------------------------------------------------


async def test_a_processor_without_books_is_asked_about_our_payments_one_by_one(tenant, default, worker):
    ids = await accept(tenant, 5)
    await until_settled(tenant)
    del default.booked[str(ids[2])]
    now = datetime.now(UTC)

    outcome = await compare(tenant, window=Window(now - HOUR, now))

    one = await the_difference("missing_there")
    assert not issubclass(KINDS["http"], ShowsBooks)
    assert (outcome.records, outcome.payments, one.correlation_id) == (0, 5, ids[2])


async def test_of_many_only_a_sample_is_asked_about(tenant, default, monkeypatch):
    monkeypatch.setattr(reconcile, "SAMPLE", 4)
    processor = await in_thread(lambda: tenant.processors.get())
    for _ in range(20):
        await in_thread(book_here, tenant, processor)

    outcome = await compare(tenant)

    assert SAMPLE > 4
    assert outcome.payments == outcome.differences == 4


async def test_a_processor_that_does_not_answer_leaves_it_open(tenant, default):
    processor = await in_thread(lambda: tenant.processors.get())
    await in_thread(book_here, tenant, processor)
    default.lookups_answer(500)

    outcome = await compare(tenant)

    assert (outcome.unanswered, outcome.differences) == (1, 0)


# -- How it runs -------------------------------------------------------------------------------------------------


async def test_a_window_is_compared_once(tenant, books):
    first, second = [await compare(tenant) for _ in range(2)]

    assert first.finished
    assert second is None
    assert (await compare(tenant, again=True)).finished


async def test_of_two_who_begin_at_once_one_compares(tenant, books):
    outcomes = await asyncio.gather(*(compare(tenant) for _ in range(5)))

    assert sum(outcome is not None for outcome in outcomes) == 1


async def test_it_goes_slice_by_slice_and_finds_the_same(tenant, books, monkeypatch):
    monkeypatch.setattr(reconcile, "SLICE", 2)
    for minute in range(7):
        at = NOON - timedelta(minutes=minute + 1)
        payment = await in_thread(lambda at=at: book_here(tenant, books, at=at))
        if minute != 3:
            await in_thread(lambda c=payment.correlation_id, at=at: book_there(books, correlation_id=c, at=at))

    outcome = await compare(tenant)

    assert (outcome.records, outcome.payments, outcome.differences) == (6, 7, 1)


class Torn(KINDS["sandbox"]):
    """The sandbox, whose books break off after so many slices."""

    left = 1

    async def records(self, account, since, until):
        if not Torn.left:
            raise Unanswered("the books broke off")
        Torn.left -= 1
        async for one in super().records(account, since, until):
            yield one


async def test_a_comparison_that_broke_off_goes_on_where_it_was(tenant, books, monkeypatch):
    monkeypatch.setattr(reconcile, "SLICE", 2)
    monkeypatch.setitem(KINDS, "sandbox", Torn)
    Torn.left = 1
    for minute in range(6):
        at = NOON - timedelta(minutes=minute + 1)
        payment = await in_thread(lambda at=at: book_here(tenant, books, at=at))
        await in_thread(lambda c=payment.correlation_id, at=at: book_there(books, correlation_id=c, at=at))

    broken = await compare(tenant)
    row = await in_thread(Reconciliation.objects.get)
    Torn.left = 99
    whole = await compare(tenant)

    assert (broken.finished, broken.payments, row.fault) == (False, 2, "the books broke off")
    assert (whole.finished, whole.payments, whole.records) == (True, 6, 6)


async def test_who_was_taken_for_dead_writes_nothing_more(tenant, books):
    here = await account(tenant)
    late = await reconcile._begin(here, MORNING, both_ways=True, again=False)
    await in_thread(Reconciliation.objects.update, leased_until=timezone.now() - HOUR)

    taken = await compare(tenant)

    assert taken.finished
    with pytest.raises(Unanswered, match="taken it over"):
        await late.reach(NOON, reconcile.Counted(payments=7))
    assert (await in_thread(Reconciliation.objects.get)).payments == 0


async def test_a_difference_found_again_is_one_row(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    first = await the_difference("missing_here")

    await compare(tenant, again=True)

    again = await the_difference("missing_here")
    assert again.pk == first.pk
    assert again.seen_at > first.seen_at


async def test_a_difference_that_is_not_found_again_is_gone(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await compare(tenant)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))

    await compare(tenant, again=True)

    [one] = await in_thread(found)
    assert one.resolution == "gone"


async def test_what_an_operator_closed_stays_closed_as_long_as_it_is_the_same(tenant, books):
    payment = await in_thread(lambda: book_both(tenant, books, amount=1991))
    await compare(tenant)
    one = await the_difference("amount")
    await by_hand(differences.close, difference_id=one.pk, actor="olga", reason=WHY)

    await compare(tenant, again=True)
    assert [d.resolution for d in await in_thread(found)] == ["closed"]
    await in_thread(SandboxBooking.objects.filter(correlation_id=payment.correlation_id).update, amount=2500)
    await compare(tenant, again=True)

    assert [(d.resolution, d.their_amount) for d in await in_thread(found)] == [("closed", 1991), ("", 2500)]


async def test_ten_thousand_payments_take_a_handful_of_statements(tenant, books, monkeypatch):
    await database.fetch(MANY, {"tenant": tenant.pk, "processor": books.pk, "at": NOON - HOUR / 2})
    asked = []
    fetch = database.fetch

    async def counting(sql, params=(), **options):
        asked.append(sql)
        return await fetch(sql, params, **options)

    monkeypatch.setattr(database, "fetch", counting)

    outcome = await compare(tenant)

    assert (outcome.records, outcome.payments, outcome.differences) == (10_000, 10_000, 0)
    assert len(asked) < 60


MANY = """
WITH ids AS (
    SELECT gen_random_uuid() AS correlation, %(at)s::timestamptz + n * interval '10 ms' AS at FROM generate_series(1, 10000) AS n
), there AS (
    INSERT INTO payments_sandboxbooking (processor_id, correlation_id, amount, currency, requested_at)
    SELECT %(processor)s, correlation, 1990, 'BRL', at FROM ids
)
INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, wanted_processor, status,
    sequence, code, processor_id, requested_at, fee, refunded, attempt, priority, created_at, changed_at)
SELECT %(tenant)s, correlation, '', 1990, 'BRL', '', '', 'succeeded', 2, '', %(processor)s, at, 100, 0, 1, 0, at, at FROM ids
"""


async def test_the_latest_windows_of_all_processors_are_compared(tenant, books, other_books):
    await in_thread(lambda: book_there(books, at=timezone.now() - timedelta(minutes=30)))
    await in_thread(lambda: book_there(other_books, at=timezone.now() - timedelta(minutes=90)))

    outcomes = await reconcile.reconcile_latest([tenant.pk], timedelta(hours=2))

    assert [outcome.finished for outcome in outcomes] == [True, True]
    assert len(await in_thread(found)) == 2


async def test_a_window_that_was_left_is_taken_up_with_the_latest(tenant, books):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await reconcile._begin(await account(tenant), Window(yesterday - HOUR, yesterday), both_ways=True, again=False)
    await in_thread(Reconciliation.objects.update, leased_until=None)

    await reconcile.reconcile_latest([tenant.pk], HOUR)

    assert await in_thread(lambda: Reconciliation.objects.filter(finished_at=None).count()) == 0


# -- What an operator does -----------------------------------------------------------------------------------------


async def test_what_only_the_processor_has_is_booked_once_and_the_ledger_stays_sound(tenant, books):
    failed = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    await in_thread(lambda: book_there(books, correlation_id=failed.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    done = await asyncio.gather(
        *(by_hand(differences.book, difference_id=one.pk, actor=f"olga {n}", reason=WHY) for n in range(10)),
    )

    assert any(done)
    booked = await in_thread(lambda: Payment.objects.get(status=SUCCEEDED))
    assert (booked.amount, booked.currency, booked.fee, booked.processor_id) == (1990, "BRL", 100, books.pk)
    assert booked.metadata["external"]["correlationId"] == str(failed.correlation_id)
    assert await in_thread(LedgerEntry.objects.filter(payment=booked).count) == 3
    assert await in_thread(lambda: list(PaymentEvent.objects.filter(payment=booked).values_list("status"))) == [
        ("succeeded",)
    ]
    assert await in_thread(AuditEntry.objects.filter(action="difference.book", reason=WHY).count) == 1
    assert (await ledger.prove(tenant_id=tenant.pk)).sound
    assert (await in_thread(Payment.objects.get, pk=failed.pk)).status == FAILED


@pytest.mark.parametrize("known", [False, True])
async def test_what_was_booked_as_external_is_no_difference_any_more(tenant, books, known):
    payment = await in_thread(make_payment, tenant, status=CANCELED, processor=books) if known else None
    await in_thread(lambda: book_there(books, correlation_id=payment and payment.correlation_id))
    await compare(tenant)
    await by_hand(differences.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)

    outcome = await compare(tenant, again=True)

    assert (outcome.records, outcome.payments, outcome.differences) == (1, 1, 0)
    assert [one.resolution for one in await in_thread(found)] == ["booked"]


async def test_what_was_booked_as_external_is_refunded_like_any_other(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    await by_hand(differences.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)
    booked = await in_thread(Payment.objects.get)

    await refunds.refund(tenant_id=tenant.pk, correlation_id=booked.correlation_id, amount=500)
    async with paying_back():
        await eventually(lambda: in_thread(Payment.objects.filter(refunded=500).exists))

    assert (await compare(tenant, again=True)).differences == 0
    assert (await ledger.prove(tenant_id=tenant.pk)).sound


async def test_an_external_booking_that_vanishes_there_is_missed_under_the_id_that_they_knew(tenant, books):
    correlation = await in_thread(book_there, books)
    await compare(tenant)
    await by_hand(differences.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)
    asked = (await reconcile._ours(await account(tenant), MORNING))[0].order(await account(tenant))
    await in_thread(SandboxBooking.objects.all().delete)

    outcome = await compare(tenant, again=True)

    assert asked.correlation_id == correlation
    assert outcome.differences == 1


async def test_a_merchants_metadata_makes_no_payment_external(tenant, books):
    await in_thread(
        lambda: book_here(tenant, books, metadata={"external": {"correlationId": str(uuid4()), "reference": "x"}})
    )

    [ours] = await reconcile._ours(await account(tenant), MORNING)

    assert ours.booked_for is None


async def test_a_second_booking_elsewhere_is_taken_into_the_books_where_it_is(tenant, books, other_books):
    payment = await in_thread(book_both, tenant, books)
    await in_thread(lambda: book_there(other_books, correlation_id=payment.correlation_id))
    await compare(tenant, "fallback")

    await by_hand(differences.book, difference_id=(await the_difference("duplicate")).pk, actor="olga", reason=WHY)

    assert await in_thread(lambda: Payment.objects.filter(processor=other_books, fee=299).count()) == 1
    assert (await compare(tenant, "fallback", again=True)).differences == 0


async def test_only_what_is_missing_here_can_be_booked(tenant, books):
    await in_thread(lambda: book_both(tenant, books, amount=5))
    await compare(tenant)

    with pytest.raises(NotBookable):
        await by_hand(differences.book, difference_id=(await the_difference("amount")).pk, actor="olga", reason=WHY)


@pytest.mark.parametrize("status", [QUEUED, PROCESSING, UNCERTAIN, REQUIRES_ACTION, SUCCEEDED])
async def test_what_the_senders_own_payment_may_yet_become_is_not_booked_beside_it(tenant, books, status):
    payment = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")
    await in_thread(Payment.objects.filter(pk=payment.pk).update, status=status)

    with pytest.raises(NotBookable, match=f"the payment itself is {status}"):
        await by_hand(differences.book, difference_id=one.pk, actor="olga", reason=WHY)

    assert await in_thread(Payment.objects.count) == 1
    await the_difference("missing_here")


async def test_a_payment_that_is_settled_while_its_booking_is_taken_for_another_is_not_counted_twice(tenant, books):
    payment = await in_thread(
        lambda: make_payment(tenant, status=FAILED, processor=books, changed_at=timezone.now() - HOUR)
    )
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    async with database.transaction() as conn:
        await conn.execute("UPDATE payments_payment SET status = 'succeeded' WHERE id = %s", [payment.pk])
        booking = asyncio.create_task(by_hand(differences.book, difference_id=one.pk, actor="olga", reason=WHY))
        await eventually(somebody_waits)

    with pytest.raises(NotBookable):
        await booking
    assert await in_thread(Payment.objects.count) == 1


async def somebody_waits() -> bool:
    """Whether a transaction waits for a row that another holds."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await database.fetch(sql))


async def test_looking_again_ends_a_difference_that_is_gone_and_leaves_one_that_stands(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await compare(tenant)
    one = await the_difference("missing_there")

    still = await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    now = await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    after = await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert (still, now, after) == (False, True, None)
    assert [d.resolution for d in await in_thread(found)] == ["gone"]
    assert await in_thread(AuditEntry.objects.filter(action="difference.look_again").count) == 2


async def test_looking_again_at_figures_takes_the_new_ones(tenant, books):
    payment = await in_thread(lambda: book_both(tenant, books, amount=1991))
    await compare(tenant)
    one = await the_difference("amount")
    there = SandboxBooking.objects.filter(correlation_id=payment.correlation_id)

    await in_thread(there.update, amount=1992)
    assert await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY) is False
    assert (await the_difference("amount")).their_amount == 1992
    await in_thread(there.update, amount=1990)
    assert await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY) is True


async def test_looking_again_has_a_worker_look_at_a_payment_that_is_still_open(tenant, books, worker):
    payment = await in_thread(
        lambda: make_payment(tenant, status=PROCESSING, processor=books, changed_at=timezone.now() - 2 * HOUR,
                             in_doubt_since=timezone.now() - HOUR, run_at=timezone.now() + 9 * HOUR)
    )  # fmt: skip
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert await eventually(lambda: in_thread(Payment.objects.filter(pk=payment.pk, status=SUCCEEDED).exists))


async def test_it_is_closed_once_with_a_note(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    one = await the_difference("missing_here")

    first, second = [await by_hand(differences.close, difference_id=one.pk, actor="olga", reason=WHY) for _ in range(2)]

    row = await in_thread(Difference.objects.get)
    assert (first, second) == (True, False)
    assert (row.resolution, row.resolved_by, row.note) == ("closed", "olga", WHY)
    assert (await in_thread(AuditEntry.objects.get)).action == "difference.close"


# -- At Stripe -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def stripe(tenant):
    async with sandbox_stripe() as running:
        await in_thread(make_stripe, tenant, running.url)
        yield running


@pytest.fixture
async def paid(tenant, stripe) -> list[UUID]:
    """Two payments by card."""
    async with at_work():
        ids = await accept(tenant, 2, method={"paymentMethod": "pm_card_visa"})
        await until_settled(tenant)
    return ids


async def by_hand(action, **what):
    """What an operator does, with a connection that is given back: the test's own task would keep it."""
    async with async_new_connection():
        return await action(**what)


async def compare_now(tenant):
    now = datetime.now(UTC)
    return await compare(tenant, "stripe", Window(now - HOUR, now + HOUR))


def intent_of(stripe, correlation_id: UUID):
    return next(i for i in stripe.all("payment_intent") if i["metadata"]["registry_payment"] == str(correlation_id))


async def test_stripes_books_and_ours_agree(tenant, stripe, paid):
    outcome = await compare_now(tenant)

    assert (outcome.records, outcome.payments, outcome.differences) == (2, 2, 0)


async def test_an_intent_of_somebody_else_at_stripe_is_missing_here_and_can_be_booked(tenant, stripe, paid):
    intent_of(stripe, paid[0])["metadata"] = {}
    await compare_now(tenant)
    kinds = {one.kind: one for one in await in_thread(found)}

    done = await by_hand(differences.book, difference_id=kinds["missing_here"].pk, actor="olga", reason=WHY)

    assert done
    assert kinds["missing_here"].correlation_id is None
    assert (await ledger.prove(tenant_id=tenant.pk)).sound
    again = await compare_now(tenant)
    assert (again.records, again.differences) == (2, 0)


async def test_a_refund_made_at_stripe_is_found(tenant, stripe, paid):
    charge = stripe[intent_of(stripe, paid[1])["latest_charge"]]
    charge["amount_refunded"] = 300

    await compare_now(tenant)

    one = await the_difference("refunded")
    assert (one.correlation_id, one.our_refunded, one.their_refunded) == (paid[1], 0, 300)


async def test_a_second_intent_for_the_same_payment_is_a_duplicate(tenant, stripe, paid):
    intent_of(stripe, paid[0])["metadata"] = intent_of(stripe, paid[1])["metadata"]

    await compare_now(tenant)

    assert "duplicate" in {one.kind for one in await in_thread(found)}


async def booked_twice(stripe, *, earlier: timedelta) -> tuple[Payment, str]:
    """The later payment, and the intent of the other as if it were a second booking of that one, asked for `earlier`."""
    other, payment = await in_thread(lambda: list(Payment.objects.order_by("requested_at")))
    second = intent_of(stripe, other.correlation_id)
    at = iso(payment.requested_at - earlier)
    second["metadata"] |= {"registry_payment": str(payment.correlation_id), "registry_requested_at": at}
    return payment, second["id"]


async def test_a_second_intent_is_a_duplicate_also_where_it_stands_in_another_slice(tenant, stripe, paid, monkeypatch):
    monkeypatch.setattr(reconcile, "SLICE", 1)
    payment, second = await booked_twice(stripe, earlier=HOUR / 2)

    await compare_now(tenant)

    one = await the_difference("duplicate")
    assert (one.payment_id, one.key, one.reference) == (payment.pk, second, second)


@pytest.mark.parametrize("named", [True, False], ids=["by its name", "without one"])
async def test_looking_again_at_a_duplicate_ends_it_only_once_the_second_booking_is_gone(tenant, stripe, paid, named):
    await booked_twice(stripe, earlier=HOUR / 2)
    if not named:
        await in_thread(Attempt.objects.update, reference="")
    await compare_now(tenant)
    one = await in_thread(Difference.objects.get, kind="duplicate")

    still = await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    stripe[one.reference]["status"] = "canceled"
    now = await by_hand(differences.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert (still, now) == (False, True)
    assert (await in_thread(Difference.objects.get, pk=one.pk)).resolution == "gone"


# -- The command -----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("reconcile", *arguments, stdout=out)
    return out.getvalue().strip()


WINDOW = ("--since", "2026-01-15T11:00:00Z", "--until", "2026-01-15T12:00:00Z")


def test_the_command_compares_a_window_as_often_as_it_is_asked():
    acme = make_tenant("acme")
    book_both(acme, make_processor(acme))

    for _ in range(2):
        assert "1 payments of ours, 1 records of theirs (both ways); 0 differ" in run("run", "acme", *WINDOW)


def test_the_command_fails_where_books_differ_and_lists_what_is_open():
    acme = make_tenant("acme")
    correlation = book_there(make_processor(acme))

    with pytest.raises(SystemExit) as end:
        run("run", "acme", *WINDOW)

    [one] = json.loads(run("list", "acme", "--json"))
    assert end.value.code == 1
    assert (one["kind"], one["about"], one["ours"], one["theirs"]) == ("missing_here", str(correlation), None, 1990)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--processor", "gold"), "no processor named gold"),
        (("--since", "2026-01-15T12:00:00Z", "--until", "2026-01-15T11:00:00Z"), "ends before it begins"),
        (("--since", "yesterday"), "wants a time in ISO 8601"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments, says):
    make_processor(make_tenant("acme"))

    with pytest.raises(CommandError, match=says):
        run("run", "acme", *arguments)
