"""The jobs' parts of `check_books`: events per job, and jobs of events."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

from registry.data import database
from registry.tenants.books import BookDifference, BookSlice, book_part, ranges, read, slices

SQL = database.statements(Path(__file__).parent / "sql" / "books.sql")


@book_part("jobs")
async def check_jobs(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every job, by id."""
    async for bounds in slices(SQL["page"], SQL["last"], tenant_id, after):
        rows = await read(SQL["jobs"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [_job(*row) for row in rows]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _job(
    uuid: UUID, status: str, sequence: int, count: int, numbers: list[int], last_status: str | None
) -> BookDifference:
    if numbers == list(range(1, sequence + 1)):
        return BookDifference(
            kind="job.status",
            subject=f"job {uuid}",
            stored=f"status {status}",
            expected=f"{last_status}, by its last event",
        )
    return BookDifference(
        kind="job.events",
        subject=f"job {uuid}",
        stored=f"{count} events with the numbers {', '.join(ranges(numbers)) or 'none'}",
        expected=f"1 to {sequence}, each once",
    )


@book_part("job events")
async def check_events(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every event of a job, by its number in the tenant's stream of jobs."""
    async for bounds in slices(SQL["event_page"], SQL["event_last"], tenant_id, after):
        rows = await read(SQL["events"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [_event(*row) for row in rows]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _event(position: int, job: int) -> BookDifference:
    return BookDifference(
        kind="job.stray",
        subject=f"event {position} of the stream of jobs",
        stored=f"about the job with id {job}, which does not exist",
        expected="about a job of the tenant",
    )
