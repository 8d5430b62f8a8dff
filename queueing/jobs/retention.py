"""Retention of jobs: deletes expired results, finished jobs with their events, and slots that nothing holds.

Each statement deletes a slice and commits. Failed jobs are dead letters, which a tenant may still retry, and are kept for longer.
Numbers of deleted events are not used again: a reader that resumes gets the events that remain.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from queueing.models import JOB_CLOSED, JobStatus
from registry.data import database
from registry.data.chores import chore

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "retention.sql")

TRIM_EVERY = 600  # seconds between removals
SLICE = 1000  # rows per statement
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@chore("trim-jobs", every=TRIM_EVERY)
async def trim() -> None:
    """Delete what has expired."""
    removed = {
        "results": await _slices("expired_results"),
        "jobs": sum([await finished(status) for status in JOB_CLOSED]),
        "slots": await _slices("stale_slots"),
    }
    if any(removed.values()):
        log.info("old jobs removed", extra=removed)


async def finished(status: JobStatus) -> int:
    """Delete jobs that ended with this status longer ago than they are kept; returns how many."""
    days = settings.FAILED_JOB_RETENTION if status == JobStatus.FAILED else settings.JOB_RETENTION
    after, after_id, count = BEGINNING, 0, 0
    while True:
        page = await _fetch("finished", status=status.value, days=days, after=after, after_id=after_id)
        count += sum(deleted for _, _, deleted in page)
        if len(page) < SLICE:
            return count
        after, after_id, _ = page[-1]


async def _slices(statement: str) -> int:
    count = 0
    while rows := await _fetch(statement):
        count += len(rows)
    return count


async def _fetch(statement: str, **parameters: Any) -> list[database.Row]:
    return await database.fetch(SQL[statement], {"limit": SLICE, **parameters}, prepare=False)
