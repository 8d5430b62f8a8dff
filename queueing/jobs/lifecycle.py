"""Changes to submitted jobs: cancel and retry; and how to wait for the end of one."""

import asyncio
from pathlib import Path
from uuid import UUID

import psycopg

from queueing.jobs import events, queries
from queueing.jobs.errors import JobConflict, JobNotFailed, JobOver, UnknownJob
from queueing.jobs.store import QUEUE
from queueing.models import JobStatus
from queueing.work import waking
from registry.data import database, db_breaker, live

POSITION = events.JobChange._fields.index("position")
SQL = database.statements(Path(__file__).parent / "sql" / "jobs.sql")


async def cancel(*, tenant_id: int, uuid: UUID) -> JobStatus:
    """Cancel a queued job at once, and a running one at its next checkpoint; returns its status after that.

    Raises UnknownJob (404), JobOver (409) for a job that has succeeded or failed.
    """
    before = await _changed("cancel", {"tenant": tenant_id, "uuid": uuid})
    if before in (JobStatus.SUCCEEDED, JobStatus.FAILED):
        raise JobOver(f"this job has {before} already")
    return JobStatus.RUNNING if before == JobStatus.RUNNING else JobStatus.CANCELED


async def retry(*, tenant_id: int, uuid: UUID, detail: str = "Queued again on request") -> None:
    """Queue a failed job again, with all of its attempts. Raises UnknownJob (404), JobNotFailed, JobConflict (409)."""
    try:
        before = await _changed("retry", {"tenant": tenant_id, "uuid": uuid, "detail": detail})
    except psycopg.errors.UniqueViolation:
        raise JobConflict("another job with the same unique key is at work") from None
    if before != JobStatus.FAILED:
        raise JobNotFailed(f"this job is {before}: only a job that has failed can be tried again")
    waking.wake(QUEUE)


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
        live.publish([events.from_row(tuple(change))])
    return before
