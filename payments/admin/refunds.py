"""Operators' pages of refunds."""

from django.contrib import admin
from django.db.models import Q
from django.utils.safestring import SafeString

from payments.admin.cells import money
from payments.admin.lists import PaymentHotList, WithPayment
from payments.models import Refund
from payments.money import grouped_text
from payments.refunds import operate
from payments.states import REFUND_LOOKS, RefundStatus
from registry.operators.cells import exact, pill
from registry.operators.lists import OneTenantFilter, choices_of, since
from registry.operators.sections import LOOK_UP


def refund_pill(status: str) -> SafeString:
    look = REFUND_LOOKS[RefundStatus(status)]
    return pill(look.shape, look.colour, RefundStatus(status).label.lower())


def _having(status: RefundStatus) -> Q:
    """In the words of the partial indexes: `closed` is NULL while a worker has something to do."""
    over = status in (RefundStatus.RETURNED, RefundStatus.FAILED)
    return Q(closed=status) if over else Q(closed=None, status=status)


StateFilter = choices_of(
    "state",
    {
        "stopped": ("! waits for an operator", Q(**operate.STOPPED)),
        **{
            status.value: (f"{REFUND_LOOKS[status].shape} {status.label.lower()}", _having(status))
            for status in RefundStatus
        },
    },
)


@admin.register(Refund)
class RefundAdmin(WithPayment, PaymentHotList):
    section, place, purpose = LOOK_UP, 2, "What is being paid back, and what stopped on its way: retry or close."
    list_display = [
        "short_id", "payment_link", "amount_text", "state", "why", "code", "stopped", "created", "tenant",
    ]  # fmt: skip
    list_filter = [OneTenantFilter, StateFilter, since("created_at", "requested")]
    list_select_related = ["tenant", "processor"]
    fields = (
        ("public_id", "tenant", "payment_link", "payment_status"),
        ("amount_text", "state", "code", "stopped"),
        ("processor", "reference", "requested"),
        ("attempt", "due", "made_by", "why"),
        ("created", "settled"),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [operate.RETRY, operate.CLOSE]

    def name_of(self, row: Refund) -> str:
        payment = self.found(row)
        return f"{grouped_text(row.amount, row.currency)} of payment {payment or row.payment_id}"

    @admin.display(description="refund")
    def short_id(self, refund: Refund) -> str:
        return f"{str(refund.public_id)[:8]}…"

    @admin.display(description="amount")
    def amount_text(self, refund: Refund) -> SafeString | str:
        return money(refund.amount, refund.currency)

    @admin.display(description="status")
    def state(self, refund: Refund) -> SafeString:
        return refund_pill(refund.status)

    @admin.display(description="needs attention")
    def stopped(self, refund: Refund) -> SafeString | str:
        waits = refund.stopped_at is not None and refund.closed is None
        return pill("!", "red", "failed, nobody retries") if waits else "–"

    @admin.display(description="requested by")
    def made_by(self, refund: Refund) -> str:
        return "somebody at the processor" if refund.external else refund.actor or "–"

    @admin.display(description="reason")
    def why(self, refund: Refund) -> str:
        return refund.reason or "–"

    @admin.display(description="requested")
    def created(self, refund: Refund) -> SafeString | str:
        return exact(refund.created_at)

    @admin.display(description="settled")
    def settled(self, refund: Refund) -> SafeString | str:
        return exact(refund.settled_at)

    @admin.display(description="sent at")
    def requested(self, refund: Refund) -> SafeString | str:
        return exact(refund.requested_at)

    @admin.display(description="due at")
    def due(self, refund: Refund) -> SafeString | str:
        return exact(refund.run_at) if refund.closed is None else "–"
