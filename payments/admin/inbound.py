"""Operators' page of inbound events: what processors sent, and how it was handled."""

import json
from typing import Any

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.lists import PaymentHotList, ProcessorFilter, WithPayment
from payments.inbound import operate
from payments.models import InboundEvent, Processor
from registry.operators.cells import breakable, exact, pill, shortened
from registry.operators.lists import OneTenantFilter, choices_of, since
from registry.operators.sections import LOOK_UP

LOOKS = {
    InboundEvent.Status.RECEIVED: ("○", "grey", "waits for a worker"),
    InboundEvent.Status.DONE: ("●", "green", "done"),
    InboundEvent.Status.DEAD: ("✕", "red", "dead"),
    InboundEvent.Status.CLOSED: ("–", "grey", "closed"),
}
SHOWN = 100_000  # characters of a body; longer ones are read at the processor
# of types: the rest differs from event to event
BEGINNINGS = (
    "payment_intent.",
    "charge.",
    "refund.",
    "charge.dispute.",
    "customer.subscription.",
    "invoice.",
    "checkout.",
)

# In the words of the partial indexes: `closed` is NULL while an event waits.
StatusFilter = choices_of(
    "status",
    {
        status.value: (f"{shape} {word}", Q(closed=None if status == InboundEvent.Status.RECEIVED else status.value))
        for status, (shape, _, word) in LOOKS.items()
    },
)
TypeFilter = choices_of(
    "type", {beginning: (f"{beginning}…", Q(type__startswith=beginning)) for beginning in BEGINNINGS}
)


@admin.register(InboundEvent)
class InboundEventAdmin(WithPayment, PaymentHotList):
    section, place, purpose = LOOK_UP, 4, "What processors reported, and what came of it: replay or close."
    list_display = [
        "label",
        "event",
        "state",
        "result",
        "attempt",
        "payment_link",
        "processor_name",
        "received",
        "tenant",
    ]
    list_filter = [OneTenantFilter, StatusFilter, TypeFilter, ProcessorFilter, since("received_at", "received")]
    list_select_related = ["tenant"]
    list_display_links = ["label"]
    search_help_text = "A payment's whole correlation id, the processor's id of an event, or the row's number."
    fields = (
        ("type", "event_id", "object_id"),
        ("state", "outcome", "error", "attempt"),
        ("payment_link", "payment_status"),
        ("tenant", "processor_name", "account", "livemode"),
        ("created_there", "received", "done", "source"),
        "body_text",
        "headers_text",
    )
    readonly_fields = (
        "type", "event_id", "object_id", "state", "outcome", "error", "attempt", "payment_link", "payment_status",
        "tenant", "processor_name", "account", "livemode", "created_there", "received", "done", "source", "body_text",
        "headers_text",
    )  # fmt: skip
    actions = [operate.REPLAY, operate.CLOSE]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        queryset = super().get_queryset(request)
        return (
            queryset
            if request.resolver_match and "object_id" in request.resolver_match.kwargs
            else queryset.defer("body", "headers")
        )

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, term: str
    ) -> tuple[models.QuerySet, bool]:
        if not term.strip().startswith("evt_"):
            return super().get_search_results(request, queryset, term)
        accounts = list(Processor.objects.filter(kind="stripe").values_list("tenant_id", "pk"))  # columns of the index
        mine = {"tenant_id__in": {tenant for tenant, _ in accounts}, "processor_id__in": [pk for _, pk in accounts]}
        return queryset.filter(event_id=term.strip(), **mine), False

    def attach(self, rows: list[Any]) -> None:
        super().attach(rows)
        names = dict(Processor.objects.filter(pk__in={row.processor_id for row in rows}).values_list("pk", "name"))
        for row in rows:
            row.account_name = names.get(row.processor_id, "removed")

    def name_of(self, row: InboundEvent) -> str:
        return f"{row.type} {row.event_id} of {row.tenant}, {row.get_status_display()}"

    @admin.display(description="type")
    def label(self, event: InboundEvent) -> SafeString:
        return breakable(event.type)

    @admin.display(description="event")
    def event(self, event: InboundEvent) -> SafeString:
        return shortened(event.event_id)

    @admin.display(description="outcome")
    def result(self, event: InboundEvent) -> SafeString | str:
        return breakable(event.error or event.outcome) or "–"

    @admin.display(description="payment")
    def payment_link(self, event: InboundEvent) -> SafeString:
        return super().payment_link(event) if event.payment_id else SafeString("–")

    @admin.display(description="processor")
    def processor_name(self, event: InboundEvent) -> str:
        if not hasattr(event, "account_name"):
            self.attach([event])
        return event.account_name  # type: ignore[attr-defined]

    @admin.display(description="state")
    def state(self, event: InboundEvent) -> SafeString:
        return pill(*LOOKS[InboundEvent.Status(event.status)])

    @admin.display(description="created at the processor")
    def created_there(self, event: InboundEvent) -> SafeString | str:
        return exact(event.created)

    @admin.display(description="received")
    def received(self, event: InboundEvent) -> SafeString | str:
        return exact(event.received_at)

    @admin.display(description="handled")
    def done(self, event: InboundEvent) -> SafeString | str:
        return exact(event.done_at)

    @admin.display(description="body")
    def body_text(self, event: InboundEvent) -> SafeString:
        return format_html("<pre>{}</pre>", readable(bytes(event.body)))

    @admin.display(description="headers")
    def headers_text(self, event: InboundEvent) -> SafeString:
        return format_html("<pre>{}</pre>", "\n".join(f"{name}: {value}" for name, value in event.headers.items()))


def readable(body: bytes) -> str:
    """JSON on several lines; other text unchanged."""
    text = body.decode(errors="replace")
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… {len(text) - SHOWN} characters more"
