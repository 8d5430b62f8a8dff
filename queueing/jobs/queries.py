"""Jobs as the API and the pages read them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from queueing.jobs import files, kinds
from queueing.jobs.errors import JobResultExpired, JobUnfinished, UnknownJob
from queueing.jobs.events import JobChange, status_body
from queueing.models import JOB_CLOSED, Job, JobEvent, JobResult, JobSchedule, JobStatus
from registry.data import clock, database
from registry.edge.api import iso
from registry.edge.paging import below, cursor_after
from registry.tenants.access import Principal

TIMELINE_SHOWN = 500  # events of one job, the latest


@dataclass(frozen=True, slots=True)
class JobFilters:
    """Filters of jobs; None: all. Times are of the submission, both inclusive."""

    status: str | None = None
    kind: str | None = None
    from_: datetime | None = None
    to: datetime | None = None


async def job_of(tenant_id: int, uuid: UUID) -> Job:
    """Raises UnknownJob (404)."""
    found = await Job.async_objects.of(tenant_id).filter(uuid=uuid).afirst()
    if found is None:
        raise UnknownJob
    return found


SHOWN = (
    "tenant_id",
    "id",
    "uuid",
    "kind",
    "status",
    "attempt",
    "handed_back",
    "created_at",
    "started_at",
    "finished_at",
    "changed_at",
    "sequence",
    "error_code",
    "error",
    "progress_done",
    "progress_total",
    "progress_message",
)  # without the input and the traceback, which may be large


def shown(job: Any) -> dict[str, Any]:
    """A job, or a row with its columns `SHOWN`, as lists and live messages show it."""
    return status_body(
        JobChange(
            job.tenant_id,
            job.id,
            0,
            job.uuid,
            job.kind,
            job.status,
            job.attempt - job.handed_back,
            job.created_at,
            job.started_at,
            job.finished_at,
            job.changed_at,
            job.sequence,
            job.error_code,
            job.error,
            job.progress_done,
            job.progress_total,
            job.progress_message,
        )
    )


async def detail(principal: Principal, uuid: UUID) -> dict[str, Any]:
    """A job with its request and its timeline. Raises UnknownJob (404)."""
    job = await job_of(principal.tenant_id, uuid)
    return await described(job, privileged=principal.allows(kinds.scope_of(job.kind)))


async def described(job: Job, *, privileged: bool) -> dict[str, Any]:
    """A job with its request and its timeline. `privileged`: for somebody who may submit jobs of its kind."""
    file = await files.file_of(job) if privileged or not kinds.is_guarded(job.kind) else None
    return {
        **shown(job),
        **({"file": files.shown(job, file)} if file else {}),
        "input": msgspec.Raw(job.input.encode()),
        "priority": job.priority,
        "runAt": iso(job.run_at),
        "uniqueKey": job.unique_key,
        "maxAttempts": job.max_attempts,
        "timeout": job.timeout,
        "resultTtl": job.result_ttl,
        "callbackUrl": job.callback_url or None,
        "cancelRequested": job.cancel_requested,
        "schedule": await _schedule_name(job),
        "dueAt": job.due_at and iso(job.due_at),
        "timeline": [_event(event) for event in await timeline(job)],
    }


async def _schedule_name(job: Job) -> str | None:
    """The name of the schedule that submitted the job; None also if that was deleted."""
    if job.schedule_id is None:
        return None
    mine = JobSchedule.async_objects.of(job.tenant_id).filter(id=job.schedule_id)
    return await mine.values_list("name", flat=True).afirst()


async def timeline(job: Job) -> list[JobEvent]:
    """The job's events without reports of progress, oldest first."""
    events = JobEvent.async_objects.filter(tenant_id=job.tenant_id, job_id=job.pk, progress__isnull=True)
    return [event async for event in events.order_by("-sequence")[:TIMELINE_SHOWN]][::-1]


def _event(event: JobEvent) -> dict[str, Any]:
    body: dict[str, Any] = {
        "sequence": event.sequence,
        "at": iso(event.at),
        "status": event.status,
        "attempt": event.attempt,
        "detail": event.detail,
    }
    return body | ({"code": event.code} if event.code else {})


async def result(tenant_id: int, uuid: UUID) -> str:
    """The result as JSON. Raises UnknownJob (404), JobUnfinished (409), JobResultExpired (410)."""
    job = await job_of(tenant_id, uuid)
    if job.status != JobStatus.SUCCEEDED:
        raise JobUnfinished(f"this job is {job.status}: it has no result")
    found = await result_of(job)
    if found is None:
        raise JobResultExpired
    return found.body


async def result_of(job: Job) -> JobResult | None:
    """The job's result, unless there is none, or it has expired. A result that is null is not stored."""
    found = await JobResult.async_objects.filter(tenant_id=job.tenant_id, job_id=job.pk).afirst()
    if found is None and job.status == JobStatus.SUCCEEDED and job.finished_at:
        expires_at = job.finished_at + timedelta(seconds=job.result_ttl)
        found = JobResult(tenant_id=job.tenant_id, job_id=job.pk, body="null", expires_at=expires_at)
    return found if found and found.expires_at > clock.now() else None


# -- Many ----------------------------------------------------------------------------------------------------


def filtered(tenant_id: int, filters: JobFilters) -> Any:
    jobs = Job.async_objects.of(tenant_id)
    if filters.status:
        # By `closed`, which has an index, where it is equivalent.
        over = filters.status in JOB_CLOSED
        jobs = jobs.filter(closed=filters.status) if over else jobs.filter(closed=None, status=filters.status)
    if filters.kind:
        jobs = jobs.filter(kind=filters.kind)
    if filters.from_:
        jobs = jobs.filter(created_at__gte=filters.from_)
    if filters.to:
        jobs = jobs.filter(created_at__lte=filters.to)
    return jobs


async def _rows(tenant_id: int, filters: JobFilters, limit: int, cursor: str | None) -> list[Any]:
    jobs = filtered(tenant_id, filters).filter(below(cursor)).order_by("-created_at", "-id")
    return [job async for job in jobs.values_list(*SHOWN, named=True)[:limit]]


async def page_of(tenant_id: int, filters: JobFilters, *, limit: int, cursor: str | None = None) -> dict[str, Any]:
    """{"items", "next", "total"}, newest first. The page and the count are read concurrently."""
    jobs, total = await database.concurrently(
        lambda: _rows(tenant_id, filters, limit + 1, cursor), lambda: filtered(tenant_id, filters).acount()
    )
    return {
        "items": [shown(job) for job in jobs[:limit]],
        "next": cursor_after(jobs[limit - 1]) if len(jobs) > limit else None,
        "total": total,
    }
