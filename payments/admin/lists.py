"""What the lists of payments and of what belongs to them have in common: cells, filters, searches."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.models import Payment, Processor
from payments.money import decimal_text
from payments.states import CANCELED, FAILED, LOOKS, REQUIRES_ACTION, SUCCEEDED, Status
from registry.operators import hot_lists
from registry.operators.lists import (
    Attaching,
    OneTenantFilter,
    link_to,
    pill,
    shortened,
)
from registry.operators.scope import scope_of


def status_pill(status: str) -> SafeString:
    look = LOOKS[Status(status)]
    return pill(look.shape, look.colour, Status(status).label.lower())


def money(units: int | None, currency: str) -> SafeString | str:
    if units is None:
        return "–"
    return format_html('<span class="amount">{} {}</span>', decimal_text(units, currency), currency)


def payments_of(rows: Iterable[Any]) -> dict[tuple[int, int], Payment]:
    """The payments that `rows` belong to by (tenant, id), the primary key: a join by id would miss it."""
    keys = {(row.tenant_id, row.payment_id) for row in rows}
    found = Payment.objects.filter(tenant_id__in={t for t, _ in keys}, id__in={p for _, p in keys})
    return {(payment.tenant_id, payment.id): payment for payment in found}


class StatusFilter(admin.SimpleListFilter):
    """By status, said in the words of the partial indexes: `closed` is NULL while a worker has something to do."""

    title = parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status.value, f"{LOOKS[status].shape} {status.label.lower()}") for status in Status]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        status = self.value()
        if status is None:
            return queryset
        if status in (SUCCEEDED, FAILED, CANCELED, REQUIRES_ACTION):
            return queryset.filter(closed=status)
        return queryset.filter(closed=None, status=status)


class ProcessorFilter(admin.SimpleListFilter):
    """Processors of the tenant that the list shows."""

    title = parameter_name = "processor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        tenant = OneTenantFilter(request, dict(request.GET.lists()), Payment, model_admin).value()
        mine = scope_of(request).narrow(Processor.objects.all(), "tenant_id")  # the tenant is what the address says
        found = mine.filter(tenant__slug=tenant).values_list("pk", "name") if tenant else []
        return [(str(pk), name) for pk, name in found]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        value = self.value()
        known = {pk for pk, _ in self.lookup_choices}
        return self.at(queryset, int(value)) if value in known else queryset

    def at(self, queryset: models.QuerySet, processor: int) -> models.QuerySet:
        return queryset.filter(processor_id=processor)


class BookedAtFilter(ProcessorFilter):
    title = "booked at"

    def at(self, queryset: models.QuerySet, processor: int) -> models.QuerySet:
        return queryset.filter(closed=SUCCEEDED, processor_id=processor)  # as the index of booked payments has it


class Searchable(hot_lists.Searchable):
    """Searches rows that belong to a payment."""

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        """Rows of payments with this id. One query more, and both of them go by an index."""
        keys = list(Payment.objects.filter(correlation_id=correlation).values_list("tenant_id", "id"))
        return queryset.filter(tenant_id__in=[t for t, _ in keys], payment_id__in=[p for _, p in keys])


class HotList(Searchable, hot_lists.HotList):
    """Rows of a payment's tables that grow without end."""


class WithPayment(Attaching):
    """Rows that belong to a payment, shown by its correlation id."""

    def attach(self, rows: list[Any]) -> None:
        found = payments_of(rows)
        for row in rows:
            row.found = found.get((row.tenant_id, row.payment_id))

    def found(self, row: Any) -> Payment | None:
        if not hasattr(row, "found"):
            self.attach([row])
        return row.found

    @admin.display(description="payment")
    def payment_link(self, row: Any) -> SafeString:
        payment = self.found(row)
        return link_to(Payment, row.payment_id, shortened(payment.correlation_id) if payment else row.payment_id)

    @admin.display(description="payment is")
    def payment_status(self, row: Any) -> SafeString | str:
        payment = self.found(row)
        return status_pill(payment.status) if payment else "–"
