"""A tenant's schedules: save, delete, pause, resume, run now. Each change writes its audit entry."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db.models.functions import Now
from django_async_backend.db.transaction import async_atomic

from queueing.jobs import secrets, store
from queueing.jobs.errors import TooManySchedules, UnknownSchedule
from queueing.jobs.job import JobReceipt, NewJob
from queueing.jobs.kinds import scope_of
from queueing.jobs.requests import new_id, prepared
from queueing.jobs.schedules import timing
from queueing.jobs.schedules.requests import NAME, ScheduleRequest
from queueing.jobs.schedules.timing import Timing
from queueing.models import JobSchedule
from registry.data import database, orm
from registry.tenants import audit
from registry.tenants.access import Principal

SQL = database.statements(Path(__file__).parent / "sql" / "schedules.sql")

SCHEDULES_AT_MOST = 1000  # of a tenant


def schedule_id(tenant_id: int, name: str) -> UUID:
    """The id from which those of its jobs are derived. A schedule that is deleted and made again has the same."""
    return uuid5(NAMESPACE_URL, f"registry:{tenant_id}:schedule:{name}")


def job_of(schedule: Any, *, id: UUID, due_at: datetime | None = None) -> NewJob:
    """A job of this schedule: a model instance, or a row with the same attributes."""
    own = secrets.place(schedule.tenant_id, schedule_id(schedule.tenant_id, schedule.name))
    content = schedule.input.encode()
    return NewJob(
        tenant_id=schedule.tenant_id,
        id=id,
        kind=schedule.kind,
        input=content,
        content=content,
        sealed=secrets.moved(schedule.sealed, source=own, target=secrets.place(schedule.tenant_id, id)),
        priority=schedule.priority,
        max_attempts=schedule.max_attempts,
        timeout=schedule.timeout,
        result_ttl=schedule.result_ttl,
        callback_url=schedule.callback_url,
        schedule_id=schedule.id,
        due_at=due_at,
    )


async def schedule_of(tenant_id: int, name: str, *, lock: bool = False) -> JobSchedule:
    """The schedule, with the database's time as `now`. Raises UnknownSchedule (404)."""
    schedules = JobSchedule.async_objects.of(tenant_id).filter(name=name).annotate(now=Now())
    found = await (schedules.select_for_update() if lock else schedules).afirst() if NAME.match(name) else None
    if found is None:
        raise UnknownSchedule
    return found


# -- Changes -------------------------------------------------------------------------------------------------


async def save(*, principal: Principal, name: str, request: ScheduleRequest) -> bool:
    """Create the schedule, or replace it; returns whether it is new.

    Raises Invalid (422), JobInputTooLarge (413), Forbidden (403), TooManySchedules (409).
    """
    [(now,)] = await database.fetch(SQL["clock"])
    tenant_id = principal.tenant_id
    faults, first = await asyncio.to_thread(timing.examine, Timing(request.cron, request.timezone), now)
    job = await prepared(request, principal, id=schedule_id(tenant_id, name), faults=faults)
    async with async_atomic():
        if former := await JobSchedule.async_objects.of(tenant_id).filter(name=name).select_for_update().afirst():
            principal.require(scope_of(former.kind))
        saved = await orm.statement(SQL["save"], _columns(name, request, job, first))
        if not saved:
            raise TooManySchedules
        [(created,)] = saved
        action = "schedule.add" if created else "schedule.change"
        await _record(principal, action, name, cron=request.cron, timezone=request.timezone, kind=request.kind)
    return created


def _columns(name: str, request: ScheduleRequest, job: NewJob, first: datetime | None) -> dict[str, Any]:
    return {
        "tenant": job.tenant_id,
        "name": name,
        "cron": request.cron,
        "timezone": request.timezone,
        "overlap": request.overlap,
        "catch_up": request.catch_up,
        "next_at": first,
        "kind": job.kind,
        "input": job.input.decode(),
        "sealed": job.sealed or None,
        "priority": job.priority,
        "max_attempts": job.max_attempts,
        "timeout": job.timeout,
        "result_ttl": job.result_ttl,
        "callback_url": job.callback_url,
        "most": SCHEDULES_AT_MOST,
    }


async def delete(*, principal: Principal, name: str) -> None:
    """Delete the schedule; its jobs stay. Raises UnknownSchedule (404), Forbidden (403)."""
    principal.require(scope_of((await schedule_of(principal.tenant_id, name)).kind))
    async with async_atomic():
        await remove(tenant_id=principal.tenant_id, name=name)
        await _record(principal, "schedule.delete", name)


async def remove(*, tenant_id: int, name: str) -> None:
    """Delete the schedule, as part of the caller's transaction, which records it. Raises UnknownSchedule (404)."""
    found = await schedule_of(tenant_id, name, lock=True)
    await JobSchedule.async_objects.of(tenant_id).filter(id=found.id).adelete()


async def pause(*, principal: Principal, name: str) -> None:
    """Submit no more jobs; what is open goes on. Raises UnknownSchedule (404), Forbidden (403)."""
    await _switch(principal, name, paused=True)


async def resume(*, principal: Principal, name: str) -> None:
    """Go on with the next due time: those that passed meanwhile submit nothing. Raises UnknownSchedule (404), Forbidden (403)."""
    await _switch(principal, name, paused=False)


async def _switch(principal: Principal, name: str, *, paused: bool) -> None:
    principal.require(scope_of((await schedule_of(principal.tenant_id, name)).kind))
    async with async_atomic():
        if await switch(tenant_id=principal.tenant_id, name=name, paused=paused):
            await _record(principal, "schedule.pause" if paused else "schedule.resume", name)


async def switch(*, tenant_id: int, name: str, paused: bool) -> bool:
    """Pause or resume the schedule, as part of the caller's transaction, which records it. False if it was so already.

    Raises UnknownSchedule (404).
    """
    found: Any = await schedule_of(tenant_id, name, lock=True)
    if found.paused == paused:
        return False
    next_at = None if paused else Timing(found.cron, found.timezone).after(found.now)
    mine = JobSchedule.async_objects.of(tenant_id).filter(id=found.id)
    await mine.aupdate(paused=paused, next_at=next_at, changed_at=Now())
    return True


async def run(*, principal: Principal, name: str, idempotency_key: str = "") -> tuple[NewJob, JobReceipt]:
    """Submit one job of the schedule now, also while it is paused or one of its jobs is open.

    Raises UnknownSchedule (404), Forbidden (403), JobConflict (409), Unavailable (503).
    """
    found = await schedule_of(principal.tenant_id, name)
    principal.require(scope_of(found.kind))
    job = job_of(found, id=new_id(principal, idempotency_key))
    receipt = await store.submit(job)
    if not receipt.replayed:
        async with async_atomic():
            await note_job(found, receipt)
            await _record(principal, "schedule.run", name, job=str(receipt.id))
    return job, receipt


async def note_job(schedule: JobSchedule, receipt: JobReceipt) -> None:
    """Write down the schedule's latest job, as part of the caller's transaction."""
    await JobSchedule.async_objects.of(schedule.tenant_id).filter(id=schedule.id).aupdate(last_job=receipt.id)


async def _record(principal: Principal, action: str, name: str, **detail: Any) -> None:
    await audit.record(
        actor=f"key {principal.key}",
        action=action,
        target=f"schedule {name}",
        tenant_id=principal.tenant_id,
        detail=detail,
    )
