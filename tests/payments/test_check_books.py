"""`check_books` names every difference between what is stored and what events and ledger lines add up to, and no other."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from payments.books import purge
from payments.models import Processor
from payments.processors.reports import DisputeReport, Subject
from payments.refunds import disputes, refunds
from registry.data import database
from registry.models import Tenant
from registry.tenants import audit, books
from registry.tenants.books import BookDifference
from tests.conftest import at_work
from tests.depth import deep
from tests.factories import in_thread, make_processor, make_tenant
from tests.payments.refunding import book, pay_back, paying_back
from tests.settling import accept, payments, settle_all

PURGED_EVENTS = (Path(purge.__file__).parents[1] / "migrations" / "sql" / "purged_events.sql").read_text()


class Bookings(NamedTuple):
    """Two booked payments of a tenant: one with a refund, the other with a dispute."""

    tenant: Tenant
    refunded: UUID
    disputed: UUID


@pytest.fixture
async def booked(tenant) -> Bookings:
    processor = await in_thread(make_processor, tenant, "sandbox", fee="0.05")
    refunded, disputed = await accept(tenant, 2, amount=1990)
    await settle_all(tenant)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=refunded, amount=300)
    await pay_back(refunded, "returned")
    await dispute(tenant, processor, disputed, reference="du_1")
    async with database.own_connection():
        await audit.record(actor="owner", action="key.create", target="key", tenant_id=tenant.pk)
        await audit.record(actor="owner", action="key.revoke", target="key", tenant_id=tenant.pk)
    return Bookings(tenant, refunded, disputed)


async def dispute(tenant: Tenant, processor: Processor, payment: UUID, *, reference: str) -> None:
    """The payer's bank takes 10.00 of the payment."""
    report = DisputeReport(
        reference=reference,
        subject=Subject(tenant_id=tenant.pk, correlation_id=payment),
        amount=1000,
        currency="BRL",
        reason="fraudulent",
        status="needs_response",
        withdrawn=1000,
        movements=1,
        opened_at=datetime(2026, 7, 15, tzinfo=UTC),
    )
    await book(disputes, tenant, processor, report)


async def check(*tenants: Tenant) -> list[BookDifference]:
    """What a check of these tenants finds."""
    findings = await books.check([one.pk for one in tenants], lambda place, found: None)
    return [one for _, one in findings.named]


async def damage(sql: str, found: Bookings) -> None:
    """Change rows as a superuser of the database could, past constraints and triggers."""
    params = {"tenant": found.tenant.pk, "refunded": found.refunded, "disputed": found.disputed}
    async with database.transaction() as conn:
        await conn.execute("SET LOCAL session_replication_role = replica")
        await conn.execute(sql, params)


# -- Nothing to report ---------------------------------------------------------------------------------------------


async def test_settled_refunded_and_disputed_payments_differ_in_nothing(booked):
    assert await check(booked.tenant) == []


# -- Planted errors -------------------------------------------------------------------------------------------------

PAYMENT = "(SELECT id FROM payments_payment WHERE correlation_id = %(refunded)s)"
DISPUTED = "(SELECT id FROM payments_payment WHERE correlation_id = %(disputed)s)"
COLUMNS = "tenant_id, payment_id, status, processor_id, attempt, at, detail, kind, subject_id"

