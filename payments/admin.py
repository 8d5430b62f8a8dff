"""Operators' pages of payments and all that is booked for them. Who may see what is decided in registry.operators."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments import accounts, deadletters
from payments.models import Attempt, DeadLetter, Endpoint, LedgerEntry, Payment, PaymentEvent, Processor, Rollup
from payments.money import decimal_text
from payments.states import CANCELED, FAILED, LOOKS, REQUIRES_ACTION, SUCCEEDED, TERMINAL, Status
from payments.templatetags.payments import BREAKERS, OUTCOMES
from registry.access import live_token
from registry.admin import BELONGINGS, Belonging, rows_by_tenant
from registry.models import Tenant
from registry.operators.guard import Done, Order, Reasoned, ReasonedForm, guarded, moves
from registry.operators.lists import (
    Attaching,
    BoundedList,
    CappedPaginator,
    OneTenantFilter,
    TenantFilter,
    ago,
    exact,
    link_to,
    link_to_list,
    pill,
    shortened,
    since,
)
from registry.operators.scope import SUPERUSERS, TenantScoped, scope_of

LARGEST_ID = 2**63 - 1
HISTORY = 200  # attempts, events, ledger lines on a payment's page; none has more without being broken


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


# -- Filters and searches ------------------------------------------------------------------------------


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


class Searchable(TenantScoped):
    """Searches by a payment's whole correlation id, or by a row's number: what an index can answer."""

    search_fields = ("id",)
    search_help_text = "A whole correlation id, or the row's number."

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, term: str
    ) -> tuple[models.QuerySet, bool]:
        term = term.strip()
        if not term:
            return queryset, False
        try:
            return self.by_correlation(queryset, UUID(term)), False
        except ValueError:
            pass
        if term.isascii() and term.isdigit() and int(term) <= LARGEST_ID:
            return queryset.filter(id=int(term)), False
        self.message_user(request, "Search wants a whole correlation id, or a number.", messages.WARNING)
        return queryset.none(), False

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        """Rows of payments with this id. One query more, and both of them go by an index."""
        keys = list(Payment.objects.filter(correlation_id=correlation).values_list("tenant_id", "id"))
        return queryset.filter(tenant_id__in=[t for t, _ in keys], payment_id__in=[p for _, p in keys])


class HotList(Searchable, BoundedList):
    """Read-only rows of a table that grows without end: one tenant at a time, newest first and in no other order."""

    paginator = CappedPaginator
    sortable_by = ()
    ordering = ("-id",)
    actions = None
    change_list_template = "admin/capped_change_list.html"


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


# -- Payments --------------------------------------------------------------------------------------------


@admin.register(Payment)
class PaymentAdmin(HotList):
    list_display = [
        "short_id",
        "amount_text",
        "state",
        "processor",
        "attempt",
        "code",
        "created",
        "took",
        "tenant",
    ]
    list_filter = [OneTenantFilter, StatusFilter, BookedAtFilter, since("created_at", "created")]
    list_select_related = ["tenant", "processor"]
    change_form_template = "admin/payments/payment/change_form.html"
    fields = (
        ("correlation_id", "tenant_link", "live_page"),
        ("state", "code", "letters"),
        ("amount_text", "fee_text", "processor_link", "requested"),
        ("attempt", "due", "lease", "doubtful"),
        ("wanted_processor", "priority", "created", "changed"),
        ("description", "metadata"),
    )
    readonly_fields = [name for row in fields for name in row]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        return super().get_queryset(request).select_related("tenant", "processor")

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        return queryset.filter(correlation_id=correlation)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        response = super().changeform_view(request, object_id, *args, **kwargs)
        context = getattr(response, "context_data", None) or {}
        if payment := context.get("original"):
            context.update(history(payment))
        return response

    @admin.display(description="correlation id")
    def short_id(self, payment: Payment) -> SafeString:
        return shortened(payment.correlation_id)

    @admin.display(description="created")
    def created(self, payment: Payment) -> SafeString | str:
        return exact(payment.created_at)

    @admin.display(description="changed")
    def changed(self, payment: Payment) -> SafeString | str:
        return exact(payment.changed_at)

    @admin.display(description="due at")
    def due(self, payment: Payment) -> SafeString | str:
        return exact(payment.run_at)

    @admin.display(description="requested at")
    def requested(self, payment: Payment) -> SafeString | str:
        return exact(payment.requested_at)

    @admin.display(description="in doubt since")
    def doubtful(self, payment: Payment) -> SafeString | str:
        return exact(payment.in_doubt_since)

    @admin.display(description="amount")
    def amount_text(self, payment: Payment) -> SafeString | str:
        return money(payment.amount, payment.currency)

    @admin.display(description="fee")
    def fee_text(self, payment: Payment) -> SafeString | str:
        return money(payment.fee, payment.currency)

    @admin.display(description="status")
    def state(self, payment: Payment) -> SafeString:
        return status_pill(payment.status)

    @admin.display(description="took")
    def took(self, payment: Payment) -> str:
        if payment.status not in TERMINAL:
            return "–"
        seconds = (payment.changed_at - payment.created_at).total_seconds()
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else ago(seconds)

    @admin.display(description="tenant")
    def tenant_link(self, payment: Payment) -> SafeString:
        return link_to(Tenant, payment.tenant_id, payment.tenant)

    @admin.display(description="booked at")
    def processor_link(self, payment: Payment) -> SafeString | str:
        return link_to(Processor, payment.processor_id, payment.processor) if payment.processor_id else "–"

    @admin.display(description="live page")
    def live_page(self, payment: Payment) -> SafeString:
        token = live_token(payment.tenant_id, payment.correlation_id)
        return format_html(
            '<a href="/payments/{}/live?token={}">what the payer sees</a>', payment.correlation_id, token
        )

    @admin.display(description="lease")
    def lease(self, payment: Payment) -> SafeString | str:
        if payment.lease_id is None or payment.leased_until is None:
            return "held by no worker"
        left = (payment.leased_until - timezone.now()).total_seconds()
        until = f"for another {ago(left)}" if left > 0 else f"lapsed {ago(-left)} ago"
        return f"worker {payment.lease_id}, {until}"

    @admin.display(description="dead letters")
    def letters(self, payment: Payment) -> SafeString | str:
        found = DeadLetter.objects.filter(tenant_id=payment.tenant_id, payment_id=payment.pk).order_by("id")
        links = [link_to(DeadLetter, letter.pk, f"{letter.code} ({letter.resolution or 'open'})") for letter in found]
        return format_html(" · ".join(["{}"] * len(links)), *links) if links else "–"


def history(payment: Payment) -> dict[str, Any]:
    """Attempts, timeline and ledger lines of a payment, for its page."""
    mine = {"tenant_id": payment.tenant_id, "payment_id": payment.pk}
    names = dict(Processor.objects.filter(tenant_id=payment.tenant_id).values_list("pk", "name"))
    attempts = list(Attempt.objects.filter(**mine).order_by("number")[:HISTORY])
    for attempt in attempts:
        attempt.at = link_to(Processor, attempt.processor_id, names.get(attempt.processor_id, attempt.processor_id))
        attempt.look = pill(*OUTCOMES[attempt.outcome])
    events = list(PaymentEvent.objects.filter(**mine).order_by("sequence")[:HISTORY])
    for event in events:
        event.look, event.processor_name = status_pill(event.status), names.get(event.processor_id or 0, "")
        event.after_ms = round((event.at - events[0].at).total_seconds() * 1000)
    entries = list(LedgerEntry.objects.filter(**mine).order_by("id")[:HISTORY])
    for entry in entries:
        entry.debit = money(entry.amount, entry.currency) if entry.amount >= 0 else ""
        entry.credit = money(-entry.amount, entry.currency) if entry.amount < 0 else ""
    return {
        "attempts": attempts,
        "events": events,
        "entries": entries,
        "unbalanced": sum(entry.amount for entry in entries) != 0,
    }


@admin.register(Attempt)
class AttemptAdmin(WithPayment, HotList):
    list_display = [
        "id", "payment_link", "number", "processor", "reason", "look", "code", "latency_ms", "requested_at",
        "started_at",
    ]  # fmt: skip
    list_filter = [OneTenantFilter, ProcessorFilter, "outcome", since("started_at", "sent")]
    list_select_related = ["processor"]
    fields = (
        "payment_link", "tenant", "number", "processor", "reason", "look", "code", "latency_ms", "requested_at",
        "started_at", "worker_id",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description="outcome")
    def look(self, attempt: Attempt) -> SafeString:
        return pill(*OUTCOMES[attempt.outcome])


@admin.register(LedgerEntry)
class LedgerEntryAdmin(WithPayment, HotList):
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


# -- Dead letters ------------------------------------------------------------------------------------------


class ResolutionFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise: they are what the page is for."""

    title = parameter_name = "resolution"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), *DeadLetter.Resolution.choices, ("all", "all")]

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


