"""Operators' page of the dead letters of payments."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.cells import money
from payments.admin.lists import PaymentSearch, WithPayment
from payments.models import DeadLetter
from payments.money import grouped_text
from payments.settle import operate
from payments.states import Status
from registry.operators.cells import exact, pill, since_then
from registry.operators.lists import CappedPaginator, TenantFilter, resolutions, since
from registry.operators.sections import DECIDE


@admin.register(DeadLetter)
class DeadLetterAdmin(WithPayment, PaymentSearch):
    section, place, purpose = DECIDE, 1, "Payments that ran out of attempts: replay or close."
    paginator = CappedPaginator
    list_display = [
        "code_text",
        "amount_text",
        "waiting",
        "payment_link",
        "payment_status",
        "why",
        "resolved",
        "tenant",
    ]
    list_filter = [resolutions(DeadLetter.Resolution.choices), TenantFilter, since("created_at", "created")]
    list_select_related = ["tenant"]
    list_display_links = ["code_text"]
    sortable_by = ()
    fields = (
        "code_text", "why", "amount_text", "payment_link", "payment_status", "tenant", "waiting", "resolved", "resolved_at",
    )  # fmt: skip
    readonly_fields = fields
    actions = [operate.REPLAY, operate.CLOSE]

    def name_of(self, row: DeadLetter) -> str:
        payment = self.found(row)
        if payment is None:
            return f"{row.code}: payment {row.payment_id} of {row.tenant}, gone"
        amount, standing = grouped_text(payment.amount, payment.currency), Status(payment.status).label.lower()
        return f"{amount}, {standing}: payment {payment} of {row.tenant} ({row.code})"

    @admin.display(description="error")
    def code_text(self, letter: DeadLetter) -> str:
        return letter.code.replace("_", " ")

    @admin.display(description="detail")
    def why(self, letter: DeadLetter) -> str:
        return letter.detail or "–"

    @admin.display(description="amount")
    def amount_text(self, letter: DeadLetter) -> SafeString | str:
        payment = self.found(letter)
        return money(payment.amount, payment.currency) if payment else "–"

    @admin.display(description="waiting since")
    def waiting(self, letter: DeadLetter) -> SafeString | str:
        return exact(letter.created_at) if letter.resolution else since_then(letter.created_at)

    @admin.display(description="resolution")
    def resolved(self, letter: DeadLetter) -> SafeString | str:
        if not letter.resolution:
            return pill("○", "amber", "open")
        return f"{letter.get_resolution_display()} by {letter.resolved_by}"
