"""Disputes: a payer's bank takes money back. They are only ever what the processor says now; nothing is decided here.

What is held back stands in the ledger as long as it is: a dispute that is won brings the reverse lines.
"""

from pathlib import Path
from typing import Final, NamedTuple

from psycopg import AsyncConnection

from payments.errors import NotRefundable, UnknownPayment
from payments.models import LedgerEntry
from payments.money import decimal_text
from payments.processors.reports import DisputeNews
from payments.refunds.balance import Held, hold, locked, move
from payments.states import SUCCEEDED
from registry.data import database, live

SQL = database.statements(Path(__file__).parent / "sql" / "disputes.sql")

# How far a dispute is (Stripe's words). Between movements of money it only goes forward, so that older news, however late,
# change nothing.
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
OVER: Final = max(RANKS.values())
UNHEARD_OF: Final = 2  # of a word that Stripe has added since: open, and not the first


class Known(NamedTuple):
    """A dispute as it stands here, in the order of `known`."""

    id: int
    status: str
    withdrawn: int
    movements: int
    amount: int
    due_by: object


def rank(status: str) -> int:
    return RANKS.get(status, UNHEARD_OF)


async def from_processor(*, tenant_id: int, processor_id: int, news: DisputeNews) -> bool:
    """Write down what the processor says now of a dispute; whether that changed anything.

    Raises UnknownPayment, and NotRefundable for a payment that is not booked there as far as we know: ask again later.
    """
    told = await locked(lambda conn: book(conn, tenant_id=tenant_id, processor_id=processor_id, news=news))
    live.publish(told)
    return bool(told)


async def book(conn: AsyncConnection, *, tenant_id: int, processor_id: int, news: DisputeNews) -> list[live.Event]:
    """The same in the caller's transaction; the events to tell after its commit."""
    correlation_id = news.subject.correlation_id
    payment = await hold(conn, tenant_id, correlation_id) if correlation_id else None
    if payment is None:
        raise UnknownPayment
    if payment.status != SUCCEEDED or payment.processor_id != processor_id:
        raise NotRefundable(f"it is {payment.status} here: its own outcome comes first")
    keys = {"tenant": tenant_id, "processor": processor_id, "reference": news.reference}
    found = await database.rows(conn, SQL["known"], keys)
    known = Known._make(found[0]) if found else None
    if known and not _newer(news, known):
        return []
    fields = {
        **keys,
        "payment": payment.id,
        "amount": news.amount,
        "currency": news.currency,
        "reason": news.reason[:100],
        "status": news.status[:50],
        "due_by": news.due_by,
        "withdrawn": news.withdrawn,
        "movements": news.movements,
        "opened_at": news.opened_at,
        "closed": rank(news.status) == OVER,
    }
    if known:
        await database.rows(conn, SQL["update"], {**fields, "dispute": known.id})
        subject = known.id
    else:
        [(subject,)] = await database.rows(conn, SQL["open"], fields)
    return await _tell(conn, tenant_id, payment, subject, news, known)


def _newer(news: DisputeNews, known: Known) -> bool:
    """Whether it says more than what we know. Two that were asked at different moments may arrive in any order.

    Movements only grow, so whoever has seen more of them was asked later, also where a dispute that was over begins anew.
    """
    if news.movements != known.movements:
        return news.movements > known.movements
    if rank(news.status) < rank(known.status):
        return False
    return (news.status, news.withdrawn, news.movements, news.amount, news.due_by) != known[1:]


async def _tell(
    conn: AsyncConnection, tenant_id: int, payment: Held, subject: int, news: DisputeNews, known: Known | None
) -> list[live.Event]:
    """The event, and with it the ledger's lines of what was moved since."""
    back = news.withdrawn - (known.withdrawn if known else 0)
    closed = rank(news.status) == OVER and not (known and rank(known.status) == OVER)
    kinds = [] if known else ["dispute.opened"]
    kinds += ["dispute.closed"] if closed else ["dispute.updated"] if known else []
    told = []
    for number, kind in enumerate(kinds):
        event = await move(
            conn,
            tenant_id,
            payment.id,
            subject=subject,
            kind=kind,
            detail=_sentence(kind, payment, news, back),
            back=back if number == 0 else 0,
            cause=LedgerEntry.Cause.DISPUTE,
        )
        told.append(event)
    return told


def _sentence(kind: str, payment: Held, news: DisputeNews, back: int) -> str:
    """For the timeline, in plain language."""
    words = news.status.replace("_", " ")
    amount = f"{decimal_text(news.amount, news.currency)} {news.currency}"
    reason = f" ({news.reason.replace('_', ' ')})" if news.reason else ""
    if kind == "dispute.opened":
        text = f"The payer's bank disputes {amount}{reason}"
    elif kind == "dispute.closed":
        text = f"The dispute is over: {words}"
    else:
        text = f"The dispute: {words}"
    if back and kind != "dispute.closed":
        return f"{text}; {decimal_text(abs(back), payment.currency)} {'held back' if back > 0 else 'came back'}"
    return text
