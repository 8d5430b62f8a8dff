"""Reconciliation: every kind of difference is found, by windows and slices that can be continued."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from payments.models import (
    Payment,
    Reconciliation,
    SandboxBooking,
    SandboxRefund,
)
from payments.processors import KINDS
from payments.processors.base import ProcessorRecord, ShowsBooks, Unanswered
from payments.reconciliation import comparison, matching, operate
from payments.reconciliation.comparison import SAMPLE, Window
from payments.states import CANCELED, FAILED, PROCESSING, REQUIRES_ACTION, UNCERTAIN
from registry.data import database
from tests.factories import by_hand, in_thread, make_payment, make_processor, make_tenant
from tests.payments.comparing import (
    HOUR,
    MORNING,
    NOON,
    WHY,
    account,
    book_both,
    book_here,
    book_there,
    compare,
    found,
    the_difference,
)
from tests.settling import accept, until_settled


@pytest.fixture
async def books(tenant):
    """A processor of kind sandbox, whose books the tests write in."""
    return await in_thread(make_processor, tenant, "default", fee="0.05")


@pytest.fixture
async def other_books(tenant):
    return await in_thread(make_processor, tenant, "fallback", fee="0.15")


# -- What is found ---------------------------------------------------------------------------------------------


async def test_equal_bookings_have_no_difference(tenant, books):
    for _ in range(3):
        await in_thread(book_both, tenant, books)

    outcome = await compare(tenant)

    assert outcome == comparison.Comparison(records=3, payments=3, differences=0, unanswered=0, finished=True)
    assert await in_thread(found) == []


async def test_payments_settled_by_workers_have_no_difference(tenant, books, other_books, worker):
    await accept(tenant, 20)
    await until_settled(tenant)
    now = datetime.now(UTC)

    outcome = await compare(tenant, window=Window(now - HOUR, now))

    assert (outcome.records, outcome.payments, outcome.differences) == (20, 20, 0)


async def test_a_booking_of_an_unknown_payment_is_missing_here(tenant, books):
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
async def test_an_open_payment_is_no_difference_until_it_is_stuck(tenant, books, status):
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


async def test_a_booking_that_the_processor_does_not_have_is_missing_there(tenant, books):
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


async def test_a_refund_on_one_side_only_is_a_difference(tenant, books):
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


async def test_a_payment_booked_by_two_processors_is_a_duplicate_at_the_one_not_in_our_ledger(
    tenant, books, other_books
):
    payment = await in_thread(book_both, tenant, books)
    await in_thread(lambda: book_there(other_books, correlation_id=payment.correlation_id))

    await compare(tenant)
    await compare(tenant, "fallback")

    one = await the_difference("duplicate")
    assert (one.processor_id, one.payment_id) == (other_books.pk, payment.pk)


def record(payment: Payment, reference: str) -> ProcessorRecord:
    return ProcessorRecord(
        correlation_id=payment.correlation_id,
        reference=reference,
        amount=payment.amount,
        currency="brl",
        refunded=0,
        requested_at=NOON,
    )


async def test_a_payment_booked_twice_by_one_processor_is_a_duplicate(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    here, known, seen = await account(tenant), {}, set()
    twice = [record(payment, "pi_1"), record(payment, "pi_2")]
    await comparison.learn(here, twice, known)

    first, second = [matching.match(here, one, known, seen) for one in twice]

    assert first is None
    assert (second.kind, second.key) == ("duplicate", "pi_2")


async def test_only_the_window_is_compared_its_end_excluded(tenant, books):
    await in_thread(lambda: book_here(tenant, books, at=NOON))
    await in_thread(lambda: book_there(books, at=NOON))
    first = await in_thread(lambda: book_here(tenant, books, at=NOON - HOUR))

    outcome = await compare(tenant)

    assert (outcome.records, outcome.payments) == (0, 1)
    assert (await the_difference("missing_there")).payment_id == first.pk


async def test_a_booking_with_another_time_there_is_looked_up_before_it_counts_as_missing(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id, at=NOON + HOUR))

    outcome = await compare(tenant)

    assert (outcome.payments, outcome.differences) == (1, 0)


async def test_payments_of_other_tenants_are_not_compared(tenant, books, stranger):
    theirs = await in_thread(make_processor, await in_thread(lambda: _stranger()), "default")
    await in_thread(book_there, theirs)

    outcome = await compare(tenant)

    assert (outcome.records, outcome.differences) == (0, 0)


def _stranger():
    from registry.models import Tenant

    return Tenant.objects.get(slug__startswith="other-")


# -- One way -----------------------------------------------------------------------------------------------------


async def test_at_a_processor_without_a_list_of_bookings_payments_are_looked_up_one_by_one(tenant, default, worker):
    ids = await accept(tenant, 5)
    await until_settled(tenant)
    del default.booked[str(ids[2])]
    now = datetime.now(UTC)

    outcome = await compare(tenant, window=Window(now - HOUR, now))

    one = await the_difference("missing_there")
    assert not issubclass(KINDS["http"], ShowsBooks)
    assert (outcome.records, outcome.payments, one.correlation_id) == (0, 5, ids[2])


async def test_only_a_sample_of_many_payments_is_looked_up(tenant, default, monkeypatch):
    monkeypatch.setattr(comparison, "SAMPLE", 4)
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


async def test_one_of_two_concurrent_comparisons_runs(tenant, books):
    outcomes = await asyncio.gather(*(compare(tenant) for _ in range(5)))

    assert sum(outcome is not None for outcome in outcomes) == 1


async def test_comparing_slice_by_slice_finds_the_same_differences(tenant, books, monkeypatch):
    monkeypatch.setattr(comparison, "SLICE", 2)
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


async def test_an_interrupted_comparison_continues(tenant, books, monkeypatch):
    monkeypatch.setattr(comparison, "SLICE", 2)
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


async def test_a_comparison_whose_lease_was_taken_over_writes_nothing_more(tenant, books):
    here = await account(tenant)
    late = await comparison._begin(here, MORNING, both_ways=True, again=False)
    await in_thread(Reconciliation.objects.update, leased_until=timezone.now() - HOUR)

    taken = await compare(tenant)

    assert taken.finished
    with pytest.raises(Unanswered, match="taken it over"):
        await late.reach(NOON, comparison.SliceResult(payments=7))
    assert (await in_thread(Reconciliation.objects.get)).payments == 0


async def test_a_difference_found_again_is_one_row(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    first = await the_difference("missing_here")

    await compare(tenant, again=True)

    again = await the_difference("missing_here")
    assert again.pk == first.pk
    assert again.seen_at > first.seen_at


async def test_a_difference_that_is_not_found_again_is_resolved(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await compare(tenant)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))

    await compare(tenant, again=True)

    [one] = await in_thread(found)
    assert one.resolution == "gone"


async def test_a_closed_difference_stays_closed_while_it_is_unchanged(tenant, books):
    payment = await in_thread(lambda: book_both(tenant, books, amount=1991))
    await compare(tenant)
    one = await the_difference("amount")
    await by_hand(operate.close, difference_id=one.pk, actor="olga", reason=WHY)

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

    outcomes = await comparison.reconcile_latest([tenant.pk], timedelta(hours=2))

    assert [outcome.finished for outcome in outcomes] == [True, True]
    assert len(await in_thread(found)) == 2


async def test_an_unfinished_window_is_compared_with_the_latest(tenant, books):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await comparison._begin(await account(tenant), Window(yesterday - HOUR, yesterday), both_ways=True, again=False)
    await in_thread(Reconciliation.objects.update, leased_until=None)

    await comparison.reconcile_latest([tenant.pk], HOUR)

    assert await in_thread(lambda: Reconciliation.objects.filter(finished_at=None).count()) == 0


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
def test_the_command_refuses_invalid_arguments(arguments, says):
    make_processor(make_tenant("acme"))

    with pytest.raises(CommandError, match=says):
        run("run", "acme", *arguments)
