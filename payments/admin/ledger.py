"""Operators' pages of ledger lines."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.admin.cells import money
from payments.admin.lists import PaymentHotList, WithPayment
from payments.models import LedgerEntry, Processor
from registry.operators.cells import exact, link_to
from registry.operators.lists import OneTenantFilter, since
from registry.operators.sections import BOOKS


@admin.register(LedgerEntry)
class LedgerEntryAdmin(WithPayment, PaymentHotList):
    section, place, purpose = BOOKS, 1, "Every line of the double-entry ledger."
    list_display = [
        "label",
        "payment_link",
        "cause",
        "account",
        "debit",
        "credit",
        "processor_name",
        "booked",
        "tenant",
    ]
    list_filter = [OneTenantFilter, "account", since("at", "booked")]
    list_select_related = ["tenant"]
    list_display_links = ["label"]
    fields = ("label", "payment_link", "tenant", "cause", "account", "debit", "credit", "processor_name", "booked")
    readonly_fields = fields

    def attach(self, rows: list[LedgerEntry]) -> None:
        super().attach(rows)
        names = dict(Processor.objects.filter(pk__in={row.processor_id for row in rows}).values_list("pk", "name"))
        for row in rows:
            row.at_processor = names.get(row.processor_id, f"processor {row.processor_id}, removed")  # type: ignore[attr-defined]

    @admin.display(description="entry")
    def label(self, entry: LedgerEntry) -> str:
        return f"{entry.pk}"

    @admin.display(description="booked")
    def booked(self, entry: LedgerEntry) -> SafeString | str:
        return exact(entry.at)

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
