"""Refunds and disputes on a payment's page, and the form that refunds the payment."""

from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from payments.admin.cells import money
from payments.admin.disputes import dispute_pill
from payments.admin.refunds import refund_pill
from payments.models import Dispute, Payment, Refund
from payments.money import decimal_text
from payments.refunds import forms as refund_forms
from payments.refunds.balance import left_of
from payments.refunds.debts import gives_back
from registry.errors import Problem
from registry.operators.scope import OPERATE, TenantScoped, scope_of

SHOWN = 200  # refunds and disputes on a payment's page


def returns(request: HttpRequest, payment: Payment) -> dict[str, Any]:
    """Refunds and disputes of a payment, and whether this person may refund it."""
    mine = {"tenant_id": payment.tenant_id, "payment_id": payment.pk}
    refunds = list(Refund.objects.filter(**mine).order_by("number")[:SHOWN])
    for refund in refunds:
        refund.look, refund.amount_text = refund_pill(refund.status), money(refund.amount, refund.currency)  # type: ignore[attr-defined]
    disputes = list(Dispute.objects.filter(**mine).order_by("id")[:SHOWN])
    for dispute in disputes:
        dispute.look = dispute_pill(dispute.status)  # type: ignore[attr-defined]
        dispute.held_text = money(dispute.withdrawn, dispute.currency)  # type: ignore[attr-defined]
    return {"refunds": refunds, "disputes": disputes, "may_refund": may_refund(request, payment)}


def may_refund(request: HttpRequest, payment: Payment) -> bool:
    kind = payment.processor.kind if payment.processor else ""
    left = left_of(payment.status, payment.amount, payment.owed_back)
    return bool(left) and gives_back(kind) and _may_operate(request, payment)


def _may_operate(request: HttpRequest, payment: Payment) -> bool:
    return scope_of(request).allows(OPERATE, payment.tenant_id)


def refund_view(page: TenantScoped, request: HttpRequest, object_id: str) -> HttpResponse:
    """The form that refunds a payment. Posted again it gives the same answer, whatever is left to refund by then."""
    payment = page.get_object(request, object_id)
    if not isinstance(payment, Payment) or not _may_operate(request, payment):
        raise Http404
    left = decimal_text(left_of(payment.status, payment.amount, payment.owed_back), payment.currency)
    typed = refund_forms.Typed(amount=left, reason="", key=uuid4().hex)
    if request.method == "POST":
        posted = {name: request.POST.get(name, "") for name in ("amount", "reason", "key")}
        typed, units = refund_forms.check(payment, **posted)
        if _carried_out(page, request, payment, typed, units):
            return HttpResponseRedirect("../change/")
    elif not may_refund(request, payment):
        raise Http404
    context = {
        **page.admin_site.each_context(request),
        "title": "Refund",
        "opts": page.opts,
        "media": page.media,
        "payment": payment,
        "left": left,
        "typed": typed,
    }
    return TemplateResponse(request, "admin/payments/payment/refund.html", context)


def _carried_out(
    page: TenantScoped, request: HttpRequest, payment: Payment, typed: refund_forms.Typed, units: int
) -> bool:
    asked: dict[str, Any] = {
        "tenant_id": payment.tenant_id,
        "correlation_id": payment.correlation_id,
        "units": units,
        "typed": typed,
    }
    try:
        if not refund_forms.sent_before_sync(**asked):
            if not may_refund(request, payment):
                raise Http404
            if typed.wrong:
                return False
            refund_forms.carry_out_sync(**asked, actor=request.user.get_username())
    except Problem as error:
        typed.wrong["amount"] = error.detail
        return False
    page.message_user(request, "The refund is accepted; a worker sends it to the processor.", messages.SUCCESS)
    return True
