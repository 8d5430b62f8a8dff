"""Book a processor's reports of disputes: a payer's bank takes money back. The processor decides; we store its latest report.

The amount that the bank withholds is in the ledger; a dispute that is won reverses those entries.
"""

from pathlib import Path
from typing import Final, NamedTuple

from psycopg import AsyncConnection

from payments.models import Dispute, LedgerEntry, Payment
from payments.money import decimal_text
from payments.processors.reports import DisputeReport
from payments.refunds.balance import LockedPayment, lock, move
from registry.data import database, live

SQL = database.statements(Path(__file__).parent / "sql" / "disputes.sql")

# Stripe's statuses in the order of a dispute's life. Between movements of money the rank only grows: a report with a lower one
# is older, and is ignored.
RANKS: Final = {
    "warning_needs_response": 0,
    "warning_under_review": 1,
    "needs_response": 2,
    "under_review": 3,
    "warning_closed": 4,
    "prevented": 4,
    "won": 4,
    "lost": 4,
}
CLOSED: Final = max(RANKS.values())
STRIPE_DASHBOARD: Final = "https://dashboard.stripe.com"
UNKNOWN: Final = 2  # a status that Stripe has added since: open, and not the first
WITHHELD: Final = "A dispute withholds money of this payment: a refund as well could give the payer the money twice."


class KnownDispute(NamedTuple):
    """A dispute in our books, in the order of `known`."""

    id: int
    status: str
    withdrawn: int
    movements: int
    amount: int
    due_by: object


async def withholds(payment: Payment) -> bool:
    """Whether a dispute withholds money of this payment, or took it for good."""
    return await Dispute.async_objects.filter(
        tenant_id=payment.tenant_id, payment_id=payment.pk, withdrawn__gt=0
    ).aexists()


def rank(status: str) -> int:
    return RANKS.get(status, UNKNOWN)


def page_of(*, kind: str | None, url: str | None, reference: str, live: bool) -> str:
    """Where evidence is given: the dispute's page at Stripe, or at a simulated one; empty for processors of other kinds."""
    if kind != "stripe":
        return ""
    if url:
        return f"{url.rstrip('/')}/sandbox/dispute/{reference}"
    return f"{STRIPE_DASHBOARD}/{'' if live else 'test/'}disputes/{reference}"


async def book(conn: AsyncConnection, *, tenant_id: int, processor_id: int, report: DisputeReport) -> list[live.Event]:
    """Book a processor's report in the caller's transaction; the events to publish after its commit.

    Raises UnknownPayment, and NotRefundable for a payment that is not booked at this processor: try again later.
    """
    payment = await lock(conn, tenant_id, report.subject.correlation_id)
    payment.must_be_booked_at(processor_id)
    keys = {"tenant": tenant_id, "processor": processor_id, "reference": report.reference}
    rows = await database.rows(conn, SQL["known"], keys)
    known = KnownDispute._make(rows[0]) if rows else None
    if known and not _newer(report, known):
        return []
    fields = {
        **keys,
        "payment": payment.id,
        "amount": report.amount,
        "currency": report.currency,
        "reason": report.reason[:100],
        "status": report.status[:50],
        "due_by": report.due_by,
        "withdrawn": report.withdrawn,
        "movements": report.movements,
        "opened_at": report.opened_at,
        "closed": rank(report.status) == CLOSED,
    }
    if known:
        await database.rows(conn, SQL["update"], {**fields, "dispute": known.id})
        subject = known.id
    else:
        [(subject,)] = await database.rows(conn, SQL["open"], fields)
    return await _book_change(conn, tenant_id, payment, subject, report, known)


def _newer(report: DisputeReport, known: KnownDispute) -> bool:
    """Whether the report is newer than our row: reports may arrive in any order.

    `movements` only grows, so a report with more of them is newer, even if it reopens a closed dispute.
    """
    if report.movements != known.movements:
        return report.movements > known.movements
    if rank(report.status) < rank(known.status):
        return False
    return (report.status, report.withdrawn, report.movements, report.amount, report.due_by) != known[1:]


async def _book_change(
    conn: AsyncConnection,
    tenant_id: int,
    payment: LockedPayment,
    subject: int,
    report: DisputeReport,
    known: KnownDispute | None,
) -> list[live.Event]:
    """Number the events, and write the ledger entries of the money that moved since the last report."""
    back = report.withdrawn - (known.withdrawn if known else 0)
    closed = rank(report.status) == CLOSED and not (known and rank(known.status) == CLOSED)
    kinds = [] if known else ["dispute.opened"]
    kinds += ["dispute.closed"] if closed else ["dispute.updated"] if known else []
    written = []
    for number, kind in enumerate(kinds):
        event = await move(
            conn,
            tenant_id,
            payment.id,
            subject=subject,
            kind=kind,
            detail=_sentence(kind, payment, report, back),
            back=back if number == 0 else 0,
            cause=LedgerEntry.Cause.DISPUTE,
        )
        written.append(event)
    return written


def _sentence(kind: str, payment: LockedPayment, report: DisputeReport, back: int) -> str:
    """The event's text in the payment's timeline."""
    words = report.status.replace("_", " ")
    amount = f"{decimal_text(report.amount, report.currency)} {report.currency}"
    reason = f" ({report.reason.replace('_', ' ')})" if report.reason else ""
    if kind == "dispute.opened":
        text = f"The payer's bank disputes {amount}{reason}"
    elif kind == "dispute.closed":
        text = f"The dispute is over: {words}"
    else:
        text = f"The dispute: {words}"
    if back and kind != "dispute.closed":
        return f"{text}; {decimal_text(abs(back), payment.currency)} {'withheld' if back > 0 else 'released'}"
    return text
