"""Shared by the lists of payments and of the rows that belong to payments: filters, searches, links."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.admin.cells import status_pill
from payments.models import Payment, Processor
from payments.states import CANCELED, FAILED, LOOKS, REQUIRES_ACTION, SUCCEEDED, Status
from registry.operators import hot_lists
from registry.operators.cells import link_to, shortened
from registry.operators.lists import Attaching, OneTenantFilter, choices_of
from registry.operators.scope import scope_of


def payments_of(rows: Iterable[Any]) -> dict[tuple[int, int], Payment]:
    """The payments of `rows` by (tenant, id), which is the primary key: a join by id alone would not use it."""
    keys = {(row.tenant_id, row.payment_id) for row in rows}
    found = Payment.objects.filter(tenant_id__in={t for t, _ in keys}, id__in={p for _, p in keys})
    return {(payment.tenant_id, payment.id): payment for payment in found}


def _having(status: Status) -> Q:
    """In the words of the partial indexes: `closed` is NULL while a worker has something to do."""
    over = status in (SUCCEEDED, FAILED, CANCELED, REQUIRES_ACTION)
    return Q(closed=status) if over else Q(closed=None, status=status)


StatusFilter = choices_of(
    "status", {status.value: (f"{LOOKS[status].shape} {status.label.lower()}", _having(status)) for status in Status}
)


class ProcessorFilter(admin.SimpleListFilter):
    """Processors of the tenant that the list shows."""

    title = parameter_name = "processor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        tenant = OneTenantFilter(request, dict(request.GET.lists()), Payment, model_admin).value()
        mine = scope_of(request).narrow(Processor.objects.all(), "tenant_id")  # `tenant` comes from the address
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
        return queryset.filter(closed=SUCCEEDED, processor_id=processor)  # as in the index of booked payments


class PaymentSearch(hot_lists.Searchable):
    """Searches rows that belong to a payment."""

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        """Rows of payments with this id. It costs a second query; both use an index."""
        keys = list(Payment.objects.filter(correlation_id=correlation).values_list("tenant_id", "id"))
        return queryset.filter(tenant_id__in=[t for t, _ in keys], payment_id__in=[p for _, p in keys])


class PaymentHotList(PaymentSearch, hot_lists.HotList):
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

    @admin.display(description="payment status")
    def payment_status(self, row: Any) -> SafeString | str:
        payment = self.found(row)
        return status_pill(payment.status) if payment else "–"
