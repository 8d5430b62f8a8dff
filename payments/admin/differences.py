"""Operators' pages of discrepancies between a processor's records and ours."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.cells import money, status_pill
from payments.admin.lists import PaymentSearch, WithPayment
from payments.models import Difference, Payment
from payments.reconciliation import operate
from payments.states import SUCCEEDED
from registry.operators.cells import exact, link_to, pill, shortened
from registry.operators.lists import CappedPaginator, TenantFilter, resolutions, since
from registry.operators.sections import DECIDE

KINDS = {
    Difference.Kind.MISSING_HERE: ("◐", "red"),
    Difference.Kind.MISSING_THERE: ("◑", "red"),
    Difference.Kind.DUPLICATE: ("◕", "red"),
    Difference.Kind.AMOUNT: ("≠", "amber"),
    Difference.Kind.CURRENCY: ("≠", "amber"),
    Difference.Kind.REFUNDED: ("↩", "amber"),
}


@admin.register(Difference)
class DifferenceAdmin(WithPayment, PaymentSearch):
    section, place, purpose = DECIDE, 2, "Where a processor's records and ours do not agree: re-check, book or close."
    paginator = CappedPaginator
    list_display = ["look", "about", "processor", "ours", "theirs", "first_seen", "resolved", "tenant"]
    list_filter = [resolutions(Difference.Resolution.choices), TenantFilter, "kind", since("found_at", "found")]
    list_select_related = ["tenant", "processor"]
    list_display_links = ["look"]
    sortable_by = ()
    fields = (
        "look", "about", "correlation_id", "reference", "payment_link", "payment_status", "processor", "tenant", "ours",
        "theirs", "requested", "first_seen", "seen", "resolved", "resolved_at", "note",
    )  # fmt: skip
    readonly_fields = fields
    actions = [operate.LOOK_AGAIN, operate.BOOK, operate.CLOSE]

    def by_correlation(self, queryset: models.QuerySet, correlation: Any) -> models.QuerySet:
        return queryset.filter(key=str(correlation))

    def name_of(self, row: Difference) -> str:
        return f"{row.get_kind_display().lower()}: {row.key} at {row.processor} of {row.tenant}"

    @admin.display(description="kind")
    def look(self, row: Difference) -> SafeString:
        return pill(*KINDS[Difference.Kind(row.kind)], row.get_kind_display().lower())

    @admin.display(description="payment or booking")
    def about(self, row: Difference) -> SafeString:
        return shortened(row.key)

    @admin.display(description="payment")
    def payment_link(self, row: Difference) -> SafeString:
        if row.payment_id is None:
            return format_html("{}", "not one of our payments")
        return link_to(Payment, row.payment_id, shortened(row.correlation_id))

    @admin.display(description="our records")
    def ours(self, row: Difference) -> SafeString | str:
        if row.our_amount is None:
            return "–"
        return self._side(row.our_amount, row.our_refunded, row.our_currency, row.our_status)

    @admin.display(description="processor's records")
    def theirs(self, row: Difference) -> SafeString | str:
        if row.their_amount is None:
            return "–"
        return self._side(row.their_amount, row.their_refunded, row.their_currency, "")

    def _side(self, amount: int, refunded: int | None, currency: str, status: str) -> SafeString | str:
        if status not in ("", SUCCEEDED):
            return status_pill(status)
        if refunded:
            return format_html("{}<br>refunded {}", money(amount, currency), money(refunded, currency))
        return money(amount, currency)

    @admin.display(description="requested at")
    def requested(self, row: Difference) -> SafeString | str:
        return exact(row.requested_at)

    @admin.display(description="first seen")
    def first_seen(self, row: Difference) -> SafeString | str:
        return exact(row.found_at)

    @admin.display(description="last seen")
    def seen(self, row: Difference) -> SafeString | str:
        return exact(row.seen_at)

    @admin.display(description="resolved")
    def resolved(self, row: Difference) -> SafeString | str:
        if not row.resolution:
            return pill("○", "amber", "open")
        who = f" by {row.resolved_by}" if row.resolved_by else ""
        return f"{row.get_resolution_display().lower()}{who}"
