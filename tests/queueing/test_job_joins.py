"""Statements about many jobs of many tenants compare each row with the few it belongs to, not each with every other."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from queueing.jobs import lost, store
from queueing.jobs.decisions import JobClaim, JobSettlement
from queueing.jobs.job import NewJob
from queueing.jobs.work import SQL, JobWork
from queueing.models import JobStatus
from registry.data.arrays import Bigints, Texts
from tests.plans import Bed, compared_by, rows_of, undone, uuid_of

JOBS = 1000  # each of a tenant of its own: half run at worker 7, and have lost an attempt before; the others are due
RUNNING = range(1, JOBS // 2 + 1)
FIRST = 800_000  # tenants are FIRST + n
TABLES = [f"queueing_{name}" for name in ("job", "jobevent", "jobresult", "jobslot", "jobstream", "joblimit")]
SEED = """
SELECT setval(pg_get_serial_sequence('queueing_job', 'id'), 1000000);
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
SELECT %(first)s + n, 'joins-' || n, '', 'BRL', 'active', 'sandbox', false, '{}' FROM generate_series(1, %(jobs)s) n;
INSERT INTO queueing_job (id, tenant_id, uuid, kind, input, fingerprint, status, max_attempts, timeout, result_ttl, attempt, lost_attempts,
    lease_id, leased_until, run_at)
SELECT n, %(first)s + n, md5('j' || n)::uuid, 'test.echo', '{}', '', CASE WHEN running THEN 'running' ELSE 'queued' END, 5, 60, 60, 1, 1,
    CASE WHEN running THEN 7 END, CASE WHEN running THEN now() + interval '1 hour' END, now() - interval '1 hour'
FROM (SELECT n, n <= %(jobs)s / 2 AS running FROM generate_series(1, %(jobs)s) n) AS made
"""
NOW = datetime.now(UTC)
WORK = JobWork()
WORK.worker_id = 7


def claim(number: int) -> JobClaim:
    times = (NOW, NOW, False, False, False, 1, NOW)
    return JobClaim(
        FIRST + number, number, uuid_of(f"j{number}"), "test.echo", "{}", None, 1, 0, 5, 60.0, 60, 2, *times, number
    )


def new(number: int) -> NewJob:
    limits: dict[str, Any] = {"max_attempts": 1, "timeout": 60.0, "result_ttl": 60}
    content: dict[str, Any] = {"kind": "test.echo", "input": b"{}", "content": b"{}"}
    return NewJob(tenant_id=FIRST + number, id=uuid_of(f"new {number}"), **content, **limits)


NAMED = {
    "worker": 7,
    "tenant": Bigints([FIRST + n for n in RUNNING]),
    "job": Bigints(list(RUNNING)),
    "attempt": Bigints([1 for _ in RUNNING]),
}
REPORTS = {
    "done": Bigints([1 for _ in RUNNING]),
    "total": Bigints([2 for _ in RUNNING]),
    "message": Texts(["" for _ in RUNNING]),
}
STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "take": (SQL["take"], WORK._quotas_of({(FIRST + n, "test.echo"): 1 for n in range(JOBS // 2 + 1, JOBS + 1)})),
    "settle": WORK._statement([JobSettlement(claim(n), JobStatus.SUCCEEDED, result="1") for n in RUNNING]),
    "report": (SQL["report"], {**NAMED, **REPORTS}),
    "accept": (store.SQL["accept"], store._columns([new(n) for n in RUNNING])),
    "put_off": (lost.SQL["put_off"], lost.parameters([7])),
}


@pytest.fixture(params=[False, True], ids=["never analysed", "analysed"])
def bed(_database: None, request: pytest.FixtureRequest) -> Iterator[Bed]:
    with undone(TABLES) as found:
        found.empty(restored=False)
        found.fill(SEED, {"first": FIRST, "jobs": JOBS})
        if request.param:
            found.run(f"ANALYZE {', '.join(TABLES)}")
        yield found


@pytest.mark.parametrize("name", STATEMENTS)
def test_rows_are_not_joined_by_comparing_all_pairs(bed: Bed, name: str) -> None:
    sql, params = STATEMENTS[name]
    plan = bed.plan_of(sql, params)

    assert rows_of(plan) == JOBS // 2
    assert compared_by(plan) <= 10 * JOBS
