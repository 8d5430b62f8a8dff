"""Claims of refunds: the columns of a claimed row, and the attempt that is made from it. No I/O."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from payments.processors.base import Account, RefundOrder
from payments.refunds.decisions import RefundClaim
from payments.states import RefundStatus

COLUMNS = """p.tenant_id, p.id, p.payment_id, p.public_id, y.correlation_id, p.amount, p.currency, p.reason, p.reference,
    p.status, p.attempt, p.tries_from, p.processor_id, p.requested_at,
    coalesce(greatest(p.in_doubt_since, p.leased_until), now()), p.created_at,
    extract(epoch FROM now() - coalesce(greatest(p.in_doubt_since, p.leased_until), now()))::float8,
    coalesce((SELECT a.reference FROM payments_attempt a
        WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id AND a.reference <> ''
        ORDER BY a.number DESC LIMIT 1), '')"""
JOINS = "JOIN payments_payment y ON y.tenant_id = p.tenant_id AND y.id = p.payment_id"


class DueRefund(NamedTuple):
    """A claimed row, in the order of COLUMNS."""

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
        number=row.attempt + 1,
        tries=row.attempt + 1 - row.tries_from,
        account=account,
        in_doubt_since=None if fresh else row.doubted_since,
        in_doubt_for=0.0 if fresh else row.doubted_for,
        taken_at=now,
        created_at=row.created_at,
    )
