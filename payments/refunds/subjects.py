"""Which payment of ours a refund or a dispute at a processor is about. Its label is the last to be believed.

Two bookings there may carry the same label: the second one is taken into our books as a payment of its own, and what goes
back of it must not be written down at the first.
"""

from typing import NamedTuple
from uuid import UUID

from payments.errors import NotRefundable
from payments.processors.base import Account
from payments.processors.reports import Subject
from payments.reconciliation.verdicts import external_id
from payments.refunds.balance import SQL
from registry.data import database


async def payment_of(account: Account, subject: Subject, refund_id: UUID | None = None) -> UUID | None:
    """The payment's id: by our own id of the refund, by the booking's name there, by its label. None: it is none of ours.

    Raises NotRefundable where only the label says so, and that payment is another booking: the one that it is about may
    still be taken into the books.
    """
    labelled = subject.correlation_id if subject.tenant_id == account.tenant_id else None
    keys = {"tenant": account.tenant_id, "processor": account.id, "public": refund_id, "labelled": labelled}
    names = {"reference": subject.reference, "names": _names(account, subject)}
    found = await database.fetch(SQL["about"], {**keys, **names})
    if not found:
        return labelled  # there is no such payment yet
    chosen = Chosen._make(found[0])
    if not chosen.fits:
        raise NotRefundable(f"the payment is another booking at {account.name} than {subject.reference}")
    return chosen.correlation_id


class Chosen(NamedTuple):
    """The likeliest payment, in the order of `about`."""

    correlation_id: UUID
    fits: bool


def _names(account: Account, subject: Subject) -> list[UUID]:
    """The ids under which the booking may stand in our books, as our own payment or as an external one."""
    names = [external_id(account, None, subject.reference)] if subject.reference else []
    if subject.correlation_id:
        names += external_id(account, subject.correlation_id, ""), subject.correlation_id
    return names
