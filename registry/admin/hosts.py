"""The operators' page of hosts: their roles, versions, processes, and when each reported last."""

from datetime import timedelta

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from registry.models import HOST_SILENT_AFTER, Host
from registry.operators.cells import ago, breakable, exact, pill
from registry.operators.scope import TenantScoped
from registry.operators.sections import WATCH

CLOCK_WRONG = 1.0  # seconds; the alert `clock` fires at as much


@admin.register(Host)
class HostAdmin(TenantScoped):
    """Superusers only: hosts serve all tenants."""

    section, place, purpose = WATCH, 4, "Which machines run the service, and what each does."
    tenant_path = ""
    list_display = ["label", "state", "role", "version", "where", "parts_running", "clock", "heartbeat"]
    list_filter = ["role", "version"]
    fields = ("name", "state", "role", "version", "where", "running", "heartbeat", "clock", "parts")
    readonly_fields = fields
    sortable_by = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        return super().get_queryset(request).annotate(now=Now())  # ages by PostgreSQL's clock

    @admin.display(description="host")
    def label(self, host: Host) -> SafeString:
        return breakable(host)

    @admin.display(description="state")
    def state(self, host: Host) -> SafeString:
        silent_for = _silent_for(host)
        if silent_for < HOST_SILENT_AFTER:
            return pill("●", "green", "reports")
        return pill("✕", "red", f"silent for {ago(silent_for.total_seconds())}")

    @admin.display(description="address")
    def where(self, host: Host) -> SafeString:
        return breakable(host.address)

    @admin.display(description="processes")
    def parts_running(self, host: Host) -> str:
        if _silent_for(host) >= HOST_SILENT_AFTER:
            return "unknown"
        running = sum(one["pid"] > 0 for one in host.processes)
        return f"{running} of {len(host.processes)} run"

    @admin.display(description="processes")
    def parts(self, host: Host) -> SafeString | str:
        lines = ((one["name"], _described(one)) for one in host.processes)
        return format_html_join("", "<div>{}: {}</div>", lines) or "–"

    @admin.display(description="clock")
    def clock(self, host: Host) -> SafeString | str:
        if abs(host.clock_offset) < CLOCK_WRONG:
            return "as PostgreSQL's"
        way = "ahead" if host.clock_offset > 0 else "behind"
        return pill("!", "amber", f"{abs(host.clock_offset):.1f} s {way}")

    @admin.display(description="last heartbeat")
    def heartbeat(self, host: Host) -> SafeString:
        return format_html("{} · {} ago", exact(host.heartbeat_at), ago(_silent_for(host).total_seconds()))

    @admin.display(description="running for")
    def running(self, host: Host) -> str:
        return ago((host.now - host.started_at).total_seconds())  # type: ignore[attr-defined]


def _silent_for(host: Host) -> timedelta:
    """Since its last report, by PostgreSQL's clock."""
    return host.now - host.heartbeat_at  # type: ignore[attr-defined]


def _described(process: dict) -> str:
    starts = process["starts"]
    again = "" if starts <= 1 else f", started {starts} times"
    return f"process {process['pid']}{again}" if process["pid"] else f"does not run{again}"
