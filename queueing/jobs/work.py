"""Jobs as work: claim, run the function of the kind, settle. kinds.py registers kinds, running.py has what runs now.

A share is a tenant's jobs of one kind, so that a long backlog of one kind delays neither other tenants nor other kinds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from queueing.jobs import decisions, events, limits, lost
from queueing.jobs.decisions import JobClaim, JobSettlement
from queueing.jobs.execution import outcome_of
from queueing.jobs.kinds import KINDS
from queueing.jobs.processes.children import Children
from queueing.jobs.processes.places import Places
from queueing.jobs.running import CURRENT, RunningJob, RunningJobs
from queueing.jobs.schedules import ticking
from queueing.jobs.stall import TICK_EVERY, LoopGuard
from queueing.models import JobStatus
from queueing.work import entry
from queueing.work.pools import DIVIDED
from queueing.work.table import DEPTH_SAMPLE, Depth, WorkTable, register
from queueing.work.work import Routed, Work
from registry.data import database, live
from registry.data.arrays import Bigints, Texts, texts_unless_empty, unless_empty
from registry.data.database import Row
from registry.telemetry import changes, context, metrics
from registry.telemetry.export import Attributes
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "jobs.sql")

WATCH_EVERY = 1.0  # seconds between looks for requests to cancel, and between stored reports of progress
EXTEND_EVERY = 8.0  # seconds between extensions of leases; several fit into a lease


async def _depth_of(kind: str) -> Depth:
    parameters = {"kind": kind, "sample": DEPTH_SAMPLE}
    return Depth(*(await database.fetch(SQL["depth_of_kind"], parameters, repeatable=False))[0])


ACCEPTED = "CASE WHEN attempt = 0 THEN run_at ELSE created_at END"  # a first run may be asked for at a later time
JOBS = register(
    WorkTable(
        "jobs", "queueing_job", "closed IS NULL", accepted=ACCEPTED, share=itemgetter(0, 3), part_depth=_depth_of,
        before_release=lost.put_off,
    )
)  # fmt: skip
DIVIDED["jobs"] = KINDS.__contains__

type JobShare = tuple[int, str]  # tenant, kind
type Quotas = dict[JobShare, int]


def _in_process(kind: str) -> bool:
    return KINDS[kind].runs == "process"


@cache
def _wait_of(kind: str) -> Any:
    return metrics.JOB_WAIT.labels(kind)  # a look-up of labels takes as long as an observation


@cache
def _seconds_of(kind: str) -> Any:
    return metrics.JOB_SECONDS.labels(kind)


class JobWork(Work[JobClaim, JobSettlement]):
    """The work of running jobs."""

    table = JOBS
    in_transaction = False
    settle_rows = 250
    settle_linger = 0.005
    capacity = 1200
    share_limit = 300  # a quarter; while some outcomes are written, the next jobs of the share run
    tenant_limit = 900  # rows of one tenant in flight, of all kinds; the rest of the capacity is for others

    def __init__(self, *, guarded: bool = False) -> None:
        """`guarded`: the process belongs to this work, and is killed if a job blocks its loop."""
        super().__init__()
        self.running = RunningJobs()
        self.children = Children()
        self.places = Places()
        self._of_tenant: Counter[int] = Counter()  # rows in flight, and what the claim under way takes
        self._extend_at = 0.0  # time.monotonic()
        self._guard = LoopGuard(self.running, self._statement) if guarded else None

    async def close(self) -> None:
        await super().close()
        await self.children.close()
        if self._guard:
            self._guard.stop()

    # -- Claiming ----------------------------------------------------------------------------------------------

    def share_of(self, item: JobClaim) -> JobShare:
        return item.tenant_id, item.kind

    def free_by_share(self, limit: int) -> Quotas:
        self._of_tenant = Counter()
        for (tenant, _), count in self.in_flight_of.items():
            self._of_tenant[tenant] += count
        free = super().free_by_share(limit)
        return {share: min(few, self.tenant_limit - self._of_tenant[share[0]]) for share, few in free.items()}

    async def due(self, conn: AsyncConnection) -> list[JobShare]:
        mine = [kind for kind in KINDS if self.division.takes_part("jobs", kind)]
        free = mine if self.places.free() else [kind for kind in mine if not _in_process(kind)]
        rows = await database.rows(conn, SQL["due"], {"kinds": free, **self.shares.asked})
        found = [(tenant, kind) for tenant, kind in rows if self._may_take(tenant, kind)]
        if len(free) < len(mine) or len(found) < len(rows):
            self.shares.leave()
        return found

    def _may_take(self, tenant: int, kind: str) -> bool:
        return self._of_tenant[tenant] < self.tenant_limit and (not _in_process(kind) or self.places.free_for(tenant))

    async def take(self, conn: AsyncConnection, quotas: Quotas) -> list[Row]:
        lowered = self._in_turn(self._for_tenants(quotas))
        limited = sorted({kind for _, kind in lowered if limits.has_limits(KINDS[kind])})
        if not limited:
            return await self._take(conn, lowered, quotas)
        async with conn.transaction():
            rows = await self._take(conn, await limits.allowed(conn, limited, lowered), quotas)
            await limits.hold(conn, limited, [JobClaim._make(row) for row in rows])
            return rows

    async def _take(self, conn: AsyncConnection, lowered: Quotas, asked: Quotas) -> list[Row]:
        quotas = self._for_places(lowered)
        if quotas != asked:
            self.shares.leave()
        return await database.rows(conn, SQL["take"], self._quotas_of(quotas)) if quotas else []

    def _for_tenants(self, quotas: Quotas) -> Quotas:
        """The quotas; those of a tenant's kinds lowered to what it may have in flight together."""
        lowered: Quotas = {}
        for (tenant, kind), quota in quotas.items():
            if few := min(quota, self.tenant_limit - self._of_tenant[tenant]):
                self._of_tenant[tenant] += few
                lowered[tenant, kind] = few
        return lowered

    def _in_turn(self, quotas: Quotas) -> Quotas:
        """The quotas; those of kinds that run in processes last, in the order in which they get places, without those that get none.

        So the limits of a kind are used up by tenants that have a place for its jobs.
        """
        loop = {share: quota for share, quota in quotas.items() if not _in_process(share[1])}
        return loop | {
            share: quotas[share] for share in self.places.in_turn(share for share in quotas if share not in loop)
        }

    def _for_places(self, quotas: Quotas) -> Quotas:
        """The quotas; those of kinds that run in processes lowered to the places that they get."""
        loop = {share: quota for share, quota in quotas.items() if not _in_process(share[1])}
        return loop | self.places.divide({share: quota for share, quota in quotas.items() if share not in loop})

    def _quotas_of(self, quotas: Quotas) -> dict[str, object]:
        return {
            "tenants": Bigints([tenant for tenant, _ in quotas]),
            "kinds": Texts([kind for _, kind in quotas]),
            "quotas": Bigints(list(quotas.values())),
            "worker": self.worker_id,
            "lease": self.lease,
            "above": self.shares.above,
            "most_lost": decisions.MOST_LOST,
        }

    def route(self, rows: Sequence[Row]) -> Routed[JobClaim]:
        claims = [JobClaim._make(row) for row in rows]
        self.places.hold(claim for claim in claims if _in_process(claim.kind))
        return Routed(claims)

    def after_begin(self, items: Sequence[JobClaim], rows: Sequence[Row]) -> Iterable[changes.ChangeLine]:
        live.publish([events.claimed(claim) for claim in items])
        for claim in items:
            if not (claim.over or claim.cut_off):
                _wait_of(claim.kind).observe((claim.started_at - claim.run_at).total_seconds())
        return (
            events.line(claim, "running", "running", decisions.LOST)
            if claim.cut_off
            else events.line(claim, "queued", "running")
            for claim in items
        )

    def release(self, items: Sequence[JobClaim]) -> None:
        super().release(items)
        in_processes = [item for item in items if _in_process(item.kind)]
        self.places.release(in_processes)
        if in_processes or any(limits.has_limits(KINDS[item.kind]) for item in items):
            self.wake()  # the next one may start now: looks every POLL seconds would leave the place empty

    # -- Running -----------------------------------------------------------------------------------------------

    def in_doubt(self, item: JobClaim) -> bool:
        return item.over

    async def resolve(self, items: Sequence[JobClaim]) -> list[JobSettlement]:
        return [decisions.closed(claim) for claim in items]

    async def send(self, items: Sequence[JobClaim]) -> list[JobSettlement]:
        return [await self._run(claim) for claim in items]

    async def _run(self, claim: JobClaim) -> JobSettlement:
        context.TENANT.set(claim.tenant_id)
        job = RunningJob(claim, lease=self.lease)
        job.task = asyncio.current_task()
        CURRENT.set(job)
        self.running.add(job)
        began = time.monotonic()
        try:
            outcome = await outcome_of(job, KINDS[claim.kind], self.children)
        finally:
            self.running.remove(job)
            _seconds_of(claim.kind).observe(time.monotonic() - began)
        settlement, progress = decisions.after(claim, outcome), job.take_progress()
        return settlement._replace(progress=progress) if progress else settlement

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, outcomes: Sequence[JobSettlement]) -> list[Row]:
        return await database.fetch(*self._statement(outcomes))

    def _statement(self, batch: Sequence[JobSettlement]) -> tuple[str, dict[str, Any]]:
        return SQL["settle"], self._columns(batch)

    def _columns(self, batch: Sequence[JobSettlement]) -> dict[str, object]:
        reports = [s.progress for s in batch]
        return {
            "worker": self.worker_id,
            "tenant": Bigints([s.claim.tenant_id for s in batch]),
            "job": Bigints([s.claim.job_id for s in batch]),
            "attempt": Bigints([s.claim.attempt for s in batch]),
            "status": Texts([s.status for s in batch]),
            "wait": unless_empty([s.wait or None for s in batch]),
            "code": texts_unless_empty([s.code for s in batch]),
            "error": texts_unless_empty([s.error for s in batch]),
            "traceback": texts_unless_empty([s.traceback for s in batch]),
            "result": texts_unless_empty([s.result for s in batch]),
            "uncounted": unless_empty([int(s.uncounted) or None for s in batch]),
            "done": unless_empty([r and r.done for r in reports]),
            "total": unless_empty([r and r.total for r in reports]),
            "message": texts_unless_empty([r.message if r else None for r in reports]),
        }

    def changed(self, outcome: JobSettlement, row: Row) -> changes.ChangeLine:
        return events.settled_line(outcome, row)

    async def after_settle(self, written: Sequence[tuple[JobSettlement, Row]]) -> None:
        live.publish([events.settled(settlement, row) for settlement, row in written])
        for (kind, status), count in Counter((s.claim.kind, s.status.value) for s, _ in written).items():
            metrics.JOBS.labels(kind, status).inc(count)

    def is_done(self, outcome: JobSettlement, written: bool) -> bool:
        return written and outcome.status is not JobStatus.QUEUED

    async def give_back(self, items: Sequence[JobClaim]) -> None:
        await self.write_once([decisions.handed_back(claim) for claim in items])

    # -- Traces --------------------------------------------------------------------------------------------------

    def traced_as(self, item: JobClaim) -> TracedObject:
        return TracedObject("job", item.tenant_id, item.uuid)

    def described(self, outcome: JobSettlement) -> Attributes:
        return {
            "registry.job.kind": outcome.claim.kind,
            "registry.attempt": outcome.claim.shown,
            "registry.status": outcome.status.value,
            "error.type": outcome.code,
        }

    # -- Background ----------------------------------------------------------------------------------------------

    def processes(self) -> tuple[int, int]:
        return self.places.taken, self.places.ordinary

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._expire, self._watch, ticking.tick, *([self._tick] if self._guard else [])]

    async def _expire(self) -> None:
        """End what has lost its lease. Apart from `_watch`, which may wait for the database."""
        await asyncio.sleep(WATCH_EVERY)
        for job in self.running.expired():
            job.lose()

    async def _tick(self) -> None:
        assert self._guard
        if not self._guard.started:
            self._guard.start(database.connection_parameters())
        self._guard.tick()
        await asyncio.sleep(TICK_EVERY)

    async def _watch(self) -> None:
        """Extend leases, notice requests to cancel and lost leases, store reports of progress."""
        await asyncio.sleep(WATCH_EVERY)
        jobs = list(self.running)
        if not jobs:
            return
        if time.monotonic() >= self._extend_at:
            await self._extend(jobs)
        for tenant, row, is_lost in await database.fetch(SQL["watch"], self._keys(jobs)):
            if running := self.running.get((tenant, row)):
                running.lose() if is_lost else running.cancel()
        await self._report([job for job in jobs if job.reports_now()])

    async def _extend(self, jobs: Sequence[RunningJob]) -> None:
        at = time.monotonic()
        await database.fetch(SQL["extend"], {**self._keys(jobs), "lease": self.lease})
        self._extend_at = at + EXTEND_EVERY
        for job in jobs:
            job.leased_until = at + self.lease

    async def _report(self, jobs: Sequence[RunningJob]) -> None:
        reports = [(job, report) for job in jobs if (report := job.take_progress())]
        if not reports:
            return
        columns = {
            **self._keys([job for job, _ in reports]),
            "done": [r.done for _, r in reports],
            "total": [r.total for _, r in reports],
            "message": Texts([r.message for _, r in reports]),
        }
        live.publish([events.from_row(row) for row in await database.fetch(SQL["report"], columns)])

    def _keys(self, jobs: Sequence[RunningJob]) -> dict[str, Any]:
        return {
            "worker": self.worker_id,
            "tenant": Bigints([job.claim.tenant_id for job in jobs]),
            "job": Bigints([job.claim.job_id for job in jobs]),
            "attempt": Bigints([job.claim.attempt for job in jobs]),
        }


@entry.register("jobs")
def job_work() -> JobWork:
    """The work of a worker process."""
    return JobWork(guarded=True)
