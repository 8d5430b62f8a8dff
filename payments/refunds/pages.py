"""The page on which a tenant's members refund a payment. A form that is sent twice is one refund."""

from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from payments.models import Payment
from payments.money import decimal_text
from payments.refunds import disputes, forms
from payments.refunds.balance import refundable_amount
from payments.refunds.refunds import can_refund
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import MAY_ACT, Visitor


@page("GET", "HEAD", "POST")
async def refund(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    visitor = await known(request)
    payment = await _of_visitor(visitor, correlation_id)
    if payment is None:
        raise Http404
    if request.method == "POST":
        return await _submit(request, visitor, payment)
    if not _is_refundable(payment) or await disputes.withholds(payment):  # the payment's page says why
        return redirect(_address("payment_live", visitor, correlation_id))
    return _page(request, visitor, payment, forms.RefundForm(amount=_left(payment), reason="", key=uuid4().hex))


async def _submit(request: PageRequest, visitor: Visitor, payment: Payment) -> HttpResponse:
    posted = {name: request.POST.get(name, "") for name in ("amount", "reason", "key")}
    form, units = forms.check(payment, **posted)
    status = await forms.submit(payment, form, units, actor=visitor.actor, may_refund=_is_refundable(payment))
    if status:
        return _page(request, visitor, payment, form, status=status)
    return redirect(_address("payment_live", visitor, payment.correlation_id))


async def refundable(visitor: Visitor | None, correlation_id: UUID) -> Payment | None:
    """The payment, if this visitor may refund it and it can be refunded."""
    payment = await _of_visitor(visitor, correlation_id)
    return payment if payment and _is_refundable(payment) else None


async def _of_visitor(visitor: Visitor | None, correlation_id: UUID) -> Payment | None:
    """The payment, if this visitor may refund it. Guests refund nothing, not even at a sandbox."""
    if visitor is None or visitor.role not in MAY_ACT:
        return None
    mine = Payment.async_objects.of(visitor.tenant.pk).select_related("processor")
    return await mine.filter(correlation_id=correlation_id).afirst()


def _is_refundable(payment: Payment) -> bool:
    if payment.processor is None or not can_refund(payment.processor.kind):
        return False
    return bool(refundable_amount(payment.status, payment.amount, payment.owed_back))


def _left(payment: Payment) -> str:
    return decimal_text(refundable_amount(payment.status, payment.amount, payment.owed_back), payment.currency)


def _address(name: str, visitor: Visitor, correlation_id: UUID) -> str:
    return f"{reverse(name, args=[correlation_id])}?{urlencode({'tenant': visitor.tenant.slug})}"


def _page(
    request: PageRequest, visitor: Visitor, payment: Payment, form: forms.RefundForm, *, status: int = 200
) -> HttpResponse:
    context = {
        "visitor": visitor,
        "payment": payment,
        "amount": decimal_text(payment.amount, payment.currency),
        "left": _left(payment),
        "form": form,
        "action": _address("payment_refund", visitor, payment.correlation_id),
        "back": _address("payment_live", visitor, payment.correlation_id),
    }
    return render(request, "payments/refund.html", context, status=status)
