"""Operators' pages of what processors' books and ours differ in: look again, book as external, note and close."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.lists import HotList, ProcessorFilter, Searchable, WithPayment, money, status_pill
from payments.models import Difference, Payment, Processor, Reconciliation
from payments.processors.base import Unanswered
from payments.reconciliation import operate
from payments.reconciliation.operate import NotBookable
from payments.states import SUCCEEDED
from registry.operators.confirm import Done, Order, guarded
from registry.operators.lists import CappedPaginator, TenantFilter, exact, link_to, pill, shortened, since
from registry.operators.scope import TenantScoped

KINDS = {
    Difference.Kind.MISSING_HERE: ("◐", "red"),
    Difference.Kind.MISSING_THERE: ("◑", "red"),
    Difference.Kind.DUPLICATE: ("◕", "red"),
    Difference.Kind.AMOUNT: ("≠", "amber"),
    Difference.Kind.CURRENCY: ("≠", "amber"),
    Difference.Kind.REFUNDED: ("↩", "amber"),
}


class ResolutionFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise: they are what the page is for."""

    title = parameter_name = "resolution"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), *Difference.Resolution.choices, ("all", "all")]

    def value(self) -> str:
        return super().value() or "open"

    def choices(self, changelist: Any) -> Iterator[Any]:
        for value, title in self.lookup_choices:
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        if self.value() == "all":
            return queryset
        return queryset.filter(resolution="" if self.value() == "open" else self.value())


def _look_again(page: TenantScoped, order: Order) -> Done:
    """Says itself what came of it: that books still differ is nobody's being faster."""
    standing, silent, gone, lost = 0, 0, 0, 0
    for row in order.rows:
        try:
            agreed = operate.look_again_sync(difference_id=row.pk, actor=order.actor, reason=order.reason)
        except Unanswered:
            silent += 1
            continue
        gone += agreed is True
        standing += agreed is False
        lost += agreed is None
    if standing:
        page.message_user(order.request, f"{standing} still differ.", messages.WARNING)
    if silent:
        page.message_user(order.request, f"{silent} could not be asked about: no answer.", messages.ERROR)
    return Done(rows=gone, lost=lost)


def _book(page: TenantScoped, order: Order) -> Done:
    """Each for itself: one that cannot be booked holds up none of the others, and says why. Who is silent is asked once."""
    booked, refused, unasked = 0, 0, Counter[int]()
    for row in order.rows:
        if row.processor_id in unasked:
            unasked[row.processor_id] += 1
            continue
        try:
            booked += operate.book_sync(difference_id=row.pk, actor=order.actor, reason=order.reason)
        except NotBookable as error:
            refused += 1
            page.message_user(order.request, f"{row.key} is not booked: {error.detail}", messages.ERROR)
        except Unanswered:
            unasked[row.processor_id] += 1
    if silent := unasked.total():
        page.message_user(order.request, f"{silent} are not booked: no answer from their processor.", messages.ERROR)
    return Done(rows=booked, lost=len(order.rows) - booked - refused - silent)


def _close(page: TenantScoped, order: Order) -> Done:
    closed = [operate.close_sync(difference_id=row.pk, actor=order.actor, reason=order.reason) for row in order.rows]
    return Done(rows=sum(closed), lost=closed.count(False))


