"""Operators' pages of ledger lines."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.cells import money
from payments.admin.lists import PaymentHotList, WithPayment
from payments.models import LedgerEntry, Processor
from registry.operators.cells import link_to
from registry.operators.lists import OneTenantFilter, since


@admin.register(LedgerEntry)
class LedgerEntryAdmin(WithPayment, PaymentHotList):
    list_display = ["id", "payment_link", "account", "debit", "credit", "processor_name", "at"]
    list_filter = [OneTenantFilter, "account", since("at", "booked")]
    fields = ("payment_link", "tenant", "account", "debit", "credit", "processor_name", "at")
    readonly_fields = fields

    def attach(self, rows: list[LedgerEntry]) -> None:
        super().attach(rows)
        names = dict(Processor.objects.filter(pk__in={row.processor_id for row in rows}).values_list("pk", "name"))
        for row in rows:
            row.at_processor = names.get(row.processor_id, row.processor_id)  # type: ignore[attr-defined]

    @admin.display(description="debit")
    def debit(self, entry: LedgerEntry) -> SafeString | str:
        return money(entry.amount, entry.currency) if entry.amount >= 0 else ""

    @admin.display(description="credit")
    def credit(self, entry: LedgerEntry) -> SafeString | str:
        return money(-entry.amount, entry.currency) if entry.amount < 0 else ""

    @admin.display(description="processor")
    def processor_name(self, entry: LedgerEntry) -> SafeString:
        if not hasattr(entry, "at_processor"):
            self.attach([entry])
        return link_to(Processor, entry.processor_id, entry.at_processor)  # type: ignore[attr-defined]
