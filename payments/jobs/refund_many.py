"""Job `payments.refund_many`: accept refunds of many payments; workers send them. Running it twice refunds nothing twice."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from payments import money
from payments.books import queries
from payments.errors import AmountRefused, NotRefundable, PaymentError, UnknownPayment
from payments.refunds import refunds
from queueing.jobs.kinds import Context, kind
from registry.errors import Invalid

NAMED_AT_MOST = 1000
REFUSALS_SHOWN = 100
TIMEOUT = 3600.0  # seconds


class RefundItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A payment to refund: `amount` of it, or all that is left."""

    correlation_id: UUID
    amount: Annotated[str, Meta(max_length=30, description="a text such as 19.90")] | None = None


class RefundManyInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payments to refund."""

    payments: Annotated[list[RefundItem], Meta(min_length=1, max_length=NAMED_AT_MOST)]
    reason: Annotated[str, Meta(max_length=500)] = ""


@kind("payments.refund_many", input=RefundManyInput, runs="loop", timeout=TIMEOUT)
async def refund_many(context: Context, asked: RefundManyInput) -> dict[str, Any]:
    """Refund many payments."""
    accepted, refused = 0, []
    for number, item in enumerate(asked.payments):
        context.progress(number, len(asked.payments), "refunds requested")
        if fault := await _fault(context, item, asked.reason):
            refused.append({"correlationId": str(item.correlation_id), "detail": fault})
        else:
            accepted += 1
    context.progress(len(asked.payments), len(asked.payments), "refunds requested")
    return {"accepted": accepted, "refused": len(refused), "refusals": refused[:REFUSALS_SHOWN]}


async def _fault(context: Context, item: RefundItem, reason: str) -> str:
    """Accept the refund; why it cannot be accepted otherwise. The key makes a second run of the job a replay."""
    try:
        await refunds.refund(
            tenant_id=context.tenant_id,
            correlation_id=item.correlation_id,
            amount=await _units(context.tenant_id, item),
            reason=reason,
            actor=f"job {context.job_id}",
            idempotency_key=f"{context.job_id}:{item.correlation_id}",
        )
    except (PaymentError, UnknownPayment, Invalid) as error:
        return error.errors[0]["message"] if error.errors else error.detail
    return ""


async def _units(tenant_id: int, item: RefundItem) -> int | None:
    if item.amount is None:
        return None
    payment = await queries.status_of(tenant_id, item.correlation_id)
    if payment is None:
        raise UnknownPayment
    try:
        return money.minor_units(money.read_amount(item.amount), payment["currency"])
    except AmountRefused as error:
        raise NotRefundable(error.detail) from None
