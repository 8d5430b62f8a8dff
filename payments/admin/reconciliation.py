"""Operators' pages of reconciliations: which windows of a processor's books were compared with ours, and what differs."""

from typing import Any

from django.contrib import admin
from django.db import models
from django.utils.safestring import SafeString

from payments.admin.lists import PaymentHotList, ProcessorFilter
from payments.models import Processor, Reconciliation
from registry.operators.cells import exact, link_to, pill
from registry.operators.lists import TenantFilter, since
from registry.operators.sections import BOOKS


@admin.register(Reconciliation)
class ReconciliationAdmin(PaymentHotList):
    section, place, purpose = BOOKS, 2, "Which windows of a processor's records were compared with ours."
    list_display = [
        "begins", "ends", "processor", "state", "way", "records", "payments", "found", "unanswered", "tenant",
    ]  # fmt: skip
    list_filter = [TenantFilter, ProcessorFilter, since("started_at", "started")]
    list_select_related = ["tenant", "processor"]
    fields = (
        "begins", "ends", "processor_link", "tenant", "state", "way", "records", "payments", "found", "unanswered", "reached",
        "fault", "started", "finished",
    )  # fmt: skip
    readonly_fields = fields

    def by_correlation(self, queryset: models.QuerySet, correlation: Any) -> models.QuerySet:
        return queryset.none()

    @admin.display(description="from")
    def begins(self, row: Reconciliation) -> SafeString | str:
        return exact(row.since)

    @admin.display(description="to")
    def ends(self, row: Reconciliation) -> SafeString | str:
        return exact(row.until)

    @admin.display(description="discrepancies")
    def found(self, row: Reconciliation) -> int:
        return row.differences

    @admin.display(description="finished")
    def finished(self, row: Reconciliation) -> SafeString | str:
        return exact(row.finished_at)

    @admin.display(description="processor")
    def processor_link(self, row: Reconciliation) -> SafeString:
        return link_to(Processor, row.processor_id, row.processor)

    @admin.display(description="state")
    def state(self, row: Reconciliation) -> SafeString:
        if row.fault:
            return pill("✕", "red", "broke off")
        return pill("●", "green", "compared") if row.finished_at else pill("◔", "blue", "under way")

    @admin.display(description="direction")
    def way(self, row: Reconciliation) -> str:
        return "both ways" if row.both_ways else "a sample of ours"

    @admin.display(description="started")
    def started(self, row: Reconciliation) -> SafeString | str:
        return exact(row.started_at)