PLANTED = {
    "a cent in a payment": (
        "UPDATE payments_payment SET amount = amount + 1 WHERE correlation_id = %(refunded)s",
        {"payment.amount", "rollup.second", "rollup.hour"},
        "payment {refunded}: amount 19.91 BRL; it should be 19.90 BRL, as its ledger lines have it",
    ),
    "a cent in a fee": (
        "UPDATE payments_payment SET fee = fee + 1 WHERE correlation_id = %(refunded)s",
        {"payment.fee", "rollup.second", "rollup.hour"},
        "payment {refunded}: fee 1.01 BRL; it should be 1.00 BRL, as its ledger lines have it",
    ),
    "a cent in a ledger line": (
        f"UPDATE payments_ledgerentry SET amount = amount - 1 WHERE account = 'balance' AND cause = 'payment' AND payment_id = {PAYMENT}",
        {"ledger.amount", "balance"},
        "on account balance -18.91 BRL; it should be -18.90 BRL",
    ),
    "a cent in a roll-up of a second": (
        "UPDATE payments_rollup SET amount = amount + 1 WHERE width = 1",
        {"rollup.second"},
        "processor sandbox: 2 payments, 39.81 BRL, fees 2.00 BRL; it should be 2 payments, 39.80 BRL, fees 2.00 BRL",
    ),
    "a cent in a roll-up of an hour": (
        "UPDATE payments_rollup SET amount = amount + 1 WHERE width = 3600",
        {"rollup.hour", "summary", "balance"},
        "summary of processor sandbox in BRL: 2 payments, 39.81 BRL; it should be 2 payments, 39.80 BRL",
    ),
    "a cent in a refunded sum": (
        "UPDATE payments_payment SET refunded = refunded + 1 WHERE correlation_id = %(refunded)s",
        {"payment.refunded"},
        "payment {refunded}: refunded: 3.01 BRL; it should be 3.00 BRL, as its refunds add up to",
    ),
    "an event deleted": (
        f"DELETE FROM payments_paymentevent WHERE sequence = 2 AND payment_id = {PAYMENT}",
        {"event.missing", "stream.missing"},
        "payment {refunded}: 4 events, without 2; it should be the events 1 to 5",
    ),
    "an event doubled": (
        f"""INSERT INTO payments_paymentevent (position, sequence, {COLUMNS})
            SELECT position + 100, 6, {COLUMNS} FROM payments_paymentevent WHERE sequence = 5 AND payment_id = {PAYMENT}""",
        {"event.double", "stream.missing"},
        "payment {refunded}: 6 events; too many: 6, which repeats 5; it should be the events 1 to 5",
    ),
    "an event renumbered within its payment": (
        f"UPDATE payments_paymentevent SET sequence = 7 WHERE sequence = 3 AND payment_id = {PAYMENT}",
        {"event.number"},
        "payment {refunded}: events have the numbers 1 to 2, 4 to 5, 7; it should be 1 to 5: 7 was 3",
    ),
    "an event renumbered within the stream": (
        f"UPDATE payments_paymentevent SET position = 99 WHERE sequence = 2 AND payment_id = {PAYMENT}",
        {"event.number", "stream.missing"},
        "events 10 to 98 of the stream: missing",
    ),
    "a ledger line deleted": (
        f"DELETE FROM payments_ledgerentry WHERE account = 'fees' AND payment_id = {PAYMENT}",
        {"ledger.missing"},
        "payment {refunded}: no ledger line on account fees; it should be a line of -1.00 BRL",
    ),
    "a dispute without lines": (
        f"DELETE FROM payments_ledgerentry WHERE cause = 'dispute' AND payment_id = {DISPUTED}",
        {"dispute.without_line"},
        "dispute du_1 of payment {disputed}: no ledger lines; it should be pairs of lines that take 10.00 BRL",
    ),
    "an audit entry changed": (
        "UPDATE registry_auditentry SET actor = 'nobody' WHERE action = 'key.create'",
        {"audit"},
        "at position 1: the entry, or its place, was changed",
    ),
    # Beyond the twelve.
    "a status changed": (
        "UPDATE payments_payment SET status = 'failed' WHERE correlation_id = %(disputed)s",
        {"payment.status", "ledger.stray", "rollup.second", "rollup.hour"},
        "payment {disputed}: status failed; it should be succeeded, by its last event",
    ),
    "a payment lost with all that belongs to it": (
        f"""WITH lines AS (DELETE FROM payments_ledgerentry WHERE payment_id = {DISPUTED}),
            events AS (DELETE FROM payments_paymentevent WHERE payment_id = {DISPUTED}),
            disputes AS (DELETE FROM payments_dispute WHERE payment_id = {DISPUTED})
            DELETE FROM payments_payment WHERE id = {DISPUTED}""",
        {"stream.missing", "rollup.second", "rollup.hour", "summary", "balance"},
        "of the stream: missing; it should be there: numbers have no gaps",
    ),
    "a payment lost alone": (
        f"DELETE FROM payments_payment WHERE id = {DISPUTED}",
        {"stream.stray", "ledger.stray", "dispute.stray", "rollup.second", "rollup.hour"},
        "dispute du_1 of payment with id",
    ),
    "a refund lost": (
        f"DELETE FROM payments_refund WHERE payment_id = {PAYMENT}",
        {"payment.refunded", "payment.owed_back", "ledger.stray"},
        "payment {refunded}: refunded: 3.00 BRL; it should be 0.00 BRL, as its refunds add up to",
    ),
    "a refund of another amount": (
        f"UPDATE payments_refund SET amount = amount + 1 WHERE payment_id = {PAYMENT}",
        {"payment.refunded", "payment.owed_back", "refund.lines"},
        "of payment {refunded}: 2 ledger lines, which take 3.00 BRL from the balance",
    ),
    "another time of the booking": (
        "UPDATE payments_payment SET requested_at = requested_at - interval '1 day' WHERE correlation_id = %(refunded)s",
        {"payment.booking", "rollup.second", "rollup.hour"},
        "payment {refunded}: booked at processor",
    ),
    "a roll-up lost": (
        "DELETE FROM payments_rollup WHERE width = 1",
        {"rollup.second"},
        "0 payments, 0.00 BRL, fees 0.00 BRL; it should be 2 payments, 39.80 BRL",
    ),
    "two roll-ups swapped": (
        "UPDATE payments_rollup SET starts_at = starts_at - interval '1 hour' WHERE width = 3600",
        {"rollup.hour"},
        "2 payments, 39.80 BRL, fees 2.00 BRL; it should be 0 payments",
    ),
    "the latest event deleted": (
        "DELETE FROM payments_paymentevent WHERE tenant_id = %(tenant)s AND position = 9",
        {"event.missing"},
        "without",
    ),
}


