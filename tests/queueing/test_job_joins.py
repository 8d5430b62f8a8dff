"""Statements about many jobs of many tenants compare each row with the few it belongs to, not each with every other."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from queueing.jobs import lost
from queueing.jobs.decisions import JobClaim, JobSettlement
from queueing.jobs.work import SQL, JobWork
from queueing.models import JobStatus
from registry.data.arrays import Bigints, Texts
from tests.plans import Bed, undone, uuid_of

JOBS = 1000  # each of a tenant of its own: half run at worker 7, and have lost an attempt before; the others are due
RUNNING = range(1, JOBS // 2 + 1)
FIRST = 800_000  # tenants are FIRST + n
TABLES = [f"queueing_{name}" for name in ("job", "jobevent", "jobresult", "jobslot", "jobstream", "joblimit")]
SEED = """
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
    bed.run("SET LOCAL plan_cache_mode = force_generic_plan")

    [[plan]] = bed.conn.cursor().execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params).fetchall()

    assert rows_of(plan[0]["Plan"]) == JOBS // 2
    assert compared_by(plan[0]["Plan"]) <= 10 * JOBS, json.dumps(plan, indent=1)


def rows_of(plan: dict[str, Any]) -> float:
    return plan["Actual Rows"] * plan["Actual Loops"]


def compared_by(plan: dict[str, Any]) -> float:
    """The largest number of rows that one part of the plan gave to the part above it, or threw away."""
    mine = (plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0)) * plan["Actual Loops"]
    return max([mine, *map(compared_by, plan.get("Plans", []))])
