"""The proof of the ledger finds every kind of damage to refunds, disputes and their lines."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from payments.books import ledger, purge
from payments.processors.reports import DisputeReport, RefundReport, Subject
from payments.refunds import disputes, refunds
from registry.data import database
from tests.factories import in_thread, make_processor
from tests.payments.refunding import book, booked

FOUND = ("unbalanced", "missing", "strange", "rollups_off", "refunds_off", "disputes_off")


@pytest.fixture
async def payment(tenant) -> UUID:
    """A payment of 10.00 of which 3.00 were returned, 1.00 was declined, 2.00 are owed, and 10.00 are disputed."""
    processor = await in_thread(make_processor, tenant, "sandbox", fee="0.05")
    [one] = await booked(tenant)
    for amount, failed in ((300, False), (100, True)):
        receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=one, amount=amount)
        said = RefundReport(
            reference=f"re_{amount}",
            subject=Subject(tenant_id=tenant.pk, correlation_id=one),
            refund_id=receipt.refund_id,
            amount=amount,
            pending=False,
            failed=failed,
        )
        await book(refunds, tenant, processor, said)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=one, amount=200)
    report = DisputeReport(
        reference="du_1",
        subject=Subject(tenant_id=tenant.pk, correlation_id=one),
        amount=1000,
        currency="BRL",
        reason="fraudulent",
        status="needs_response",
        withdrawn=1000,
        movements=1,
        opened_at=datetime(2026, 7, 15, tzinfo=UTC),
    )
    await book(disputes, tenant, processor, report)
    return one


def wrong(proof: ledger.Proof) -> set[str]:
    return {name for name in FOUND if getattr(proof, name)}


async def test_returned_declined_owed_and_disputed_together_are_sound(tenant, payment):
    proof = await ledger.prove(tenant_id=tenant.pk)

    assert proof == ledger.Proof(payments=1, lines=7, unbalanced=0, missing=0, strange=0, rollups_off=0)
    assert await ledger.balance(tenant_id=tenant.pk) == {"BRL": 950 - 300 - 1000}


LINE = "payments_ledgerentry WHERE tenant_id = %(tenant)s AND cause = 'refund'"
DAMAGE = {
    "a refund's line missing": (f"DELETE FROM {LINE} AND account = 'balance'", {"unbalanced", "refunds_off"}),
    "a refund's lines missing": (f"DELETE FROM {LINE}", {"refunds_off"}),
    "a refund's lines twice": (
        f"""INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id)
        SELECT tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id FROM {LINE}""",
        {"refunds_off"},
    ),
    "another amount that still adds up": (
        "UPDATE payments_ledgerentry SET amount = amount * 2 WHERE tenant_id = %(tenant)s AND cause = 'refund'",
        {"refunds_off"},
    ),
    "an account that has no part in it": (
        """UPDATE payments_ledgerentry SET account = 'fees'
        WHERE tenant_id = %(tenant)s AND cause = 'refund' AND account = 'processor'""",
        {"refunds_off"},
    ),
    "another currency": (
        "UPDATE payments_ledgerentry SET currency = 'USD' WHERE tenant_id = %(tenant)s AND cause = 'refund'",
        {"refunds_off"},
    ),
    "lines of a refund that is not there": (
        "UPDATE payments_ledgerentry SET cause_id = 987654 WHERE tenant_id = %(tenant)s AND cause = 'refund'",
        {"refunds_off"},
    ),
    "a returned refund called failed": (
        "UPDATE payments_refund SET status = 'failed' WHERE tenant_id = %(tenant)s AND status = 'returned'",
        {"refunds_off"},
    ),
    "a declined refund called returned": (
        "UPDATE payments_refund SET status = 'returned' WHERE tenant_id = %(tenant)s AND status = 'failed'",
        {"refunds_off"},
    ),
    "a payment that says more was refunded": (
        "UPDATE payments_payment SET refunded = refunded + 1 WHERE tenant_id = %(tenant)s",
        {"refunds_off"},
    ),
    "a payment that forgot what it owes": (
        "UPDATE payments_payment SET owed_back = refunded WHERE tenant_id = %(tenant)s",
        {"refunds_off"},
    ),
    "a dispute's lines missing": (
        "DELETE FROM payments_ledgerentry WHERE tenant_id = %(tenant)s AND cause = 'dispute'",
        {"disputes_off"},
    ),
    "a dispute that holds back less than its lines": (
        "UPDATE payments_dispute SET withdrawn = 400 WHERE tenant_id = %(tenant)s",
        {"disputes_off"},
    ),
    "lines of a dispute that is not there": (
        "DELETE FROM payments_dispute WHERE tenant_id = %(tenant)s",
        {"disputes_off"},
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_the_proof_finds(tenant, payment, kind):
    sql, expected = DAMAGE[kind]
    await database.fetch(sql, {"tenant": tenant.pk})

    whole = await ledger.prove(tenant_id=tenant.pk)

    assert wrong(whole) == expected
    assert not whole.sound


@pytest.mark.parametrize("kind", ["a refund's lines missing", "a dispute that holds back less than its lines"])
async def test_the_scheduled_proof_finds_new_lines_of_an_old_payment(tenant, payment, kind):
    async with database.own_connection():
        before = await ledger.prove_next()
    await database.fetch(
        "UPDATE payments_payment SET requested_at = requested_at - interval '3 hours' WHERE tenant_id = %s", [tenant.pk]
    )
    await database.fetch("DELETE FROM payments_rollup WHERE tenant_id = %s", [tenant.pk])
    await database.fetch(DAMAGE[kind][0], {"tenant": tenant.pk})

    async with database.own_connection():
        after = await ledger.prove_next()

    assert before.sound
    assert wrong(after) == DAMAGE[kind][1]


async def test_a_purge_deletes_refunds_disputes_and_bookings_of_the_sandbox(tenant, payment):
    await purge.purge(tenant_id=tenant.pk)

    for table in ("refund", "dispute", "ledgerentry", "paymentevent"):
        assert await database.fetch(f"SELECT * FROM payments_{table} WHERE tenant_id = %s", [tenant.pk]) == []
    assert await database.fetch("SELECT * FROM payments_sandboxrefund") == []
    assert await ledger.balance(tenant_id=tenant.pk) == {}