@admin.register(Difference)
class DifferenceAdmin(WithPayment, Searchable):
    paginator = CappedPaginator
    list_display = ["look", "about", "processor", "tenant", "ours", "theirs", "requested", "seen", "resolved"]
    list_filter = [ResolutionFilter, TenantFilter, "kind", since("found_at", "found")]
    list_select_related = ["tenant", "processor"]
    list_display_links = ["look"]
    sortable_by = ()
    fields = (
        "look", "about", "correlation_id", "reference", "payment_link", "payment_status", "processor", "tenant", "ours",
        "theirs", "requested", "found_at", "seen_at", "resolved", "resolved_at", "note",
    )  # fmt: skip
    readonly_fields = fields
    actions = [
        guarded(
            "difference.look_again",
            label="Look again",
            warning="The processor is asked once more. What agrees now is closed; payments still under way are looked at.",
            expects={"resolution": ""},
            perform=_look_again,
        ),
        guarded(
            "difference.book",
            label="Book as external",
            warning=(
                "Each becomes a payment of its own that succeeded, with its ledger lines; what the sender was told of the "
                "payment it knows stays as it was. It can be refunded like any other."
            ),
            expects={
                "resolution": "",
                "kind__in": [Difference.Kind.MISSING_HERE, Difference.Kind.DUPLICATE],
                "their_amount__gt": 0,
            },
            perform=_book,
        ),
        guarded(
            "difference.close",
            label="Note and close",
            warning="The reason is noted. It is not found again unless the figures change.",
            expects={"resolution": ""},
            perform=_close,
        ),
    ]

    def by_correlation(self, queryset: models.QuerySet, correlation: Any) -> models.QuerySet:
        return queryset.filter(key=str(correlation))

    def name_of(self, row: Difference) -> str:
        return f"{row.get_kind_display().lower()}: {row.key} at {row.processor} of {row.tenant}"

    @admin.display(description="kind")
    def look(self, row: Difference) -> SafeString:
        return pill(*KINDS[Difference.Kind(row.kind)], row.get_kind_display().lower())

    @admin.display(description="about")
    def about(self, row: Difference) -> SafeString:
        return shortened(row.key)

    @admin.display(description="payment")
    def payment_link(self, row: Difference) -> SafeString:
        if row.payment_id is None:
            return format_html("{}", "none of ours")
        return link_to(Payment, row.payment_id, shortened(row.correlation_id))

    @admin.display(description="ours")
    def ours(self, row: Difference) -> SafeString | str:
        if row.our_amount is None:
            return "–"
        return self._side(row.our_amount, row.our_refunded, row.our_currency, row.our_status)

    @admin.display(description="theirs")
    def theirs(self, row: Difference) -> SafeString | str:
        if row.their_amount is None:
            return "–"
        return self._side(row.their_amount, row.their_refunded, row.their_currency, "")

    def _side(self, amount: int, refunded: int | None, currency: str, status: str) -> SafeString | str:
        if status not in ("", SUCCEEDED):
            return status_pill(status)
        if refunded:
            return format_html("{}, refunded {}", money(amount, currency), money(refunded, currency))
        return money(amount, currency)

    @admin.display(description="requested at")
    def requested(self, row: Difference) -> SafeString | str:
        return exact(row.requested_at)

    @admin.display(description="seen")
    def seen(self, row: Difference) -> SafeString | str:
        return exact(row.seen_at)

    @admin.display(description="resolved")
    def resolved(self, row: Difference) -> SafeString | str:
        if not row.resolution:
            return pill("○", "amber", "open")
        who = f" by {row.resolved_by}" if row.resolved_by else ""
        return f"{row.get_resolution_display().lower()}{who}"


class ComparedFilter(ProcessorFilter):
    title = "processor"


@admin.register(Reconciliation)
class ReconciliationAdmin(HotList):
    list_display = [
        "window", "processor", "tenant", "state", "way", "records", "payments", "differences", "unanswered", "started",
    ]  # fmt: skip
    list_filter = [TenantFilter, ComparedFilter, since("started_at", "started")]
    list_select_related = ["tenant", "processor"]
    fields = (
        "window", "processor_link", "tenant", "state", "way", "records", "payments", "differences", "unanswered", "reached",
        "fault", "started_at", "finished_at",
    )  # fmt: skip
    readonly_fields = fields

    def by_correlation(self, queryset: models.QuerySet, correlation: Any) -> models.QuerySet:
        return queryset.none()

    @admin.display(description="window")
    def window(self, row: Reconciliation) -> str:
        return str(row)

    @admin.display(description="processor")
    def processor_link(self, row: Reconciliation) -> SafeString:
        return link_to(Processor, row.processor_id, row.processor)

    @admin.display(description="state")
    def state(self, row: Reconciliation) -> SafeString:
        if row.fault:
            return pill("✕", "red", "broke off")
        return pill("●", "green", "compared") if row.finished_at else pill("◔", "blue", "under way")

    @admin.display(description="way")
    def way(self, row: Reconciliation) -> str:
        return "both ways" if row.both_ways else "a sample of ours"

    @admin.display(description="started")
    def started(self, row: Reconciliation) -> SafeString | str:
        return exact(row.started_at)
