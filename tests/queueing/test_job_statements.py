"""Statements of schedules and of retention read what they name and nothing else, whatever the planner knows of the tables."""

from pathlib import Path

import pytest

from queueing import jobs
from registry.data import database
from tests.plans import TENANT, Asked, Read, measure_twice, table_of

PACKAGE = Path(jobs.__file__).parent
SCHEDULES = database.statements(PACKAGE / "schedules" / "sql" / "schedules.sql")
RETENTION = database.statements(PACKAGE / "sql" / "retention.sql")

TABLES = [f"queueing_{name}" for name in ("job", "jobevent", "jobresult", "jobschedule", "jobslot")]

# 10,000 schedules, of which three are due and five have an open job; 10,000 jobs with two events each, that ended today. Five of
# them are older than they are kept, and five results have expired.
SEED = """
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
VALUES (%(tenant)s, 'plans', '', 'BRL', 'active', 'sandbox', false, '{}')
"""
ROWS = """
INSERT INTO queueing_jobschedule (id, tenant_id, name, cron, timezone, overlap, catch_up, next_at, kind, input, priority, max_attempts,
    timeout, result_ttl)
SELECT n, %(tenant)s, 's' || n, '0 0 * * *', 'UTC', 'skip', 'all', now() + CASE WHEN n <= 3 THEN -1 ELSE 1 END * interval '1 hour',
    'k', '{}', 0, 1, 60, 60
FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_job (id, tenant_id, uuid, kind, input, fingerprint, status, max_attempts, timeout, result_ttl, schedule_id,
    finished_at)
SELECT n, %(tenant)s, md5('j' || n)::uuid, 'k', '{}', '', CASE WHEN n <= 5 THEN 'queued' ELSE 'succeeded' END, 1, 60, 60, n,
    CASE WHEN n > 5 THEN now() - CASE WHEN n <= 10 THEN interval '40 days' ELSE interval '1 hour' END END
FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status)
SELECT %(tenant)s, 2 * n + s, n, s, 'queued' FROM generate_series(1, %(rows)s) n, generate_series(1, 2) s WHERE {part};
INSERT INTO queueing_jobresult (tenant_id, job_id, body, expires_at)
SELECT %(tenant)s, n, '1', now() + CASE WHEN n <= 15 THEN -1 ELSE 1 END * interval '1 hour' FROM generate_series(11, %(rows)s) n
WHERE {part}
""".replace("{part}", "(n %% %(step)s = 0) = %(first)s")

THREE = {"tenants": [TENANT] * 3, "ids": [1, 2, 9]}
STATEMENTS = {
    "due": Asked(SCHEDULES["due"], {"missed_after": 60, "limit": 20}, 30),
    "lock": Asked(SCHEDULES["lock"], THREE, 20, seldom=True),
    "with_open_jobs": Asked(SCHEDULES["with_open_jobs"], THREE, 10),
    "move": Asked(SCHEDULES["move"], {**THREE, "next_at": [None] * 3, "jobs": [None] * 3}, 20, seldom=True),
    "expired_results": Asked(RETENTION["expired_results"], {"limit": 1000}, 30, seldom=True),
    "finished": Asked(
        RETENTION["finished"],
        {"status": "succeeded", "days": 30, "after": "0001-01-01T00:00:00Z", "after_id": 0, "limit": 1000},
        80,
        seldom=True,
    ),
}
NOT_HOT = {
    "clock": "reads no table",
    "save": "counts the tenant's schedules",
    "stale_slots": "goes through all slots: there is one per running job of a kind with limits",
}


@pytest.fixture(scope="module")
def read(_database: None) -> dict[str, dict[str, Read]]:
    found = measure_twice(TABLES, SEED, ROWS, STATEMENTS)
    for name, figures in found.items():
        print(f"\n{name}\n{table_of(figures)}")
    return found


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_what_it_names(read: dict[str, dict[str, Read]], name: str) -> None:
    assert {made: more for made, figures in read.items() if (more := STATEMENTS[name].excess(figures[name]))} == {}


def test_every_statement_is_looked_at_or_said_not_to_be_hot() -> None:
    assert STATEMENTS.keys() | NOT_HOT.keys() == SCHEDULES.keys() | RETENTION.keys()
