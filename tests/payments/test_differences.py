"""Operators resolve differences of reconciliation: once, with an audited reason, and without booking money twice."""

import asyncio
from uuid import uuid4

import pytest
from django.utils import timezone

from payments.books import ledger
from payments.models import (
    Difference,
    LedgerEntry,
    Payment,
    PaymentEvent,
    SandboxBooking,
)
from payments.reconciliation import comparison, operate
from payments.reconciliation.operate import NotBookable
from payments.refunds import refunds
from payments.settle import dead_letters
from payments.states import CANCELED, FAILED, PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN
from registry.data import database
from registry.models import AuditEntry
from tests.conftest import eventually
from tests.factories import by_hand, in_thread, make_dead_letter, make_payment, make_processor
from tests.payments.comparing import (
    HOUR,
    MORNING,
    WHY,
    account,
    book_both,
    book_here,
    book_there,
    compare,
    found,
    the_difference,
)
from tests.payments.refunding import paying_back


@pytest.fixture
async def books(tenant):
    """A processor of kind sandbox, whose books the tests write in."""
    return await in_thread(make_processor, tenant, "default", fee="0.05")


@pytest.fixture
async def other_books(tenant):
    return await in_thread(make_processor, tenant, "fallback", fee="0.15")


async def test_a_booking_only_at_the_processor_is_booked_once_and_the_ledger_stays_sound(tenant, books):
    failed = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    await in_thread(lambda: book_there(books, correlation_id=failed.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    done = await asyncio.gather(
        *(by_hand(operate.book, difference_id=one.pk, actor=f"olga {n}", reason=WHY) for n in range(10)),
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
async def test_an_external_booking_is_no_longer_a_difference(tenant, books, known):
    payment = await in_thread(make_payment, tenant, status=CANCELED, processor=books) if known else None
    await in_thread(lambda: book_there(books, correlation_id=payment and payment.correlation_id))
    await compare(tenant)
    await by_hand(operate.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)

    outcome = await compare(tenant, again=True)

    assert (outcome.records, outcome.payments, outcome.differences) == (1, 1, 0)
    assert [one.resolution for one in await in_thread(found)] == ["booked"]


async def test_an_external_booking_is_refunded_like_any_other(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    await by_hand(operate.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)
    booked = await in_thread(Payment.objects.get)

    await refunds.refund(tenant_id=tenant.pk, correlation_id=booked.correlation_id, amount=500)
    async with paying_back():
        await eventually(lambda: in_thread(Payment.objects.filter(refunded=500).exists))

    assert (await compare(tenant, again=True)).differences == 0
    assert (await ledger.prove(tenant_id=tenant.pk)).sound


async def test_an_external_booking_that_vanishes_is_missing_there_under_the_processors_id(tenant, books):
    correlation = await in_thread(book_there, books)
    await compare(tenant)
    await by_hand(operate.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)
    asked = (await comparison._ours(await account(tenant), MORNING))[0].order(await account(tenant))
    await in_thread(SandboxBooking.objects.all().delete)

    outcome = await compare(tenant, again=True)

    assert asked.correlation_id == correlation
    assert outcome.differences == 1


async def test_a_merchants_metadata_makes_no_payment_external(tenant, books):
    await in_thread(
        lambda: book_here(tenant, books, metadata={"external": {"correlationId": str(uuid4()), "reference": "x"}})
    )

    [ours] = await comparison._ours(await account(tenant), MORNING)

    assert ours.booked_for is None


async def test_a_second_booking_elsewhere_is_taken_into_the_books_where_it_is(tenant, books, other_books):
    payment = await in_thread(book_both, tenant, books)
    await in_thread(lambda: book_there(other_books, correlation_id=payment.correlation_id))
    await compare(tenant, "fallback")

    await by_hand(operate.book, difference_id=(await the_difference("duplicate")).pk, actor="olga", reason=WHY)

    assert await in_thread(lambda: Payment.objects.filter(processor=other_books, fee=299).count()) == 1
    assert (await compare(tenant, "fallback", again=True)).differences == 0


async def test_only_what_is_missing_here_can_be_booked(tenant, books):
    await in_thread(lambda: book_both(tenant, books, amount=5))
    await compare(tenant)

    with pytest.raises(NotBookable):
        await by_hand(operate.book, difference_id=(await the_difference("amount")).pk, actor="olga", reason=WHY)


@pytest.mark.parametrize("status", [QUEUED, PROCESSING, UNCERTAIN, REQUIRES_ACTION, SUCCEEDED])
async def test_a_booking_that_an_open_payment_may_still_settle_is_not_booked_as_external(tenant, books, status):
    payment = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")
    await in_thread(Payment.objects.filter(pk=payment.pk).update, status=status)

    with pytest.raises(NotBookable, match=f"the payment itself is {status}"):
        await by_hand(operate.book, difference_id=one.pk, actor="olga", reason=WHY)

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
        booking = asyncio.create_task(by_hand(operate.book, difference_id=one.pk, actor="olga", reason=WHY))
        await eventually(somebody_waits)

    with pytest.raises(NotBookable):
        await booking
    assert await in_thread(Payment.objects.count) == 1


async def somebody_waits() -> bool:
    """Whether a transaction waits for a row that another holds."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await database.fetch(sql))


async def test_a_recheck_resolves_a_difference_that_is_gone_and_keeps_one_that_remains(tenant, books):
    payment = await in_thread(book_here, tenant, books)
    await compare(tenant)
    one = await the_difference("missing_there")

    still = await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    now = await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)
    after = await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert (still, now, after) == (False, True, None)
    assert [d.resolution for d in await in_thread(found)] == ["gone"]
    assert await in_thread(AuditEntry.objects.filter(action="difference.look_again").count) == 2


async def test_a_recheck_updates_the_figures(tenant, books):
    payment = await in_thread(lambda: book_both(tenant, books, amount=1991))
    await compare(tenant)
    one = await the_difference("amount")
    there = SandboxBooking.objects.filter(correlation_id=payment.correlation_id)

    await in_thread(there.update, amount=1992)
    assert await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY) is False
    assert (await the_difference("amount")).their_amount == 1992
    await in_thread(there.update, amount=1990)
    assert await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY) is True


async def test_a_recheck_makes_a_worker_look_up_an_open_payment(tenant, books, worker):
    payment = await in_thread(
        lambda: make_payment(tenant, status=PROCESSING, processor=books, changed_at=timezone.now() - 2 * HOUR,
                             in_doubt_since=timezone.now() - HOUR, run_at=timezone.now() + 9 * HOUR)
    )  # fmt: skip
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    await by_hand(operate.look_again, difference_id=one.pk, actor="olga", reason=WHY)

    assert await eventually(lambda: in_thread(Payment.objects.filter(pk=payment.pk, status=SUCCEEDED).exists))


async def test_a_difference_is_closed_once_with_a_note(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    one = await the_difference("missing_here")

    first, second = [await by_hand(operate.close, difference_id=one.pk, actor="olga", reason=WHY) for _ in range(2)]

    row = await in_thread(Difference.objects.get)
    assert (first, second) == (True, False)
    assert (row.resolution, row.resolved_by, row.note) == ("closed", "olga", WHY)
    assert (await in_thread(AuditEntry.objects.get)).action == "difference.close"


async def test_a_payment_whose_booking_was_taken_into_the_books_is_not_sent_again(tenant, books):
    payment = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    letter = await in_thread(make_dead_letter, payment)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    await by_hand(operate.book, difference_id=(await the_difference("missing_here")).pk, actor="olga", reason=WHY)

    with pytest.raises(dead_letters.BookedAsExternal):
        await by_hand(dead_letters.replay, dead_letter_id=letter.pk, actor="olga", reason=WHY)

    assert (await in_thread(Payment.objects.get, pk=payment.pk)).status == FAILED


async def test_a_replay_waits_for_a_concurrent_booking(tenant, books):
    payment = await in_thread(make_payment, tenant, status=FAILED, processor=books)
    letter = await in_thread(make_dead_letter, payment)
    await in_thread(lambda: book_there(books, correlation_id=payment.correlation_id))
    await compare(tenant)
    one = await the_difference("missing_here")

    async with database.transaction() as conn:
        await conn.execute("SELECT FROM payments_payment WHERE id = %s FOR UPDATE", [payment.pk])
        replay = asyncio.create_task(by_hand(dead_letters.replay, dead_letter_id=letter.pk, actor="olga", reason=WHY))
        await eventually(somebody_waits)
        await conn.execute("UPDATE payments_difference SET resolution = 'booked' WHERE id = %s", [one.pk])

    with pytest.raises(dead_letters.BookedAsExternal):
        await replay


async def test_a_booking_that_its_processor_no_longer_shows_is_not_booked(tenant, books):
    await in_thread(book_there, books)
    await compare(tenant)
    one = await the_difference("missing_here")
    await in_thread(SandboxBooking.objects.update, amount=1)

    with pytest.raises(NotBookable, match="look again"):
        await by_hand(operate.book, difference_id=one.pk, actor="olga", reason=WHY)

    assert not await in_thread(Payment.objects.exists)


async def test_only_the_booking_that_was_looked_up_is_booked(tenant, books, monkeypatch):
    """A comparison that finds other figures while the processor is asked."""
    await in_thread(book_there, books)
    await compare(tenant)
    one = await the_difference("missing_here")
    asks = operate._must_be_listed

    async def and_meanwhile(*about) -> None:
        await asks(*about)
        await in_thread(Difference.objects.update, their_amount=2990)

    monkeypatch.setattr(operate, "_must_be_listed", and_meanwhile)

    assert await by_hand(operate.book, difference_id=one.pk, actor="olga", reason=WHY) is False
    assert not await in_thread(Payment.objects.exists)


async def test_a_difference_that_is_found_again_names_the_current_booking(tenant, books):
    correlation = await in_thread(book_there, books)
    await compare(tenant)
    await in_thread(SandboxBooking.objects.update, currency="USD")

    await compare(tenant, again=True)

    one = await the_difference("missing_here")
    assert (one.correlation_id, one.their_currency) == (correlation, "USD")
    assert await by_hand(operate.book, difference_id=one.pk, actor="olga", reason=WHY)
