"""The operators' page of workers: who is at work, who fell silent. What they work on has pages in its own app."""

from datetime import timedelta

from django.contrib import admin
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from queueing.models import SILENT_AFTER, Worker
from registry.operators.lists import ago, pill
from registry.operators.scope import TenantScoped


class AliveFilter(admin.SimpleListFilter):
    title = parameter_name = "alive"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("yes", "alive"), ("no", "silent")]

    def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
        border = Now() - SILENT_AFTER
        match self.value():
            case "yes":
                return queryset.filter(heartbeat_at__gte=border)
            case "no":
                return queryset.filter(heartbeat_at__lt=border)
        return queryset


@admin.register(Worker)
class WorkerAdmin(TenantScoped):
    """Workers serve all tenants; their figures would tell one tenant of another's business, so superusers only."""

    tenant_path = ""
    list_display = [
        "__str__",
        "state",
        "queue",
        "hostname",
        "pid",
        "in_flight",
        "capacity",
        "finished",
        "failed",
        "running",
    ]
    list_filter = [AliveFilter, "queue"]
    fields = (
        "state", "queue", "hostname", "pid", "started_at", "heartbeat_at", "in_flight", "capacity", "finished",
        "failed",
    )  # fmt: skip
    readonly_fields = fields
    actions = None

    @admin.display(description="state")
    def state(self, worker: Worker) -> SafeString:
        silent_for: timedelta = timezone.now() - worker.heartbeat_at
        if silent_for < SILENT_AFTER:
            return pill("●", "green", "alive")
        return pill("✕", "red", f"silent for {ago(silent_for.total_seconds())}")

    @admin.display(description="at work for", ordering="started_at")
    def running(self, worker: Worker) -> str:
        return ago((timezone.now() - worker.started_at).total_seconds())
