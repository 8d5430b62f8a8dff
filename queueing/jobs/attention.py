"""Source of attention: jobs that failed for good."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from queueing.models import Job
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_jobs.sql")


@source("jobs.failed")
async def failed(tenant_ids: Sequence[int] | None) -> list[Item]:
    count, since, kinds, slug = await failed_jobs(tenant_ids)
    if not count:
        return []
    of = f" of {kinds} kinds" if kinds > 1 else ""
    return [
        Item(
            severity=Severity.WARNING,
            sentence=f"{counted(count, 'job')}{of} failed in every attempt. That work is not done.",
            count=count,
            since=since,
            action="Retry",
            page="/jobs/list?status=failed",
            admin=address_of_list(Job, tenant=slug, state="failed"),
        )
    ]


async def failed_jobs(tenant_ids: Sequence[int] | None) -> tuple[int, datetime | None, int, str | None]:
    """How many, since when, of how many kinds, and the tenant of the oldest."""
    [row] = await database.fetch(SQL["failed"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)
    return row
