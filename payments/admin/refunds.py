"""Operators' pages of refunds and disputes, and the form that refunds a payment."""

from typing import Any
from uuid import uuid4

from django.contrib import admin, messages
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from payments.admin.lists import HotList, WithPayment, money
from payments.models import Dispute, Payment, Refund
from payments.money import decimal_text
from payments.refunds import forms as refund_forms
from payments.refunds import operate
from payments.refunds.balance import left_of
from payments.refunds.debts import gives_back
from payments.refunds.disputes import OVER, rank
from payments.refunds.states import REFUND_LOOKS, RefundStatus
from registry.errors import Problem
from registry.operators.confirm import Done, Order, guarded
from registry.operators.lists import OneTenantFilter, exact, pill, since
from registry.operators.scope import OPERATE, TenantScoped, scope_of

SHOWN = 200  # refunds and disputes on a payment's page


def refund_pill(status: str) -> SafeString:
    look = REFUND_LOOKS[RefundStatus(status)]
    return pill(look.shape, look.colour, RefundStatus(status).label.lower())


def dispute_pill(status: str) -> SafeString:
    words = status.replace("_", " ")
    if rank(status) < OVER:
        return pill("◑", "amber", words)
    return pill("✕", "red", words) if status == "lost" else pill("●", "green", words)


class StateFilter(admin.SimpleListFilter):
    """By status; those that workers gave up are what an operator looks for first."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        looks = [(status.value, f"{REFUND_LOOKS[status].shape} {status.label.lower()}") for status in RefundStatus]
        return [("stopped", "! waits for an operator"), *looks]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        if self.value() == "stopped":
            return queryset.filter(closed=None, stopped_at__isnull=False)
        if self.value() in (RefundStatus.RETURNED, RefundStatus.FAILED):
            return queryset.filter(closed=self.value())
        return queryset.filter(closed=None, status=self.value()) if self.value() else queryset


def _retry(page: TenantScoped, order: Order) -> Done:
    rows = [(row.tenant_id, row.pk) for row in order.rows]
    done = operate.retry_all_sync(refunds=rows, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(rows) - done)


def _close(page: TenantScoped, order: Order) -> Done:
    rows = [(row.tenant_id, row.pk) for row in order.rows]
    done = operate.close_all_sync(refunds=rows, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(rows) - done)


STOPPED = {"closed": None, "stopped_at__isnull": False}


@admin.register(Refund)
class RefundAdmin(WithPayment, HotList):
    list_display = [
        "short_id", "payment_link", "amount_text", "state", "code", "stopped", "made_by", "created", "tenant",
    ]  # fmt: skip
    list_filter = [OneTenantFilter, StateFilter, since("created_at", "asked for")]
    list_select_related = ["tenant", "processor"]
    fields = (
        ("public_id", "tenant", "payment_link", "payment_status"),
        ("amount_text", "state", "code", "stopped"),
        ("processor", "reference", "requested"),
        ("attempt", "due", "made_by", "reason"),
        ("created", "settled"),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [
        guarded(
            "refund.retry",
            label="Retry",
            warning="Refunds in doubt are asked about at the processor first; nothing is given back twice.",
            expects=STOPPED,
            perform=_retry,
        ),
        guarded(
            "refund.close",
            label="Close as not given back",
            warning=(
                "What they held back may be refunded anew. Look at the processor's own pages first: what it gave back "
                "after all is booked when it says so."
            ),
            expects=STOPPED,
            perform=_close,
        ),
    ]

    def name_of(self, row: Refund) -> str:
        payment = self.found(row)
        return f"{decimal_text(row.amount, row.currency)} {row.currency} of payment {payment or row.payment_id}"

    @admin.display(description="refund")
    def short_id(self, refund: Refund) -> str:
        return f"{str(refund.public_id)[:8]}…"

    @admin.display(description="amount")
    def amount_text(self, refund: Refund) -> SafeString | str:
        return money(refund.amount, refund.currency)

    @admin.display(description="status")
    def state(self, refund: Refund) -> SafeString:
        return refund_pill(refund.status)

    @admin.display(description="needs a look")
    def stopped(self, refund: Refund) -> SafeString | str:
        waits = refund.stopped_at is not None and refund.closed is None
        return pill("!", "red", "workers gave it up") if waits else "–"

    @admin.display(description="asked for by")
    def made_by(self, refund: Refund) -> str:
        return "somebody at the processor" if refund.external else refund.actor or "–"

    @admin.display(description="asked for")
    def created(self, refund: Refund) -> SafeString | str:
        return exact(refund.created_at)

    @admin.display(description="settled")
    def settled(self, refund: Refund) -> SafeString | str:
        return exact(refund.settled_at)

    @admin.display(description="requested at")
    def requested(self, refund: Refund) -> SafeString | str:
        return exact(refund.requested_at)

    @admin.display(description="due at")
    def due(self, refund: Refund) -> SafeString | str:
        return exact(refund.run_at) if refund.closed is None else "–"


@admin.register(Dispute)
class DisputeAdmin(WithPayment, HotList):
    list_display = [
        "reference", "payment_link", "amount_text", "state", "reason", "held_back", "due", "opened", "tenant",
    ]  # fmt: skip
    list_filter = [OneTenantFilter, since("opened_at", "opened")]
    list_select_related = ["tenant", "processor"]
    fields = (
        ("reference", "tenant", "payment_link", "payment_status"),
        ("amount_text", "state", "reason", "held_back"),
        ("processor", "due", "opened", "closed"),
    )
    readonly_fields = [name for row in fields for name in row]

    @admin.display(description="disputed")
    def amount_text(self, dispute: Dispute) -> SafeString | str:
        return money(dispute.amount, dispute.currency)

    @admin.display(description="held back")
    def held_back(self, dispute: Dispute) -> SafeString | str:
        return money(dispute.withdrawn, dispute.currency)

    @admin.display(description="status")
    def state(self, dispute: Dispute) -> SafeString:
        return dispute_pill(dispute.status)

    @admin.display(description="evidence due")
    def due(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.due_by)

    @admin.display(description="opened")
    def opened(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.opened_at)

    @admin.display(description="over")
    def closed(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.closed_at)


# -- On a payment's page -----------------------------------------------------------------------------------


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
    return bool(left) and gives_back(kind) and _is_theirs(request, payment)


def _is_theirs(request: HttpRequest, payment: Payment) -> bool:
    return scope_of(request).allows(OPERATE, payment.tenant_id)


def refund_view(page: TenantScoped, request: HttpRequest, object_id: str) -> HttpResponse:
    """The form that asks how much and why, and then owes it. Sent again it is answered the same, whatever is left by then."""
    payment = page.get_object(request, object_id)
    if not isinstance(payment, Payment) or not _is_theirs(request, payment):
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
    page.message_user(request, "The refund is owed; a worker pays it.", messages.SUCCESS)
    return True
