"""Schedules as the API and the pages read them."""

import asyncio
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import msgspec

from queueing.jobs.queries import SHOWN
from queueing.jobs.queries import shown as job_shown
from queueing.jobs.schedules.schedules import schedule_of
from queueing.jobs.schedules.timing import NotATime, Timing
from queueing.models import Job, JobSchedule
from registry.data import database
from registry.edge.api import iso

NEXT_SHOWN = 5  # due times
FURTHEST = timedelta(
    days=366 * 5
)  # of them; to look further costs tens of milliseconds for expressions that are seldom due


def shown(schedule: JobSchedule) -> dict[str, Any]:
    """A schedule without its latest job."""
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap,
        "catchUp": schedule.catch_up,
        "paused": schedule.paused,
        "nextAt": schedule.next_at and iso(schedule.next_at),
        "kind": schedule.kind,
        "input": msgspec.Raw(schedule.input.encode()),
        "priority": schedule.priority,
        "maxAttempts": schedule.max_attempts,
        "timeout": schedule.timeout,
        "resultTtl": schedule.result_ttl,
        "callbackUrl": schedule.callback_url or None,
        "createdAt": iso(schedule.created_at),
        "updatedAt": iso(schedule.changed_at),
    }


async def detail(tenant_id: int, name: str) -> dict[str, Any]:
    """A schedule with its next due times and its latest job. Raises UnknownSchedule (404)."""
    schedule = await schedule_of(tenant_id, name)
    return {
        **shown(schedule),
        "next": [iso(at) for at in await asyncio.to_thread(next_times, schedule)],
        "lastJob": await last_job(schedule),
    }


def next_times(schedule: JobSchedule) -> list[datetime]:
    """The next due times, from the first one that is not handled yet."""
    if schedule.next_at is None:
        return []
    last = schedule.next_at + FURTHEST
    later = Timing(schedule.cron, schedule.timezone).all_after(schedule.next_at)
    try:
        return [schedule.next_at, *islice(takewhile(lambda at: at <= last, later), NEXT_SHOWN - 1)]
    except NotATime:
        return [schedule.next_at]


async def last_job(schedule: JobSchedule) -> dict[str, Any] | None:
    """The schedule's latest job, as lists show it, with its due time; None also if it is deleted."""
    if schedule.last_job is None:
        return None
    mine = Job.async_objects.of(schedule.tenant_id).filter(uuid=schedule.last_job)
    found = await mine.values_list(*SHOWN, "due_at", named=True).afirst()
    return found and {**job_shown(found), "dueAt": found.due_at and iso(found.due_at)}


async def page_of(tenant_id: int, *, limit: int, cursor: str | None = None) -> dict[str, Any]:
    """{"items", "next", "total"}, by name. The cursor is the name of a page's last schedule."""
    found, total = await database.concurrently(
        lambda: _rows(tenant_id, limit + 1, cursor), lambda: JobSchedule.async_objects.of(tenant_id).acount()
    )
    return {
        "items": [shown(schedule) for schedule in found[:limit]],
        "next": found[limit - 1].name if len(found) > limit else None,
        "total": total,
    }


async def _rows(tenant_id: int, limit: int, cursor: str | None) -> list[JobSchedule]:
    schedules = JobSchedule.async_objects.of(tenant_id).filter(name__gt=cursor or "").order_by("name")
    return [schedule async for schedule in schedules[:limit]]
