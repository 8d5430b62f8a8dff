"""The page on which a tenant's people refund a payment: how much, why, and only once however often it is sent."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from payments.models import Payment
from payments.money import decimal_text
from payments.refunds import forms
from payments.refunds.balance import left_of
from payments.refunds.debts import gives_back
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import MAY_ACT, Visitor
from registry.errors import Problem


@page("GET", "HEAD", "POST")
async def refund(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    """Ask how much and why; then owe it, and show the payment."""
    visitor = await known(request)
    payment = await _theirs(visitor, correlation_id)
    if payment is None:
        raise Http404
    if request.method == "POST":
        return await _sent(request, visitor, payment)
    if not _gives_more_back(payment):
        raise Http404
    left = decimal_text(left_of(payment.status, payment.amount, payment.owed_back), payment.currency)
    return _form(request, visitor, payment, forms.Typed(amount=left, reason="", key=uuid4().hex))


async def _sent(request: PageRequest, visitor: Visitor, payment: Payment) -> HttpResponse:
    """The answer to the form: where it was carried out before, the same one, whatever is left by now."""
    posted = {name: request.POST.get(name, "") for name in ("amount", "reason", "key")}
    typed, units = forms.check(payment, **posted)
    asked: dict[str, Any] = {
        "tenant_id": visitor.tenant.pk,
        "correlation_id": payment.correlation_id,
        "units": units,
        "typed": typed,
    }
    try:
        if not await forms.sent_before(**asked):
            if not _gives_more_back(payment):
                raise Http404
            if typed.wrong:
                return _form(request, visitor, payment, typed, status=422)
            await forms.carry_out(**asked, actor=visitor.actor)
    except Problem as error:
        typed.wrong["amount"] = error.detail
        return _form(request, visitor, payment, typed, status=error.status)
    return redirect(_address("payment_live", visitor, payment.correlation_id))


async def refundable(visitor: Visitor | None, correlation_id: UUID) -> Payment | None:
    """The payment, if it is this visitor's to refund and anything is left of it."""
    payment = await _theirs(visitor, correlation_id)
    return payment if payment and _gives_more_back(payment) else None


async def _theirs(visitor: Visitor | None, correlation_id: UUID) -> Payment | None:
    """The payment, if this visitor may refund it. Guests move no money, not even a sandbox's."""
    if visitor is None or visitor.role not in MAY_ACT:
        return None
    mine = Payment.async_objects.of(visitor.tenant.pk).select_related("processor")
    return await mine.filter(correlation_id=correlation_id).afirst()


def _gives_more_back(payment: Payment) -> bool:
    if payment.processor is None or not gives_back(payment.processor.kind):
        return False
    return bool(left_of(payment.status, payment.amount, payment.owed_back))


async def refund_link(visitor: Visitor | None, correlation_id: UUID) -> str | None:
    """The page's address, for those who may use it."""
    if visitor is None or await refundable(visitor, correlation_id) is None:
        return None
    return _address("payment_refund", visitor, correlation_id)


def _address(name: str, visitor: Visitor, correlation_id: UUID) -> str:
    return f"{reverse(name, args=[correlation_id])}?{urlencode({'tenant': visitor.tenant.slug})}"


def _form(
    request: PageRequest, visitor: Visitor, payment: Payment, typed: forms.Typed, *, status: int = 200
) -> HttpResponse:
    context = {
        "visitor": visitor,
        "payment": payment,
        "amount": decimal_text(payment.amount, payment.currency),
        "left": decimal_text(left_of(payment.status, payment.amount, payment.owed_back), payment.currency),
        "typed": typed,
        "action": _address("payment_refund", visitor, payment.correlation_id),
        "back": _address("payment_live", visitor, payment.correlation_id),
    }
    return render(request, "payments/refund.html", context, status=status)
