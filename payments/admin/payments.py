"""Operators' pages of payments, with their attempts, timeline and ledger lines. They change nothing but refunds."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.cells import money, status_pill
from payments.admin.history import history
from payments.admin.lists import BookedAtFilter, PaymentHotList, StatusFilter
from payments.admin.refund_form import refund_view, returns
from payments.models import DeadLetter, Dispute, Payment, Processor
from payments.states import SUCCEEDED, TERMINAL, shown_state
from registry.data import clock
from registry.models import Tenant
from registry.operators.cells import ago, exact, link_to, shortened
from registry.operators.lists import OneTenantFilter, since
from registry.operators.sections import LOOK_UP
from registry.tenants import links


@admin.register(Payment)
class PaymentAdmin(PaymentHotList):
    section, place, purpose = LOOK_UP, 1, "Attempts, timeline and ledger of each; refund one."
    list_display = [
        "short_id",
        "amount_text",
        "state",
        "processor",
        "attempt",
        "code",
        "created",
        "took",
        "tenant",
    ]
    list_filter = [OneTenantFilter, StatusFilter, BookedAtFilter, since("created_at", "created")]
    list_select_related = ["tenant", "processor"]
    change_form_template = "admin/payments/payment/change_form.html"
    fields = (
        ("correlation_id", "tenant_link", "live_page"),
        ("state", "code", "letters"),
        ("amount_text", "fee_text", "processor_link", "requested"),
        ("attempt", "due", "lease", "doubtful"),
        ("wanted_processor", "priority", "created", "changed"),
        ("description", "metadata"),
    )
    readonly_fields = [name for row in fields for name in row]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        return super().get_queryset(request).select_related("tenant", "processor")

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        return queryset.filter(correlation_id=correlation)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        response = super().changeform_view(request, object_id, *args, **kwargs)
        context = getattr(response, "context_data", None) or {}
        if payment := context.get("original"):
            context.update(history(payment))
            context.update(returns(request, payment))
        return response

    def get_urls(self) -> list[Any]:
        def refund(request: HttpRequest, object_id: str) -> HttpResponse:
            return refund_view(self, request, object_id)

        view = self.admin_site.admin_view(refund)
        return [path("<path:object_id>/refund/", view, name="payments_payment_refund"), *super().get_urls()]

    @admin.display(description="correlation id")
    def short_id(self, payment: Payment) -> SafeString:
        return shortened(payment.correlation_id)

    @admin.display(description="created")
    def created(self, payment: Payment) -> SafeString | str:
        return exact(payment.created_at)

    @admin.display(description="changed")
    def changed(self, payment: Payment) -> SafeString | str:
        return exact(payment.changed_at)

    @admin.display(description="due at")
    def due(self, payment: Payment) -> SafeString | str:
        return exact(payment.run_at)

    @admin.display(description="requested at")
    def requested(self, payment: Payment) -> SafeString | str:
        return exact(payment.requested_at)

    @admin.display(description="uncertain since")
    def doubtful(self, payment: Payment) -> SafeString | str:
        return exact(payment.in_doubt_since)

    @admin.display(description="amount")
    def amount_text(self, payment: Payment) -> SafeString | str:
        return money(payment.amount, payment.currency)

    @admin.display(description="fee")
    def fee_text(self, payment: Payment) -> SafeString | str:
        return money(payment.fee, payment.currency)

    def attach(self, rows: list[Payment]) -> None:
        """Whether a dispute of the payment is open, or one was lost: one statement for the page."""
        paid = [row for row in rows if row.status == SUCCEEDED]
        mine = Dispute.objects.filter(
            tenant_id__in={row.tenant_id for row in paid}, payment_id__in=[row.pk for row in paid]
        )
        found = list(mine.values_list("payment_id", "closed_at", "withdrawn")) if paid else []
        disputed = {payment for payment, closed_at, _ in found if closed_at is None}
        lost = {payment for payment, closed_at, withdrawn in found if closed_at is not None and withdrawn > 0}
        for row in rows:
            row.shown = shown_state(  # type: ignore[attr-defined]
                row.status, amount=row.amount, refunded=row.refunded, disputed=row.pk in disputed, lost=row.pk in lost
            )

    @admin.display(description="status")
    def state(self, payment: Payment) -> SafeString:
        if not hasattr(payment, "shown"):
            self.attach([payment])
        return status_pill(payment.shown)  # type: ignore[attr-defined]

    @admin.display(description="duration")
    def took(self, payment: Payment) -> str:
        if payment.status not in TERMINAL:
            return "–"
        seconds = (payment.changed_at - payment.created_at).total_seconds()
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else ago(seconds)

    @admin.display(description="tenant")
    def tenant_link(self, payment: Payment) -> SafeString:
        return link_to(Tenant, payment.tenant_id, payment.tenant)

    @admin.display(description="booked at")
    def processor_link(self, payment: Payment) -> SafeString | str:
        return link_to(Processor, payment.processor_id, payment.processor) if payment.processor_id else "–"

    @admin.display(description="payer's page")
    def live_page(self, payment: Payment) -> SafeString:
        token = links.token_of(payment.tenant_id, payment.correlation_id)
        return format_html(
            '<a href="/payments/{}/live?token={}">what the payer sees</a>', payment.correlation_id, token
        )

    @admin.display(description="lease")
    def lease(self, payment: Payment) -> SafeString | str:
        if payment.lease_id is None or payment.leased_until is None:
            return "held by no worker"
        left = (payment.leased_until - clock.now()).total_seconds()
        until = f"for another {ago(left)}" if left > 0 else f"lapsed {ago(-left)} ago"
        return f"worker {payment.lease_id}, {until}"

    @admin.display(description="dead letters")
    def letters(self, payment: Payment) -> SafeString | str:
        found = DeadLetter.objects.filter(tenant_id=payment.tenant_id, payment_id=payment.pk).order_by("id")
        links = [link_to(DeadLetter, letter.pk, f"{letter.code} ({letter.resolution or 'open'})") for letter in found]
        return format_html(" · ".join(["{}"] * len(links)), *links) if links else "–"
