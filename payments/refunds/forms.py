"""The refund form, checked and carried out the same way on a tenant's page and in the admin."""

from dataclasses import dataclass, field

from django.http import Http404
from django_async_backend.db.transaction import async_atomic

from payments import money
from payments.errors import DifferentContent, NotRefundable
from payments.models import Payment
from payments.refunds import disputes, refunds
from payments.refunds.balance import connection_of_transaction, refundable_amount
from registry.data.loop import sync_twin
from registry.edge.cards import CARD, holds_card
from registry.errors import Problem
from registry.tenants import audit


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundForm:
    """The fields as they were typed, with a message for each invalid one."""

    amount: str
    reason: str
    key: str  # the form's id: a form that is sent twice is one refund
    wrong: dict[str, str] = field(default_factory=dict)


def check(payment: Payment, *, amount: str, reason: str, key: str) -> tuple[RefundForm, int]:
    """The form with its errors, and the amount in minor units."""
    wrong, units = {}, 0
    try:
        units = money.typed_amount(amount, payment.currency)
    except Problem as error:
        wrong["amount"] = error.detail
    left = refundable_amount(payment.status, payment.amount, payment.owed_back)
    if units > left:
        wrong["amount"] = f"at most {money.decimal_text(left, payment.currency)} {payment.currency} is left to refund"
    if not reason.strip() or len(reason) > refunds.LONGEST_REASON or "\0" in reason:
        wrong["reason"] = f"Say why, in at most {refunds.LONGEST_REASON} characters."
    elif holds_card(reason):
        wrong["reason"] = CARD.capitalize() + "."
    if not key or len(key) > 100:
        wrong["key"] = "The form is not complete. Please load the page again."
    return RefundForm(amount=amount, reason=reason, key=key, wrong=wrong), units


async def submit(payment: Payment, form: RefundForm, units: int, *, actor: str, may_refund: bool) -> int | None:
    """Carry out a checked form. None if that is done, else the status of the answer, with the reasons in `form.wrong`.

    A form that was carried out before gets the same answer, whatever is refundable by now. Raises Http404 unless `may_refund`.
    """
    try:
        if await _sent_before(payment, form, units):
            return None
        if not may_refund:
            raise Http404
        if form.wrong:
            return 422
        await _carry_out(payment, form, units, actor)
    except Problem as error:
        form.wrong["amount"] = error.detail
        return error.status
    return None


async def _sent_before(payment: Payment, form: RefundForm, units: int) -> bool:
    if not units or "key" in form.wrong:
        return False
    try:
        return await refunds.exists(_new_refund(payment, form, units))
    except DifferentContent:
        raise DifferentContent("this form was sent before, with another amount or reason") from None


async def _carry_out(payment: Payment, form: RefundForm, units: int, actor: str) -> None:
    """Create the refund and its audit entry in one transaction."""
    async with async_atomic():
        receipt, event = await refunds.create(connection_of_transaction(), _new_refund(payment, form, units, actor))
        if await disputes.withholds(payment) and not receipt.replayed:  # asked under the payment's lock
            raise NotRefundable(disputes.WITHHELD)
        if not receipt.replayed:
            await audit.record(
                actor=actor,
                action="payment.refund",
                target=f"payment {payment.correlation_id}",
                tenant_id=payment.tenant_id,
                reason=form.reason.strip(),
                detail={"refund": str(receipt.refund_id), "units": units},
            )
    await refunds.announce(receipt, event)


def _new_refund(payment: Payment, form: RefundForm, units: int, actor: str = "") -> refunds.NewRefund:
    correlation_id = payment.correlation_id
    return refunds.new_refund(
        payment.tenant_id, correlation_id, units, form.reason.strip(), actor, f"form {correlation_id} {form.key}"
    )


submit_sync = sync_twin(submit)