def _replay(page: TenantScoped, order: Order) -> Done:
    ids = [letter.pk for letter in order.rows]
    done = deadletters.replay_all_sync(dead_letter_ids=ids, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(ids) - done)


def _close(page: TenantScoped, order: Order) -> Done:
    ids = [letter.pk for letter in order.rows]
    done = deadletters.close_all_sync(dead_letter_ids=ids, actor=order.actor, reason=order.reason)
    return Done(rows=done, lost=len(ids) - done)


@admin.register(DeadLetter)
class DeadLetterAdmin(WithPayment, Searchable):
    paginator = CappedPaginator
    list_display = ["code", "detail", "payment_link", "payment_status", "tenant", "created", "resolved"]
    list_filter = [ResolutionFilter, TenantFilter, since("created_at", "created")]
    list_select_related = ["tenant"]
    list_display_links = ["code"]
    sortable_by = ()
    fields = ("code", "detail", "payment_link", "payment_status", "tenant", "created_at", "resolved", "resolved_at")
    readonly_fields = fields
    actions = [
        guarded(
            "deadletter.replay",
            label="Replay",
            warning=(
                "Failed payments are queued again. Payments in doubt are asked about at the same processor first; "
                "nothing is charged twice."
            ),
            expects={"resolution": ""},
            perform=_replay,
        ),
        guarded(
            "deadletter.close",
            label="Close without replay",
            warning="The letters are put aside. The payments stay as they are.",
            expects={"resolution": ""},
            perform=_close,
        ),
    ]

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


