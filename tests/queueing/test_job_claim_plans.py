"""Statements of jobs that are hot read the jobs they name and no others, whatever the planner knows of the tables."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from queueing import jobs
from queueing.jobs import store
from queueing.jobs.decisions import JobClaim, JobSettlement
from queueing.jobs.job import NewJob
from queueing.jobs.work import JobWork
from queueing.models import JobStatus
from registry.data import database
from registry.data.arrays import Bigints, Texts, Uuids
from tests.plans import TENANT, Asked, Read, measure_twice, table_of, uuid_of

PACKAGE = Path(jobs.__file__).parent
SQL = {name: database.statements(PACKAGE / "sql" / f"{name}.sql") for name in ("jobs", "store", "events")}
TABLES = [f"queueing_{name}" for name in ("job", "jobevent", "jobresult", "jobslot", "jobstream", "joblimit")]

# 10,000 jobs of two kinds with two events each. Those of kind `open` are due (half have a unique key), but for ten that run; those of
# kind `closed` ended.
SEED = """
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
VALUES (%(tenant)s, 'plans', '', 'BRL', 'active', 'sandbox', false, '{}');
SELECT setval(pg_get_serial_sequence('queueing_job', 'id'), 1000000);
INSERT INTO queueing_jobstream (tenant_id, position) VALUES (%(tenant)s, 1000000)
"""
ROWS = """
INSERT INTO queueing_job (id, tenant_id, uuid, kind, input, fingerprint, status, max_attempts, timeout, result_ttl, attempt, lease_id,
    leased_until, unique_key, finished_at, sequence, run_at)
SELECT n, %(tenant)s, md5('j' || n)::uuid, CASE n %% 2 WHEN 0 THEN 'open' ELSE 'closed' END, '{}', '',
    CASE WHEN n %% 2 = 1 THEN 'succeeded' WHEN n <= 20 THEN 'running' ELSE 'queued' END, 1, 60, 60, 1,
    CASE WHEN n %% 2 = 0 AND n <= 20 THEN 7 END, CASE WHEN n %% 2 = 0 AND n <= 20 THEN now() + interval '1 hour' END,
    CASE WHEN n %% 4 = 0 THEN 'k' || n END, CASE WHEN n %% 2 = 1 THEN now() END, 2, now() - interval '1 hour'
FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status)
SELECT %(tenant)s, 2 * n + s, n, s, 'queued' FROM generate_series(1, %(rows)s) n, generate_series(1, 2) s WHERE {part};
INSERT INTO queueing_jobslot (tenant_id, job_id, attempt, kind)
SELECT %(tenant)s, n, 1, 'open' FROM generate_series(2, 20, 2) n WHERE {part};
INSERT INTO queueing_joblimit (kind) SELECT 'k' || n FROM generate_series(1, %(rows)s) n WHERE {part}
""".replace("{part}", "(n %% %(step)s = 0) = %(first)s")

NOW = datetime.now(UTC)
WORK = JobWork()
WORK.worker_id = 7


def claim(number: int) -> JobClaim:
    times = (NOW, NOW, False, False, False, 1, NOW)
    return JobClaim(TENANT, number, uuid_of(f"j{number}"), "open", "{}", None, 1, 0, 1, 60.0, 60, 2, *times, number)


def new(number: int, key: str | None) -> NewJob:
    limits: dict[str, Any] = {"max_attempts": 1, "timeout": 60.0, "result_ttl": 60}
    content: dict[str, Any] = {"kind": "open", "input": b"{}", "content": b"{}"}
    return NewJob(tenant_id=TENANT, id=uuid_of(f"new {number}"), unique_key=key, **content, **limits)


RUNNING = [claim(number) for number in range(2, 22, 2)]
KEYS = {
    "worker": 7,
    "tenant": Bigints([TENANT] * 10),
    "job": Bigints([one.job_id for one in RUNNING]),
    "attempt": Bigints([1] * 10),
}
ONE = {"tenant": TENANT, "uuid": uuid_of("j24")}
SETTLEMENTS = [JobSettlement(one, JobStatus.SUCCEEDED, result="1") for one in RUNNING]
REPORTS = {"done": Bigints([1] * 10), "total": Bigints([2] * 10), "message": Texts([""] * 10)}
QUOTAS = {(TENANT, "open"): 10, (TENANT, "closed"): 10, (TENANT, "other"): 10}

# Ten jobs each, or one. What is read of a job: its row and an entry of an index, some more for what is written.
STATEMENTS = {
    "due": Asked(SQL["jobs"]["due"], {"kinds": ["open", "closed"], "limit": 100, "above": None, "below": 0.0}, 60),
    "take": Asked(SQL["jobs"]["take"], WORK._quotas_of(QUOTAS), 130),
    "limits": Asked(SQL["jobs"]["limits"], {"kinds": ["k1", "k2"]}, 10),
    "slots": Asked(SQL["jobs"]["slots"], {"kinds": ["open"]}, 90),
    "settle": Asked(*WORK._statement(SETTLEMENTS), 120),
    "watch": Asked(SQL["jobs"]["watch"], KEYS, 40),
    "extend": Asked(SQL["jobs"]["extend"], {**KEYS, "lease": 30.0}, 80),
    "report": Asked(SQL["jobs"]["report"], {**KEYS, **REPORTS}, 100),
    "cancel": Asked(SQL["jobs"]["cancel"], ONE, 20),
    "retry": Asked(SQL["jobs"]["retry"], ONE | {"uuid": uuid_of("j25"), "detail": ""}, 20),
    "accept": Asked(SQL["store"]["accept"], store._columns([new(n, f"new {n}" if n % 2 else None) for n in range(10)]), 80),
    "existing": Asked(SQL["store"]["existing"], {"tenant": Bigints([TENANT] * 2), "uuid": Uuids([uuid_of(f"j{n}").bytes for n in (4, 5)])}, 10),
    "at_work": Asked(
        SQL["store"]["at_work"],
        {"tenant": Bigints([TENANT] * 2), "kind": Texts(["open"] * 2), "unique_key": Texts(["k44", "k48"])},
        10,
        seldom=True,
    ),
    "since": Asked(SQL["events"]["since"], {"tenant": TENANT, "after": 19_990, "limit": 100}, 120),
    "of_job": Asked(SQL["events"]["of_job"], {**ONE, "after": 0}, 20),
    "positions": Asked(SQL["events"]["positions"], {"tenants": [TENANT]}, 5),
}  # fmt: skip
NOT_HOT = {
    "add_limits": "once per kind",
    "hold": "names slots, of which there are few",
    "depth_of_kind": "counts open jobs, up to a limit",
}


@pytest.fixture(scope="module")
def read(_database: None) -> dict[str, dict[str, Read]]:
    found = measure_twice(TABLES, SEED, ROWS, STATEMENTS)
    for name, figures in found.items():
        print(f"\n{name}\n{table_of(figures)}")
    return found


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_the_jobs_it_names(read: dict[str, dict[str, Read]], name: str) -> None:
    assert {made: more for made, figures in read.items() if (more := STATEMENTS[name].excess(figures[name]))} == {}


def test_every_statement_is_looked_at_or_said_not_to_be_hot() -> None:
    assert STATEMENTS.keys() | NOT_HOT.keys() == set().union(*SQL.values())
