"""Operators' pages of the processors' endpoints, which tenants share, and of their circuit breakers."""

from django.contrib import admin
from django.utils.safestring import SafeString

from payments.models import Endpoint
from payments.routing import operate
from payments.templatetags.payments import BREAKERS
from registry.operators.cells import pill
from registry.operators.scope import SUPERUSERS, TenantScoped


def breaker_pill(endpoint: Endpoint | None) -> SafeString:
    if endpoint is None:
        return pill("○", "grey", "not used yet")
    if endpoint.breaker == Endpoint.Breaker.CLOSED and endpoint.failing:
        return pill("◑", "amber", "says it is failing")
    return pill(*BREAKERS[endpoint.breaker])


@admin.register(Endpoint)
class EndpointAdmin(TenantScoped):
    """Superusers only: all tenants with a processor at the same address share its endpoint."""

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
    actions = [operate.CLOSE_BREAKER, operate.OPEN_BREAKER]

    @admin.display(description="breaker")
    def state(self, endpoint: Endpoint) -> SafeString:
        return breaker_pill(endpoint)

    @admin.display(description="response time")
    def trend(self, endpoint: Endpoint) -> str:
        return f"{endpoint.trend_ms:.0f} ms" if endpoint.trend_ms else "–"
