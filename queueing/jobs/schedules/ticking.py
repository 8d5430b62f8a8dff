"""Submit the jobs of due schedules. Every worker of jobs looks once a second; PostgreSQL decides which one submits.

A schedule's row is locked, its jobs are inserted and its next due time is written in one transaction. The id of a job is derived
from its schedule and due time. So a due time submits one job, whatever processes end or repeat. Only the database's clock counts.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid5

from queueing.jobs import store
from queueing.jobs.job import NewJob
from queueing.jobs.schedules.schedules import job_of, schedule_id
from queueing.jobs.schedules.steps import MISSED_AFTER, Step, step
from queueing.jobs.schedules.timing import NotATime, Timing
from registry.data import database, live
from registry.data.database import Row

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "schedules.sql")

LOOK_EVERY = 1.0  # seconds between looks for due schedules; cron counts in minutes
SCHEDULES = 20  # due schedules per transaction


class DueSchedule(NamedTuple):
    """A locked schedule that is due: a row of the statement `lock`."""

    tenant_id: int
    id: int
    name: str
    cron: str
    timezone: str
    overlap: str
    catch_up: str
    next_at: datetime
    kind: str
    input: str
    sealed: bytes | None
    priority: int
    max_attempts: int
    timeout: float
    result_ttl: int
    callback_url: str
    now: datetime
    active: bool  # its tenant may submit jobs


async def tick() -> None:
    """Submit what is due; after that wait, if nothing was."""
    if not await submit_due():
        await asyncio.sleep(LOOK_EVERY)


async def submit_due() -> int:
    """Submit the jobs of some due schedules; returns the number of schedules that it handled. Raises Unavailable."""
    limits = {"missed_after": MISSED_AFTER.total_seconds(), "limit": SCHEDULES}
    due = await database.fetch(SQL["due"], limits)
    if not due:
        return 0
    handled, new = await database.faults_as_unavailable(lambda: _submit(due))
    store.announce(new)
    return handled


async def _submit(due: Sequence[Row]) -> tuple[int, list[live.Change]]:
    async with database.transaction() as conn:
        rows = await database.rows(conn, SQL["lock"], _keys(due), prepare=False)
        locked = [DueSchedule._make(row) for row in rows]
        if not locked:
            return 0, []
        found = await database.rows(conn, SQL["with_open_jobs"], _keys(locked))
        with_open_jobs = {id for (id,) in found}
        steps = [_step(one, is_open=one.id in with_open_jobs) for one in locked]
        jobs = [[_job(one, at) for at in done.due] for one, done in zip(locked, steps, strict=True)]
        moved = {
            **_keys(locked),
            "next_at": [done.next_at for done in steps],
            "jobs": [some[-1].id if some else None for some in jobs],
        }
        await database.rows(conn, SQL["move"], moved, prepare=False)
        every = [job for some in jobs for job in some]
        new = await store.insert(conn, every) if every else []  # last: it locks the numbers of the tenants' events
    return len(locked), new


def _keys(rows: Sequence[Row]) -> dict[str, object]:
    return {"tenants": [row[0] for row in rows], "ids": [row[1] for row in rows]}


def _step(one: DueSchedule, *, is_open: bool) -> Step:
    timing = Timing(one.cron, one.timezone)
    try:
        if not one.active:
            return Step([], timing.after(one.now))
        return step(timing, first=one.next_at, now=one.now, overlap=one.overlap, catch_up=one.catch_up, is_open=is_open)
    except NotATime as error:  # such as a time zone that this machine's database does not have
        log.error("a schedule stops", extra={"tenant": one.tenant_id, "schedule": one.name, "error": str(error)})
        return Step([], None)


def _job(one: DueSchedule, due: datetime) -> NewJob:
    return job_of(one, id=_job_id(one, due), due_at=due)


def _job_id(one: DueSchedule, due: datetime) -> UUID:
    return uuid5(schedule_id(one.tenant_id, one.name), due.isoformat())