# -- Processors and their endpoints ----------------------------------------------------------------------------


def breaker_pill(endpoint: Endpoint | None) -> SafeString:
    if endpoint is None:
        return pill("○", "grey", "not used yet")
    if endpoint.breaker == Endpoint.Breaker.CLOSED and endpoint.failing:
        return pill("◑", "amber", "says it is failing")
    return pill(*BREAKERS[endpoint.breaker])


class ProcessorForm(ReasonedForm):
    url = forms.CharField(max_length=500, required=False, help_text="kind http: where it answers")

    def _get_validation_exclusions(self) -> set[str]:
        """models.URLField wants a dot in the host's name, which hosts on a private network have not."""
        return super()._get_validation_exclusions() | {"url"}  # type: ignore[misc]

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        kind = given.get("kind", self.instance.kind)
        for field, check in (("url", lambda: accounts.check_url(kind, given.get("url", ""))),
                             ("kind", lambda: accounts.check_kind(kind)),
                             ("fee", lambda: accounts.check_fee(given["fee"]))):  # fmt: skip
            if field in given:
                try:
                    check()
                except accounts.Refused as error:
                    self.add_error(field, error.detail)
        return given


@admin.register(Processor)
class ProcessorAdmin(Attaching, Reasoned):
    form = ProcessorForm
    # An address is called from inside our network: only who runs the service may name one.
    add_roles = change_roles = SUPERUSERS
    list_display = ["name", "tenant", "kind", "fee_text", "state", "breaker", "health", "trend", "links"]
    list_filter = [TenantFilter, "kind", "enabled"]
    list_select_related = ["tenant"]
    search_fields = ["name", "tenant__slug"]
    sortable_by = ("name", "tenant")
    add_fields = ("tenant", "name", "kind", "url", "fee", "options", "enabled")
    change_fields = (
        "tenant", "name", "kind", "url", "fee", "options", "state", "breaker", "health", "trend", "links", "created_at",
    )  # fmt: skip
    readonly_fields = ("tenant", "name", "kind", "state", "breaker", "health", "trend", "links", "created_at")
    actions = [
        guarded(
            "processor.disable",
            label="Disable: send nothing new",
            warning="Nothing new is sent there; what is in doubt there is still asked about. Others take over.",
            expects={"enabled": True},
            perform=moves("processor.disable", expects={"enabled": True}, sets=lambda: {"enabled": False}),
        ),
        guarded(
            "processor.enable",
            label="Enable",
            warning="Payments may be sent there again, by fee and health.",
            expects={"enabled": False},
            perform=moves("processor.enable", expects={"enabled": False}, sets=lambda: {"enabled": True}),
        ),
    ]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[Any]:
        """Options may hold a processor's secrets: they are shown to those who may change them."""
        fields = super().get_fields(request, obj)
        return fields if self.has_change_permission(request, obj) else [f for f in fields if f != "options"]

    def attach(self, rows: list[Processor]) -> None:
        found = Endpoint.objects.in_bulk({row.endpoint for row in rows})
        for row in rows:
            row.shared = found.get(row.endpoint)  # type: ignore[attr-defined]

    def shared(self, processor: Processor) -> Endpoint | None:
        if not hasattr(processor, "shared"):
            self.attach([processor])
        return processor.shared  # type: ignore[attr-defined]

    @admin.display(description="fee")
    def fee_text(self, processor: Processor) -> str:
        return f"{processor.fee * 100:.4f}".rstrip("0").rstrip(".") + " %"

    @admin.display(description="sends")
    def state(self, processor: Processor) -> SafeString:
        return pill("●", "green", "enabled") if processor.enabled else pill("–", "grey", "disabled")

    @admin.display(description="breaker")
    def breaker(self, processor: Processor) -> SafeString:
        return breaker_pill(self.shared(processor))

    @admin.display(description="health")
    def health(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        if endpoint is None or endpoint.polled_at is None:
            return "not asked yet"
        asked = ago(max(0.0, (timezone.now() - endpoint.polled_at).total_seconds()))
        return f"{'failing' if endpoint.failing else 'well'}, ≥ {endpoint.min_response_ms} ms, {asked} ago"

    @admin.display(description="answers in")
    def trend(self, processor: Processor) -> str:
        endpoint = self.shared(processor)
        return f"{endpoint.trend_ms:.0f} ms" if endpoint and endpoint.trend_ms else "–"

    @admin.display(description="see")
    def links(self, processor: Processor) -> SafeString:
        return link_to_list(Payment, "payments", tenant=processor.tenant.slug, processor=processor.pk)


@admin.register(Endpoint)
class EndpointAdmin(TenantScoped):
    """Shared by all tenants at the same address, so that only superusers see and turn it."""

    tenant_path = ""
    act_roles = SUPERUSERS
    list_display = [
        "key",
        "state",
        "failures",
        "min_response_ms",
        "trend",
        "polled_at",
        "breaker_changed_at",
    ]
    list_filter = ["breaker", "failing"]
    search_fields = ["key"]
    fields = (
        "key", "state", "failing", "failures", "min_response_ms", "trend", "polled_at", "next_poll_at",
        "breaker_changed_at",
    )  # fmt: skip
    readonly_fields = fields
    actions = [
        guarded(
            "endpoint.close",
            label="Close the breaker: send again",
            warning="Payments are sent there at once. If it still fails, the breaker opens by itself.",
            expects={"breaker__in": [Endpoint.Breaker.OPEN, Endpoint.Breaker.HALF_OPEN]},
            perform=moves(
                "endpoint.close",
                expects={"breaker__in": [Endpoint.Breaker.OPEN, Endpoint.Breaker.HALF_OPEN]},
                sets=lambda: {
                    "breaker": Endpoint.Breaker.CLOSED, "failures": 0, "breaker_changed_at": Now(),
                },
            ),
        ),
        guarded(
            "endpoint.open",
            label="Open the breaker: send nothing",
            warning=(
                "All tenants' payments go elsewhere or wait. Single probes go on, and a good answer closes the breaker "
                "again; to keep payments away for longer, disable the processors."
            ),
            expects={"breaker__in": [Endpoint.Breaker.CLOSED, Endpoint.Breaker.HALF_OPEN]},
            perform=moves(
                "endpoint.open",
                expects={"breaker__in": [Endpoint.Breaker.CLOSED, Endpoint.Breaker.HALF_OPEN]},
                sets=lambda: {"breaker": Endpoint.Breaker.OPEN, "breaker_changed_at": Now()},
            ),
        ),
    ]  # fmt: skip

    @admin.display(description="breaker")
    def state(self, endpoint: Endpoint) -> SafeString:
        return breaker_pill(endpoint)

    @admin.display(description="answers in")
    def trend(self, endpoint: Endpoint) -> str:
        return f"{endpoint.trend_ms:.0f} ms" if endpoint.trend_ms else "–"


# -- On the tenants' page ------------------------------------------------------------------------------------------


def booked_by_tenant(tenants: Sequence[int]) -> dict[int, int]:
    """From the hourly roll-ups: counting the payments themselves takes as long as there are payments."""
    found = (
        Rollup.objects.filter(tenant_id__in=tenants, width=3600).values("tenant_id").annotate(n=models.Sum("payments"))
    )
    return {row["tenant_id"]: row["n"] for row in found}


BELONGINGS += [
    Belonging(Processor, "processors", rows_by_tenant(Processor.objects.all())),
    Belonging(Payment, "booked payments", booked_by_tenant),
    Belonging(DeadLetter, "open dead letters", rows_by_tenant(DeadLetter.objects.filter(resolution=""))),
]
