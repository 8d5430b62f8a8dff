"""Claims of refunds: the columns of a claimed row, and the attempt that is made from it. No I/O."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from payments.processors.base import Account, RefundOrder
from payments.refunds.decisions import RefundClaim
from payments.states import RefundStatus


class DueRefund(NamedTuple):
    """A claimed row, in the order of the SQL file's `columns`."""

    tenant_id: int
    refund_id: int
    payment_id: int
    public_id: UUID
    correlation_id: UUID
    amount: int
    currency: str
    reason: str
    reference: str
    status: str
    attempt: int
    tries_from: int
    processor_id: int
    requested_at: datetime | None  # None: never sent
    doubted_since: datetime
    created_at: datetime
    doubted_for: float
    payment_reference: str


def claimed(row: DueRefund, account: Account, at: datetime, now: float) -> RefundClaim:
    fresh = row.status == RefundStatus.OWED
    return RefundClaim(
        tenant_id=row.tenant_id,
        payment_id=row.payment_id,
        refund_id=row.refund_id,
        order=RefundOrder(
            refund_id=row.public_id,
            payment_id=row.correlation_id,
            payment_reference=row.payment_reference,
            amount=row.amount,
            currency=row.currency,
            reason=row.reason,
            requested_at=row.requested_at or at,
            tenant_id=row.tenant_id,
            reference=row.reference,
        ),
        status=RefundStatus.PROCESSING if fresh else RefundStatus.UNCERTAIN,
        was=RefundStatus(row.status),
        number=row.attempt + 1,
        tries=row.attempt + 1 - row.tries_from,
        account=account,
        in_doubt_since=None if fresh else row.doubted_since,
        in_doubt_for=0.0 if fresh else row.doubted_for,
        taken_at=now,
        created_at=row.created_at,
    )
