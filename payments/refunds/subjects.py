"""Find our payment that a processor's refund or dispute is about.

Two bookings at the processor may carry the same correlation id. The second one is an external payment in our books, and its
refunds must not be booked at the first. Therefore the correlation id decides only when nothing more exact is known.
"""

from uuid import UUID

from payments.books.external import possible_ids
from payments.errors import NotRefundable
from payments.processors.base import Account
from payments.processors.reports import Subject
from payments.refunds.balance import SQL
from registry.data import database


async def payment_of(account: Account, subject: Subject, refund_id: UUID | None = None) -> UUID | None:
    """The payment's id, found by our refund's id, else by the booking's reference, else by its correlation id.

    None: it is not a payment of this tenant. Raises NotRefundable if only the correlation id matches and that payment is
    another booking: an operator may still add the right one to the books.
    """
    labelled = subject.correlation_id if subject.tenant_id == account.tenant_id else None
    keys = {"tenant": account.tenant_id, "processor": account.id, "public": refund_id, "labelled": labelled}
    ids = possible_ids(account.tenant_id, account.id, subject.correlation_id, subject.reference)
    rows = await database.fetch(SQL["subject"], {**keys, "reference": subject.reference, "ids": ids})
    if not rows:
        return labelled  # there is no such payment yet
    correlation_id: UUID
    correlation_id, certain = rows[0]
    if not certain:
        raise NotRefundable(f"the payment is another booking at {account.name} than {subject.reference}")
    return correlation_id
