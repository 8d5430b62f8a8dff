"""Operators' pages of disputes."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.cells import money
from payments.admin.lists import PaymentHotList, WithPayment
from payments.models import Dispute
from payments.refunds.disputes import CLOSED, rank
from registry.operators.cells import breakable, exact, pill
from registry.operators.lists import OneTenantFilter, since
from registry.operators.sections import LOOK_UP


def dispute_pill(status: str) -> SafeString:
    words = status.replace("_", " ")
    if rank(status) < CLOSED:
        return pill("◑", "amber", words)
    return pill("✕", "red", words) if status == "lost" else pill("●", "green", words)


@admin.register(Dispute)
class DisputeAdmin(WithPayment, PaymentHotList):
    section, place, purpose = LOOK_UP, 3, "What payers contest, and until when evidence is due."
    list_display = ["label", "payment_link", "amount_text", "state", "why", "due", "tenant"]
    list_filter = [OneTenantFilter, since("opened_at", "opened")]
    list_display_links = ["label"]
    list_select_related = ["tenant", "processor"]
    fields = (
        ("reference", "tenant", "payment_link", "payment_status"),
        ("amount_text", "state", "reason", "held_back"),
        ("processor", "due", "opened", "closed"),
    )
    readonly_fields = [name for row in fields for name in row]

    @admin.display(description="dispute")
    def label(self, dispute: Dispute) -> SafeString:
        return breakable(dispute.reference)

    @admin.display(description="reason")
    def why(self, dispute: Dispute) -> str:
        return dispute.reason.replace("_", " ") or "–"

    @admin.display(description="disputed")
    def amount_text(self, dispute: Dispute) -> SafeString | str:
        return money(dispute.amount, dispute.currency)

    @admin.display(description="held back")
    def held_back(self, dispute: Dispute) -> SafeString | str:
        return money(dispute.withdrawn, dispute.currency)

    @admin.display(description="status")
    def state(self, dispute: Dispute) -> SafeString:
        return dispute_pill(dispute.status)

    @admin.display(description="evidence due by")
    def due(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.due_by)

    @admin.display(description="opened")
    def opened(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.opened_at)

    @admin.display(description="closed")
    def closed(self, dispute: Dispute) -> SafeString | str:
        return exact(dispute.closed_at)
