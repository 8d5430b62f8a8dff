"""The operators' page of workers: which are alive, and which are silent."""

from datetime import timedelta

from django.contrib import admin
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.safestring import SafeString

from queueing.models import SILENT_AFTER, Worker
from queueing.work.operate import stop
from registry.data import clock
from registry.operators.cells import ago, breakable, exact, pill
from registry.operators.lists import choices_of
from registry.operators.scope import TenantScoped
from registry.operators.sections import WORK

BORDER = Now() - SILENT_AFTER
AliveFilter = choices_of(
    "alive", {"yes": ("alive", Q(heartbeat_at__gte=BORDER)), "no": ("silent", Q(heartbeat_at__lt=BORDER))}
)


@admin.register(Worker)
class WorkerAdmin(TenantScoped):
    """Superusers only: workers serve all tenants, so their figures would show a tenant the business of others."""

    section, place, purpose = WORK, 1, "Which are alive, what they do: stop one."
    tenant_path = ""
    list_display = [
        "label",
        "state",
        "pool",
        "host",
        "pid",
        "load",
        "finished",
        "failed",
        "heartbeat",
        "running",
    ]
    list_filter = [AliveFilter, "queue", "pool"]
    fields = (
        "state", "queue", "pool", "takes", "pool_size", "hostname", "pid", "started_at", "heartbeat_at", "in_flight", "capacity",
        "processes", "places", "finished", "failed", "stop_requested",
    )  # fmt: skip
    readonly_fields = fields
    actions = [stop]

    @admin.display(description="state")
    def state(self, worker: Worker) -> SafeString:
        silent_for: timedelta = clock.now() - worker.heartbeat_at
        if silent_for < SILENT_AFTER:
            return pill("●", "green", "alive")
        return pill("✕", "red", f"silent for {ago(silent_for.total_seconds())}")

    @admin.display(description="worker", ordering="queue")
    def label(self, worker: Worker) -> SafeString:
        return breakable(worker)

    @admin.display(description="host", ordering="hostname")
    def host(self, worker: Worker) -> SafeString:
        return breakable(worker.hostname)

    @admin.display(description="in progress", ordering="in_flight")
    def load(self, worker: Worker) -> str:
        rows = f"{worker.in_flight:,} of {worker.capacity:,}"
        return f"{rows}; child processes {worker.processes:,} of {worker.places:,}" if worker.processes else rows

    @admin.display(description="last heartbeat", ordering="heartbeat_at")
    def heartbeat(self, worker: Worker) -> SafeString | str:
        return exact(worker.heartbeat_at)

    @admin.display(description="running for", ordering="started_at")
    def running(self, worker: Worker) -> str:
        return ago((clock.now() - worker.started_at).total_seconds())
