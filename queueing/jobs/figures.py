"""Figures of jobs for the console: a tenant's jobs by state and per minute, cached for all who watch, and what workers run now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from queueing.models import JobStatus
from registry.data import clock, database
from registry.data.cache import Cached

SQL = database.statements(Path(__file__).parent / "sql" / "figures.sql")

FRESH = 1.0  # seconds; each open page asks every 2 s, and all pages of a process share one answer
KEPT = 1_000  # tenants
COUNTED = 10_000  # jobs of a state at most
EVENTS_READ = 20_000  # the newest of a tenant; they may cover less than the hour
MINUTES = 60  # of the chart
SAMPLE = 500  # open jobs of each tenant and kind among which those are looked for that run


@dataclass(frozen=True, slots=True)
class JobFigures:
    """A tenant's jobs now, and in the last hour."""

    counts: dict[str, int]  # by state
    capped: frozenset[str]  # states of which there may be more
    oldest: float  # seconds that the oldest due job has waited
    series: dict[str, Any]  # by minute, and under `now` the open jobs


async def _load(tenant_id: int) -> JobFigures:
    [numbers], minutes = await database.concurrently(
        lambda: database.fetch(SQL["counts"], {"tenant": tenant_id, "most": COUNTED}),
        lambda: database.fetch(SQL["minutes"], {"tenant": tenant_id, "most": EVENTS_READ}),
    )
    *counts, oldest, read = numbers
    by_state = dict(zip((status.value for status in JobStatus), counts, strict=True))
    capped = {state for state, count in by_state.items() if count >= COUNTED}
    if read >= COUNTED:
        capped |= {JobStatus.SUCCEEDED.value, JobStatus.CANCELED.value}
    now = {"queued": by_state["queued"], "running": by_state["running"]}
    return JobFigures(by_state, frozenset(capped), float(oldest), {**_series(minutes, clock.timestamp()), "now": now})


def _series(rows: Sequence[tuple[Any, ...]], now: float) -> dict[str, Any]:
    """Counts for each minute of the last hour; None where not all events of the minute were read."""
    found = {minute: counts for minute, *counts in rows}
    cut = max((minute for minute, counts in found.items() if not counts[-1]), default=None)
    latest = int(now) // 60 * 60
    at = range(latest - 60 * (MINUTES - 1), latest + 60, 60)
    unknown, nothing = [None] * 4, [0] * 4
    columns = [unknown if cut is not None and minute <= cut else found.get(minute, nothing)[:4] for minute in at]
    names = ("submitted", "succeeded", "failed", "canceled")
    return {"at": list(at), **{name: [column[n] for column in columns] for n, name in enumerate(names)}}


snapshots: Cached[int, JobFigures] = Cached(_load, fresh=FRESH, kept=KEPT)


class HeldJob(NamedTuple):
    """A job that a worker runs now: a row of the statement `held`."""

    worker_id: int
    tenant: str
    uuid: UUID
    kind: str
    attempt: int
    started_at: datetime


async def held_by(workers: Sequence[int]) -> dict[int, list[HeldJob]]:
    """The jobs that these workers run now, by worker."""
    found: dict[int, list[HeldJob]] = {worker: [] for worker in workers}
    for row in await database.fetch(SQL["held"], {"workers": list(workers), "sample": SAMPLE}, prepare=False):
        held = HeldJob._make(row)
        found[held.worker_id].append(held)
    return found
