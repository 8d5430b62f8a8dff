"""Operators' pages of background jobs, dead letters among them, and of schedules."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from queueing.jobs import operate
from queueing.jobs.schedules import operate as of_schedules
from queueing.models import JOB_CLOSED, Job, JobSchedule, JobStatus
from queueing.templatetags.jobs import look_of, pretty_json
from queueing.templatetags.queues import address
from registry.admin.belongings import BELONGINGS, Belonging, rows_by_tenant
from registry.operators.cells import breakable, exact, pill, shortened
from registry.operators.hot_lists import HotList
from registry.operators.lists import OneTenantFilter, TenantFilter, choices_of, since
from registry.operators.scope import OPERATE, TenantScoped, scope_of
from registry.operators.sections import WORK

BELONGINGS.append(Belonging(JobSchedule, "schedules", rows_by_tenant(JobSchedule.objects.all())))


def _having(status: JobStatus) -> Q:
    """In the words of the partial indexes: `closed` is NULL while a job is open."""
    return Q(closed=status) if status in JOB_CLOSED else Q(closed=None, status=status)


def _label(status: JobStatus) -> str:
    shape, _, word = look_of(status)
    return f"{shape} {word}{' (dead letters)' if status == JobStatus.FAILED else ''}"


StateFilter = choices_of("state", {status.value: (_label(status), _having(status)) for status in JobStatus})


@admin.register(Job)
class JobAdmin(HotList):
    section, place, purpose = WORK, 2, "Background jobs; failed ones are retried here."
    list_display = ["label", "state", "identifier", "attempts", "why", "created", "tenant"]
    list_filter = [OneTenantFilter, StateFilter, since("created_at", "submitted")]
    list_select_related = ["tenant"]
    list_display_links = ["label"]
    search_help_text = "A job's whole id, or the row's number."
    fields = (
        ("label", "state", "tenant", "console"),
        ("uuid", "unique_key", "schedule_id", "due_at"),
        ("attempts", "max_attempts", "handed_back", "lost_attempts", "timeout", "priority"),
        ("created", "run_at", "started_at", "finished_at"),
        ("cancel_requested", "progress_done", "progress_total", "progress_message"),
        ("error_code", "error"),
        ("traceback_shown",),
        ("input_shown",),
        ("callback_url", "result_ttl"),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [operate.ADMIN_RETRY, operate.ADMIN_CANCEL]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        return super().get_queryset(request).defer("sealed", "fingerprint")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Tracebacks are for those who may act."""
        mine = obj is not None and scope_of(request).allows(OPERATE, obj.tenant_id)
        return [row for row in self.fields if mine or "traceback_shown" not in row]

    def by_correlation(self, queryset: models.QuerySet, correlation: UUID) -> models.QuerySet:
        return queryset.filter(uuid=correlation)

    @admin.display(description="job")
    def label(self, job: Job) -> SafeString:
        return breakable(job.kind)

    @admin.display(description="error")
    def why(self, job: Job) -> SafeString | str:
        return breakable(job.error) or "–"

    @admin.display(description="state")
    def state(self, job: Job) -> SafeString:
        return pill(*look_of(job.status))

    @admin.display(description="id")
    def identifier(self, job: Job) -> SafeString:
        return shortened(job.uuid)

    @admin.display(description="attempts")
    def attempts(self, job: Job) -> int:
        return job.attempt - job.handed_back

    @admin.display(description="submitted")
    def created(self, job: Job) -> SafeString | str:
        return exact(job.created_at)

    @admin.display(description="console")
    def console(self, job: Job) -> SafeString:
        return format_html('<a href="{}">in the console</a>', address("job", job.uuid, tenant=job.tenant.slug))

    @admin.display(description="input")
    def input_shown(self, job: Job) -> SafeString:
        return format_html("<pre>{}</pre>", pretty_json(job.input))

    @admin.display(description="traceback")
    def traceback_shown(self, job: Job) -> SafeString | str:
        return format_html("<pre>{}</pre>", job.traceback) if job.traceback else "–"


@admin.register(JobSchedule)
class JobScheduleAdmin(TenantScoped):
    section, place, purpose = WORK, 3, "What submits jobs at set times: pause, resume."
    list_display = ["label", "state", "cron", "zone", "kind_name", "next_due", "tenant"]
    list_filter = [TenantFilter, "paused"]
    list_select_related = ["tenant"]
    search_fields = ["name"]
    search_help_text = "A part of the name."
    ordering = ["tenant_id", "name"]
    fields = (
        ("name", "state", "tenant"),
        ("cron", "timezone", "next_due"),
        ("overlap", "catch_up", "last_job"),
        ("kind", "priority", "max_attempts", "timeout", "result_ttl"),
        ("input_shown",),
        ("callback_url", "created_at", "changed_at"),
    )
    readonly_fields = [name for row in fields for name in row]
    actions = [of_schedules.ADMIN_PAUSE, of_schedules.ADMIN_RESUME]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet:
        return super().get_queryset(request).defer("sealed")

    @admin.display(description="name", ordering="name")
    def label(self, schedule: JobSchedule) -> SafeString:
        return breakable(schedule.name)

    @admin.display(description="time zone", ordering="timezone")
    def zone(self, schedule: JobSchedule) -> SafeString:
        return breakable(schedule.timezone)

    @admin.display(description="kind", ordering="kind")
    def kind_name(self, schedule: JobSchedule) -> SafeString:
        return breakable(schedule.kind)

    @admin.display(description="state", ordering="paused")
    def state(self, schedule: JobSchedule) -> SafeString:
        return pill("–", "grey", "paused") if schedule.paused else pill("●", "green", "active")

    @admin.display(description="next due", ordering="next_at")
    def next_due(self, schedule: JobSchedule) -> SafeString | str:
        return exact(schedule.next_at)

    @admin.display(description="input")
    def input_shown(self, schedule: JobSchedule) -> SafeString:
        return format_html("<pre>{}</pre>", pretty_json(schedule.input))
