"""Operators' page of the dead letters of payments."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.lists import PaymentSearch, WithPayment
from payments.models import DeadLetter
from payments.settle import operate
from registry.operators.cells import exact, pill
from registry.operators.lists import CappedPaginator, TenantFilter, resolutions, since


@admin.register(DeadLetter)
class DeadLetterAdmin(WithPayment, PaymentSearch):
    paginator = CappedPaginator
    list_display = ["code", "detail", "payment_link", "payment_status", "tenant", "created", "resolved"]
    list_filter = [resolutions(DeadLetter.Resolution.choices), TenantFilter, since("created_at", "created")]
    list_select_related = ["tenant"]
    list_display_links = ["code"]
    sortable_by = ()
    fields = ("code", "detail", "payment_link", "payment_status", "tenant", "created_at", "resolved", "resolved_at")
    readonly_fields = fields
    actions = [operate.REPLAY, operate.CLOSE]

    def name_of(self, row: DeadLetter) -> str:
        payment = self.found(row)
        standing = payment.status if payment else "gone"
        return f"{row.code}: payment {payment or row.payment_id} of {row.tenant}, {standing}"

    @admin.display(description="created")
    def created(self, letter: DeadLetter) -> SafeString | str:
        return exact(letter.created_at)

    @admin.display(description="resolved")
    def resolved(self, letter: DeadLetter) -> SafeString | str:
        if not letter.resolution:
            return pill("○", "amber", "open")
        return f"{letter.get_resolution_display()} by {letter.resolved_by}"
