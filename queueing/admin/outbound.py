"""Operators' pages of webhook endpoints and their deliveries."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from queueing.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from queueing.outbound import operate
from queueing.outbound.queries import state_of
from queueing.templatetags.webhooks import DELIVERIES, ENDPOINTS, wanted
from registry.admin.belongings import BELONGINGS, Belonging, rows_by_tenant
from registry.operators.cells import breakable, exact, link_to, pill
from registry.operators.hot_lists import HotList
from registry.operators.lists import OneTenantFilter, TenantFilter, choices_of, since
from registry.operators.scope import TenantScoped
from registry.operators.sections import WORK

TRIES = 50  # on a delivery's page

BELONGINGS.append(
    Belonging(
        WebhookEndpoint,
        "webhook endpoints",
        rows_by_tenant(WebhookEndpoint.objects.filter(deleted_at=None, callback=False)),
    )
)


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(TenantScoped):
    section, place, purpose = WORK, 4, "Where events are sent to: switch on and off."
    list_display = ["name", "state", "event_types_of", "failing", "created", "tenant"]
    list_filter = [TenantFilter, "enabled", ("failing_since", admin.EmptyFieldListFilter)]
    list_select_related = ["tenant"]
    search_fields = ["url"]
    search_help_text = "A part of the address."
    ordering = ["-id"]
    fields = (
        ("url", "description", "tenant"),
        ("uuid", "event_types_of", "ordered"),
        ("state", "disabled_reason", "failing", "rest_until"),
        ("positions", "created", "changed_at"),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [operate.DISABLE, operate.ENABLE]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        return super().get_queryset(request).filter(deleted_at=None).defer("secrets")

    @admin.display(description="endpoint", ordering="url")
    def name(self, endpoint: WebhookEndpoint) -> SafeString:
        told = f"callbacks to {endpoint.url}" if endpoint.callback else endpoint.description or endpoint.url
        return breakable(told)

    @admin.display(description="state")
    def state(self, endpoint: WebhookEndpoint) -> SafeString:
        return pill(*ENDPOINTS[state_of(endpoint)])

    @admin.display(description="events")
    def event_types_of(self, endpoint: WebhookEndpoint) -> SafeString:
        return breakable(wanted(endpoint.events))

    @admin.display(description="failing since", ordering="failing_since")
    def failing(self, endpoint: WebhookEndpoint) -> SafeString | str:
        return exact(endpoint.failing_since)

    @admin.display(description="created", ordering="id")
    def created(self, endpoint: WebhookEndpoint) -> SafeString | str:
        return exact(endpoint.created_at)


def _having(status: str) -> Q:
    """In the words of the partial indexes: `closed` is NULL while a delivery waits."""
    return Q(closed=None, status=status) if status in ("pending", "held") else Q(closed=status)


StateFilter = choices_of(
    "state", {value: (f"{shape} {word}", _having(value)) for value, (shape, _, word) in DELIVERIES.items()}
)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(HotList):
    section, place, purpose = WORK, 5, "Single events on their way to an endpoint: deliver again."
    list_display = ["label", "state", "endpoint_link", "answer", "why", "attempt", "created", "tenant"]
    list_filter = [OneTenantFilter, StateFilter, since("created_at", "created")]
    list_select_related = ["tenant"]
    list_display_links = ["label"]
    search_help_text = "The whole id of a payment or job, or the row's number."
    fields = (
        ("type", "state", "tenant", "endpoint_link"),
        ("message_id", "subject", "position", "callback_url"),
        ("attempt", "answer", "error"),
        ("run_at", "created", "changed_at"),
        ("body",),
        ("tries",),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [operate.REPLAY]

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        return queryset.filter(subject=correlation)

    def attach(self, rows: Iterable[Any]) -> None:
        keys = {(row.tenant_id, row.endpoint_id) for row in rows}
        mine = WebhookEndpoint.objects.filter(tenant_id__in={t for t, _ in keys}, id__in={e for _, e in keys})
        found = {one.pk: one for one in mine.defer("secrets")}
        for row in rows:
            row.found = found.get(row.endpoint_id)

    @admin.display(description="type")
    def label(self, delivery: WebhookDelivery) -> SafeString:
        return breakable(delivery.type)

    @admin.display(description="error")
    def why(self, delivery: WebhookDelivery) -> SafeString | str:
        return breakable(delivery.error) or "–"

    @admin.display(description="state")
    def state(self, delivery: WebhookDelivery) -> SafeString:
        return pill(*DELIVERIES[delivery.status])

    @admin.display(description="endpoint")
    def endpoint_link(self, delivery: Any) -> SafeString:
        if not hasattr(delivery, "found"):
            self.attach([delivery])
        return link_to(WebhookEndpoint, delivery.endpoint_id, breakable(delivery.found or delivery.endpoint_id))

    @admin.display(description="created")
    def created(self, delivery: WebhookDelivery) -> SafeString | str:
        return exact(delivery.created_at)

    @admin.display(description="tries")
    def tries(self, delivery: WebhookDelivery) -> SafeString | str:
        made = WebhookAttempt.objects.filter(tenant_id=delivery.tenant_id, delivery_id=delivery.pk)
        lines = (
            (one.number, exact(one.at), one.error or f"answered {one.answer}", one.latency_ms, one.body)
            for one in made[:TRIES]
        )
        text = format_html_join("", "<li>{}. {}: {}, {} ms<pre>{}</pre></li>", lines)
        return format_html("<ul>{}</ul>", text) if text else "–"
