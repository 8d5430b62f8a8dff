"""Operators' pages of circuit breakers: health and breaker of each processor address, which tenants share."""

from django.contrib import admin
from django.db.models import Q
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from payments.models import Endpoint, Processor
from payments.routing import operate
from payments.templatetags.payments import BREAKERS
from registry.operators.cells import breakable, exact, link_to, pill
from registry.operators.lists import Attaching
from registry.operators.scope import SUPERUSERS
from registry.operators.sections import ROUTE

SHOWN = 5  # processors named beside an address


def breaker_pill(endpoint: Endpoint | None) -> SafeString:
    if endpoint is None:
        return pill("○", "grey", "not used yet")
    if endpoint.breaker == Endpoint.Breaker.CLOSED and endpoint.failing:
        return pill("◑", "amber", "says it is failing")
    return pill(*BREAKERS[endpoint.breaker])


@admin.register(Endpoint)
class EndpointAdmin(Attaching):
    """Superusers only: all tenants with a processor at the same address share its breaker."""

    section, place, purpose = (
        ROUTE,
        2,
        "Which processor addresses work, are failing, or get no payments: open or close one.",
    )

    tenant_path = ""
    act_roles = SUPERUSERS
    list_display = [
        "address",
        "used_by",
        "state",
        "changed",
        "failures",
        "trend",
        "minimum",
        "polled",
    ]
    list_filter = ["breaker", "failing"]
    search_fields = ["key"]
    fields = (
        "address", "used_by", "state", "changed", "failing", "failures", "trend", "minimum", "polled", "next_poll_at",
    )  # fmt: skip
    readonly_fields = fields
    actions = [operate.CLOSE_BREAKER, operate.OPEN_BREAKER]

    def attach(self, rows: list[Endpoint]) -> None:
        """The processors at each address; SHOWN of them are named."""
        found: dict[str, list[Processor]] = {}
        keys = {row.key for row in rows}
        urls = {key.partition(":")[2] for key in keys}
        ids = [int(url) for url in urls if url.isdigit() and len(url) < 19]
        for one in Processor.objects.filter(Q(url__in=urls) | Q(pk__in=ids, url="")).select_related("tenant"):
            found.setdefault(one.endpoint, []).append(one)
        for row in rows:
            row.accounts = found.get(row.key, [])  # type: ignore[attr-defined]

    @admin.display(description="address", ordering="key")
    def address(self, endpoint: Endpoint) -> SafeString:
        """Its key: the kind, and the address or the processor's number."""
        kind, _, place = endpoint.key.partition(":")
        return breakable(f"kind {kind}, processor {place}" if place.isdigit() else place)

    @admin.display(description="processors")
    def used_by(self, endpoint: Endpoint) -> SafeString | str:
        if not hasattr(endpoint, "accounts"):
            self.attach([endpoint])
        accounts: list[Processor] = endpoint.accounts  # type: ignore[attr-defined]
        links = [(link_to(Processor, one.pk, f"{one.name} of {one.tenant}"),) for one in accounts[:SHOWN]]
        more = f", and {len(accounts) - SHOWN} more" if len(accounts) > SHOWN else ""
        return format_html("{}{}", format_html_join(", ", "{}", links), more) if links else "none any more"

    @admin.display(description="breaker changed", ordering="breaker_changed_at")
    def changed(self, endpoint: Endpoint) -> SafeString | str:
        return exact(endpoint.breaker_changed_at)

    @admin.display(description="health polled", ordering="polled_at")
    def polled(self, endpoint: Endpoint) -> SafeString | str:
        return exact(endpoint.polled_at)

    @admin.display(description="reported minimum", ordering="min_response_ms")
    def minimum(self, endpoint: Endpoint) -> str:
        return f"{endpoint.min_response_ms:,} ms"

    @admin.display(description="breaker")
    def state(self, endpoint: Endpoint) -> SafeString:
        return breaker_pill(endpoint)

    @admin.display(description="latency")
    def trend(self, endpoint: Endpoint) -> str:
        return f"{endpoint.trend_ms:.0f} ms" if endpoint.trend_ms else "–"
