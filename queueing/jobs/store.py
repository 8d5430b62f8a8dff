"""Store jobs in PostgreSQL: one statement and one commit per batch. An existing id is a replay or a conflict."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from queueing.jobs import events
from queueing.jobs.errors import JobConflict
from queueing.jobs.events import JobChange
from queueing.jobs.job import JobReceipt, Key, NewJob, fingerprint
from queueing.work import waking
from registry.data import database, db_breaker, live
from registry.data.arrays import Bigints, Blobs, Texts, Uuids, unless_empty
from registry.data.batching import Batcher
from registry.data.database import Row
from registry.data.loop import PerLoop
from registry.errors import Unavailable
from registry.telemetry import changes, traces
from registry.tenants import sampling
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "store.sql")
QUEUE = "jobs"
TIMES = 3  # that a job is stored again whose namesake ended between two statements

type StoreResult = JobReceipt | JobConflict | Unavailable


async def submit(job: NewJob) -> JobReceipt:
    """Make `job` durable, unless it is already. Raises JobConflict (409), Unavailable (503)."""
    result = await _batchers.get().submit(job)
    if isinstance(result, Exception):
        raise result
    return result


async def submit_many(jobs: Sequence[NewJob]) -> list[StoreResult]:
    """`submit` for up to a thousand at once: one result per job, in order."""
    batcher = _batchers.get()
    under_way = [batcher.submit(one) for one in jobs]
    return [await result for result in under_way]


async def _store(batch: Sequence[NewJob]) -> list[StoreResult]:
    results: dict[int, StoreResult] = {}
    for _ in range(TIMES):
        waiting = [n for n in range(len(batch)) if n not in results]
        if not waiting:
            break
        results |= dict(zip(waiting, await _store_once([batch[n] for n in waiting]), strict=True))
        results = {n: result for n, result in results.items() if result is not None}
    busy = Unavailable("another job with this unique key ends at this very moment; try again")
    return [results.get(n, busy) for n in range(len(batch))]


async def _store_once(batch: Sequence[NewJob]) -> list[Any]:
    """None for a job that was neither stored nor found: its namesake ended meanwhile."""
    began = time.perf_counter()
    stored = _by_key(await database.fetch(SQL["accept"], _columns(batch)))
    if traces.on:
        made = [TracedObject("job", *key) for key in stored]
        sampling.record_commit("accept jobs", made, rows=len(batch), began=began)
    results: list[JobReceipt | JobConflict | None] = []
    new, requests = [], {}
    for job in batch:
        fresh = stored.pop(job.key, None)  # the second of two equal ids in one batch is a replay of the first
        results.append(JobReceipt(job.id, fresh[0]) if fresh else None)
        if fresh:
            new.append(_event(job, *fresh))
            requests[job.key] = job.request_id
    announce(new, requests)
    if left := [job for job, result in zip(batch, results, strict=True) if result is None]:
        found = await _found(left)
        return [result or found[job] for job, result in zip(batch, results, strict=True)]
    return results


async def insert(conn: AsyncConnection, jobs: Sequence[NewJob]) -> list[live.Change]:
    """Insert jobs in the caller's transaction, which calls `announce` with the returned events after its commit. A job whose id
    exists is left out."""
    stored = _by_key(await database.rows(conn, SQL["accept"], _columns(jobs)))
    return [_event(job, *stored[job.key]) for job in jobs if job.key in stored]


def announce(new: Sequence[live.Change], requests: Mapping[Key, str] | None = None) -> None:
    """Log jobs that are committed, publish their events, and wake workers. `requests`: which made each one, if not the caller's own."""
    if new:
        changes.record(events.accepted(one, requests) for one in new)
        live.publish(new)
        waking.wake(QUEUE)


def _by_key(rows: Sequence[Row]) -> dict[Key, tuple[datetime, int]]:
    return {(tenant, uuid): (at, position) for tenant, uuid, at, position in rows}


def _columns(jobs: Sequence[NewJob]) -> dict[str, Any]:
    return {
        "tenant": Bigints([j.tenant_id for j in jobs]),
        "uuid": Uuids([j.id.bytes for j in jobs]),
        "kind": Texts([j.kind for j in jobs]),
        "input": Texts([j.input.decode() for j in jobs]),
        "sealed": Blobs([j.sealed for j in jobs]),
        "fingerprint": Blobs([fingerprint(j) for j in jobs]),
        "priority": Bigints([j.priority for j in jobs]),
        "run_at": unless_empty([j.run_at for j in jobs]),
        "unique_key": Texts([j.unique_key for j in jobs]),
        "max_attempts": Bigints([j.max_attempts for j in jobs]),
        "timeout_ms": Bigints([round(j.timeout * 1000) for j in jobs]),
        "result_ttl": Bigints([j.result_ttl for j in jobs]),
        "callback_url": Texts([j.callback_url for j in jobs]),
        "schedule": Bigints([j.schedule_id or 0 for j in jobs]),
        "due_at": unless_empty([j.due_at for j in jobs]),
    }


def _event(job: NewJob, at: datetime, position: int) -> live.Change:
    return events.unread(JobChange(job.tenant_id, 0, position, job.id, job.kind, "queued", 0, at, None, None, at, 1))


# -- Existing jobs -------------------------------------------------------------------------------------------


async def _found(jobs: Sequence[NewJob]) -> dict[NewJob, JobReceipt | JobConflict | None]:
    same = await _with_ids([job.key for job in jobs])
    found: dict[NewJob, JobReceipt | JobConflict | None] = {job: _compared(job, same.get(job.key)) for job in jobs}
    unique = [job for job, result in found.items() if result is None and job.unique_key]
    if unique:
        at_work = await _with_unique_keys(unique)
        found |= {job: at_work.get((job.tenant_id, job.kind, job.unique_key)) for job in unique}
    return found


async def _with_ids(keys: Sequence[Key]) -> dict[Key, tuple[bytes, datetime]]:
    params = {"tenant": Bigints([tenant for tenant, _ in keys]), "uuid": Uuids([uuid.bytes for _, uuid in keys])}
    rows = await database.fetch(SQL["existing"], params)
    return {(tenant, uuid): (bytes(content), at) for tenant, uuid, content, at in rows}


def _compared(job: NewJob, first: tuple[bytes, datetime] | None) -> JobReceipt | JobConflict | None:
    if first is None:
        return None
    if first[0] != fingerprint(job):
        return JobConflict("another job has this id, or this Idempotency-Key, and other content")
    return JobReceipt(job.id, first[1], replayed=True)


async def _with_unique_keys(jobs: Sequence[NewJob]) -> dict[tuple[int, str, str | None], JobReceipt]:
    params = {
        "tenant": Bigints([j.tenant_id for j in jobs]),
        "kind": Texts([j.kind for j in jobs]),
        "unique_key": Texts([j.unique_key for j in jobs]),
    }
    rows = await database.fetch(SQL["at_work"], params, prepare=False)
    return {(tenant, kind, key): _at_work(uuid, at) for tenant, kind, key, uuid, at in rows}


def _at_work(uuid: UUID, at: datetime) -> JobReceipt:
    return JobReceipt(uuid, at, at_work=True)


_batchers: PerLoop[Batcher[NewJob, StoreResult]] = PerLoop(
    lambda: Batcher(lambda batch: db_breaker.attempt(lambda: _store(batch))), close=Batcher.finish
)
