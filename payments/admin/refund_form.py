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
from payments.refunds.balance import refundable_amount
from payments.refunds.refunds import can_refund
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
    held = any(dispute.withdrawn > 0 for dispute in disputes)
    return {"refunds": refunds, "disputes": disputes, "may_refund": may_refund(request, payment) and not held}


def may_refund(request: HttpRequest, payment: Payment) -> bool:
    kind = payment.processor.kind if payment.processor else ""
    left = refundable_amount(payment.status, payment.amount, payment.owed_back)
    return bool(left) and can_refund(kind) and _may_operate(request, payment)


def _may_operate(request: HttpRequest, payment: Payment) -> bool:
    return scope_of(request).allows(OPERATE, payment.tenant_id)


def refund_view(page: TenantScoped, request: HttpRequest, object_id: str) -> HttpResponse:
    """The form that refunds a payment. Posted again it gives the same answer, whatever is left to refund by then."""
    payment = page.get_object(request, object_id)
    if not isinstance(payment, Payment) or not _may_operate(request, payment):
        raise Http404
    left = decimal_text(refundable_amount(payment.status, payment.amount, payment.owed_back), payment.currency)
    form = refund_forms.RefundForm(amount=left, reason="", key=uuid4().hex)
    if request.method == "POST":
        posted = {name: request.POST.get(name, "") for name in ("amount", "reason", "key")}
        form, units = refund_forms.check(payment, **posted)
        actor, may = request.user.get_username(), may_refund(request, payment)
        if not refund_forms.submit_sync(payment, form, units, actor=actor, may_refund=may):
            page.message_user(request, "The refund is accepted; a worker sends it to the processor.", messages.SUCCESS)
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
        "form": form,
    }
    return TemplateResponse(request, "admin/payments/payment/refund.html", context)
