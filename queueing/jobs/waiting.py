"""Commands that submit jobs and wait for them. Where no worker of jobs lives, the command runs them itself."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Self

from rich.console import Console
from rich.progress import Progress

from queueing.jobs import store
from queueing.jobs.job import JobReceipt, NewJob
from queueing.jobs.work import JOBS, JobWork
from queueing.models import Job, Worker
from queueing.work import pools
from queueing.work.drain import Drain
from registry.data import database

LOOK_EVERY = 0.2  # seconds between looks at the jobs
CAPACITY = 10  # jobs that a command runs at once
POOL = "command"  # of the worker in a command, which takes nothing but the command's kinds of jobs
RUN_FOR = 30 * 24 * 3600.0  # seconds; the command ends before

type Report = Callable[[Sequence[Job]], None]


async def finish(jobs: Sequence[NewJob], *, report: Report) -> list[Job]:
    """Submit jobs, and wait until all are over; `report` sees them every LOOK_EVERY seconds. Raises what `store.submit` raises.

    A command that is interrupted leaves them to the workers.
    """
    receipts: list[JobReceipt] = []
    for result in await store.submit_many(jobs):
        if isinstance(result, Exception):
            raise result
        receipts.append(result)
    async with _OwnWorker({job.kind for job in jobs}) as worker:
        while True:
            rows = await _rows({job.tenant_id for job in jobs}, receipts)
            report(rows)
            if all(row.closed for row in rows):
                return rows
            await worker.start_unless_another_lives()
            await asyncio.sleep(LOOK_EVERY)


async def finish_shown(jobs: Sequence[NewJob], *, label: str) -> list[Job]:
    """`finish` with a progress bar on stderr, which adds up the progress of all jobs."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)

        def report(rows: Sequence[Job]) -> None:
            over, total = [row for row in rows if row.closed], sum(row.progress_total or 0 for row in rows)
            done = sum(row.progress_done or 0 for row in rows)
            shown = f"{label}: {len(over)} of {len(rows)} jobs" if len(rows) > 1 else label
            bar.update(task, completed=done, total=total or None, description=shown)

        return await finish(jobs, report=report)


async def _rows(tenants: Collection[int], receipts: Sequence[JobReceipt]) -> list[Job]:
    async with database.own_connection():
        found = Job.async_objects.filter(tenant_id__in=tenants, uuid__in=[one.id for one in receipts])
        return [job async for job in found.order_by("id")]


class _OwnWorker:
    """A drain in this process for some kinds of jobs, which begins only if it is needed."""

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._work = JobWork()
        takes = [f"{JOBS.queue}/{kind}" for kind in kinds]
        self._drain = Drain(self._work, capacity=CAPACITY, pool=POOL, takes=takes)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drain.stop()
        if self._task:
            await self._task
        await self._work.close()

    async def start_unless_another_lives(self) -> None:
        if self._task is None and not all(map(await taken_kinds(), self._kinds)):
            self._task = asyncio.get_running_loop().create_task(self._drain.run(seconds=RUN_FOR))


async def taken_kinds() -> Callable[[str], bool]:
    """Whether a living worker takes jobs of a kind."""
    async with database.own_connection():
        living = [one async for one in Worker.async_objects.all().alive()]
    shares = [(one.pool, one.takes) for one in living]
    divisions = [pools.division(one.pool, one.takes, shares) for one in living if one.queue == JOBS.queue]
    return lambda kind: any(division.takes_part(JOBS.queue, kind) for division in divisions)
