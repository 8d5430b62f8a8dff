"""Changes to submitted jobs: cancel and retry; and how to wait for the end of one."""

import asyncio
from pathlib import Path
from uuid import UUID

import psycopg
from django.db import IntegrityError

from queueing.jobs import events, queries
from queueing.jobs.errors import JobConflict, JobNotFailed, JobOver, UnknownJob
from queueing.jobs.store import QUEUE
from queueing.models import Job, JobStatus
from queueing.work import waking
from registry.data import database, db_breaker, live, orm
from registry.telemetry import changes
from registry.telemetry.context import REQUEST

POSITION = events.JobChange._fields.index("position")
SQL = database.statements(Path(__file__).parent / "sql" / "jobs.sql")
RETRIED = "Queued again on request"
SAME_KEY = "another job with the same unique key is at work"


async def cancel(*, tenant_id: int, uuid: UUID) -> JobStatus:
    """Cancel a queued job at once, and a running one at its next checkpoint; returns its status after that.

    Raises UnknownJob (404), JobOver (409) for a job that has succeeded or failed.
    """
    before = await _changed("cancel", {"tenant": tenant_id, "uuid": uuid})
    if before in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise JobOver(f"this job has {before} already")
    return JobStatus.RUNNING if before == JobStatus.RUNNING else JobStatus.CANCELED


async def retry(*, tenant_id: int, uuid: UUID, detail: str = RETRIED) -> None:
    """Queue a failed job again, with all of its attempts. Raises UnknownJob (404), JobNotFailed, JobConflict (409)."""
    try:
        before = await _changed("retry", {"tenant": tenant_id, "uuid": uuid, "detail": detail})
    except psycopg.errors.UniqueViolation:
        raise JobConflict(SAME_KEY) from None
    if before != JobStatus.FAILED:
        raise JobNotFailed(f"this job is {before}: only a job that has failed can be tried again")
    waking.wake(QUEUE)


async def change_in_transaction(change: str, job: Job) -> tuple[str, live.Event | None]:
    """`cancel` or `retry` as part of the caller's `async_atomic`: the job's status before, and the event, which the caller
    publishes after the commit. Raises JobConflict (409) for a retry while another job with the same unique key is open."""
    try:
        [(before, *row)] = await orm.statement(
            SQL[change], {"tenant": job.tenant_id, "uuid": job.uuid, "detail": RETRIED}
        )
    except IntegrityError:
        raise JobConflict(SAME_KEY) from None
    return before, events.from_row(tuple(row)) if row[POSITION] is not None else None


async def finished(*, tenant_id: int, uuid: UUID, within: float) -> bool:
    """Wait at most `within` seconds until the job is over. False on a time-out. Raises UnknownJob (404), Unavailable (503)."""
    try:
        async with asyncio.timeout(within), events.STREAM.follow(tenant_id, uuid) as subscription:
            while True:
                if await db_breaker.attempt(lambda: _is_over(tenant_id, uuid), writes=False):
                    return True
                await subscription.get()
    except (TimeoutError, live.TooSlow):
        return False


async def _is_over(tenant_id: int, uuid: UUID) -> bool:
    async with database.own_connection():  # the breaker may run this in a task of its own
        return (await queries.job_of(tenant_id, uuid)).closed is not None


async def _changed(statement: str, parameters: dict[str, object]) -> str:
    """Run the statement and publish its event, if it made one; the job's status before. Raises UnknownJob (404)."""
    rows = await database.fetch(SQL[statement], parameters)
    if not rows:
        raise UnknownJob
    before, *change = rows[0]
    if change[POSITION] is not None:
        moved = events.JobChange._make(change)
        changes.record([events.line(moved, before, moved.status, "on request", request_id=REQUEST.get())])
        live.publish([events.event(moved)])
    return before