@pytest.mark.parametrize(("sql", "kinds", "words"), PLANTED.values(), ids=PLANTED)
async def test_a_planted_error_is_named(booked, sql: str, kinds: set[str], words: str):
    await damage(sql, booked)

    found = await check(booked.tenant)

    assert {one.kind for one in found} == kinds
    assert words.format(**booked._asdict()) in "\n".join(one.sentence for one in found)


async def test_what_is_wrong_at_one_tenant_is_not_reported_for_another(booked):
    other = await in_thread(make_tenant)
    await damage("UPDATE payments_payment SET amount = amount + 1 WHERE correlation_id = %(refunded)s", booked)

    assert await check(other) == []


# -- Purges -----------------------------------------------------------------------------------------------------------


async def test_a_purge_is_where_counting_starts_anew(booked):
    await purge.purge(tenant_id=booked.tenant.pk)
    await accept(booked.tenant, 3)
    await settle_all(booked.tenant)

    assert await check(booked.tenant) == []


async def test_payments_that_a_purge_left_are_counted_with_those_it_deleted(booked):
    before = await purge.clock()
    await accept(booked.tenant, 3)
    await settle_all(booked.tenant)
    await purge.purge(tenant_id=booked.tenant.pk, before=before)

    assert await check(booked.tenant) == []


@pytest.mark.parametrize("newest", [False, True], ids=["before the purge's last event", "after it"])
async def test_a_payment_lost_beside_a_purge_is_found(tenant, newest: bool):
    await in_thread(make_processor, tenant)
    kept = await accept(tenant, 2)
    before = await purge.clock()
    await database.fetch("UPDATE payments_payment SET created_at = now() WHERE correlation_id = ANY(%s)", [kept])
    await accept(tenant, 1)
    await database.fetch("UPDATE payments_payment SET created_at = %s WHERE correlation_id <> ALL(%s)", [before, kept])
    late = await accept(tenant, 2)
    await purge.purge(tenant_id=tenant.pk, before=before)
    assert await check(tenant) == []

    lost = late[0] if newest else kept[0]
    await database.fetch(
        """WITH gone AS (DELETE FROM payments_payment WHERE correlation_id = %s RETURNING id)
        DELETE FROM payments_paymentevent WHERE payment_id IN (SELECT id FROM gone)""",
        [lost],
    )

    [found] = await check(tenant)
    assert found.sentence == (
        "event 4 of the stream: missing; it should be there: numbers have no gaps"
        if newest
        else "events 1 to 3 of the stream: 1 events; it should be 2: purges deleted 1 of them"
    )


async def test_what_purges_deleted_before_they_were_counted_is_counted_by_the_migration(booked):
    await purge.purge(tenant_id=booked.tenant.pk, before=await purge.clock())
    await accept(booked.tenant, 1)
    await database.fetch(  # as it was stored then: `position` was the latest number
        "UPDATE payments_stream s SET purged = 0, purged_until = 0, position = l.position FROM payments_latest l WHERE l.tenant_id = s.tenant_id"
    )
    before = await check(booked.tenant)
    await database.fetch(PURGED_EVENTS)

    assert {one.kind for one in before} == {"stream.missing"}
    assert await check(booked.tenant) == []


# -- A busy database ----------------------------------------------------------------------------------------------------


async def test_nothing_is_reported_while_payments_retries_refunds_disputes_and_purges_go_on(tenant, quick, monkeypatch):
    """In slices of a few rows, so that much is committed between one and the next."""
    monkeypatch.setattr(books, "SLICE", 7)
    processor = await in_thread(make_processor, tenant, "sandbox", fee="0.05")
    await in_thread(make_processor, tenant, "failing", fee="0.01", options={"failing": True})
    await in_thread(make_processor, tenant, "declining", fee="0.01", options={"decline": 0.5})
    found: list[BookDifference] = []
    async with at_work(), paying_back():
        business = asyncio.create_task(do_business(tenant, processor))
        while not business.done():
            found += await check(tenant)
        await business

    assert [one.sentence for one in found] == []
    assert await check(tenant) == []


async def do_business(tenant: Tenant, processor: Processor) -> None:
    """Payments at three processors; refunds of those booked, and disputes about them; purges of the oldest."""
    for turn in range(deep(8, 60)):
        await accept(tenant, 15, amount=1000 + turn, processor="sandbox")
        await accept(tenant, 5, processor="declining")
        await accept(tenant, 2, processor="failing")
        rows = await payments(tenant)
        for row in [row for row in rows if row.status == "succeeded" and row.processor == "sandbox"][-5:]:
            await refunds.refund(tenant_id=tenant.pk, correlation_id=row.correlation_id, amount=turn + 1)
            await dispute(tenant, processor, row.correlation_id, reference=f"du_{turn}_{row.id}")
        if turn % 3 == 2:
            await purge.purge(tenant_id=tenant.pk, before=await purge.clock() - timedelta(seconds=1))
