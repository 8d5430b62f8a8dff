"""What must hold of jobs once the dust has settled: the client's list, PostgreSQL's rows and events, and what the functions wrote."""

import asyncio
import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos import executions
from tests.chaos.executions import SHOWN, Executions
from tests.chaos.job_load import Jobs
from tests.chaos.service import Service

ASKED = 20  # jobs whose status and result are read over HTTP
ENDS = ("succeeded", "failed", "canceled")

# Every claim from now on, with the lease that the job had before. Not a log of ours: the trigger sees what any statement does.
_WATCH = """
CREATE TABLE IF NOT EXISTS chaos_claim (
    job text, attempt int, worker bigint, at timestamptz, worker_before bigint, leased_until_before timestamptz
);
CREATE OR REPLACE FUNCTION chaos_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_claim VALUES (NEW.uuid, NEW.attempt, NEW.lease_id, now(), OLD.lease_id, OLD.leased_until);
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER chaos_claim BEFORE UPDATE ON queueing_job FOR EACH ROW
WHEN (NEW.lease_id IS NOT NULL AND (NEW.lease_id, NEW.attempt) IS DISTINCT FROM (OLD.lease_id, OLD.attempt))
EXECUTE FUNCTION chaos_claim();
"""
_DONE = "SELECT count(*) FROM queueing_job WHERE closed IS NOT NULL"
_TWO_LEASES = "SELECT DISTINCT job FROM chaos_claim WHERE worker_before IS NOT NULL AND leased_until_before >= at"
_JOBS = """
SELECT j.uuid::text, j.kind, j.status, j.sequence, array_agg(e.sequence ORDER BY e.sequence), array_agg(e.status ORDER BY e.sequence),
    array_agg(concat_ws(' ', e.status, nullif(e.code, ''), nullif(e.detail, '')) ORDER BY e.sequence)
FROM queueing_job j LEFT JOIN queueing_jobevent e ON e.tenant_id = j.tenant_id AND e.job_id = j.id
WHERE j.kind LIKE 'bed.nap%' GROUP BY j.tenant_id, j.id
"""
_GAPS = """
SELECT s.tenant_id FROM queueing_job_latest s
WHERE s.position <> (SELECT count(*) FROM queueing_jobevent e WHERE e.tenant_id = s.tenant_id AND e.position BETWEEN 1 AND s.position)
"""
_CLAIMED = "SELECT DISTINCT job FROM chaos_claim"
_AGAIN = "SELECT count(*), count(DISTINCT job) FROM chaos_claim"


class Stored(NamedTuple):
    """A job and its events, as PostgreSQL has them."""

    job: str
    kind: str
    status: str
    sequence: int
    sequences: list[int]
    statuses: list[str]
    history: list[str]  # the same, with codes and details

    @property
    def in_order(self) -> bool:
        """Its events are numbered without a gap, end with its status, and have one end."""
        ends = [status for status in self.statuses if status in ENDS]
        whole = self.sequences == list(range(1, self.sequence + 1))
        return whole and self.statuses[0] == "queued" and ends == [self.status] == self.statuses[-1:]


def begin(service: Service) -> int:
    """Watch claims from now on. The number of jobs that are done already."""
    with service.connect() as connection:
        connection.execute(_WATCH)
    return int(service.postgres_says(_DONE))


async def faults(service: Service, jobs: Jobs) -> list[str]:
    """What is wrong, in words; nothing is submitted and no job runs meanwhile."""
    return await asyncio.to_thread(lambda: list(_faults(service, jobs)))


def report(service: Service, jobs: Jobs) -> str:
    with service.connect() as connection:
        [(claims, claimed)] = connection.execute(_AGAIN)
    return f"{len(jobs.accepted):,} jobs, {claims - claimed:,} claimed again, {jobs.retries:,} requests sent again"


def _faults(service: Service, jobs: Jobs) -> Iterator[str]:
    with service.connect() as connection:
        stored = {row[0]: Stored(*row) for row in connection.execute(_JOBS)}
        two_leases = {job for (job,) in connection.execute(_TWO_LEASES)}
        claimed = {job for (job,) in connection.execute(_CLAIMED)}
        gaps = [tenant for (tenant,) in connection.execute(_GAPS)]
    succeeded = {job for job in jobs.accepted if job in stored and stored[job].status == "succeeded"}
    for words, wrong in (
        ("accepted and lost", jobs.accepted.keys() - stored.keys()),
        ("that did not succeed", (jobs.accepted.keys() & stored.keys()) - succeeded),
        ("that succeeded without a claim", succeeded - claimed),
        ("with events that are no history", {job for job, one in stored.items() if not one.in_order}),
        ("with two valid leases at once", two_leases),
    ):
        if wrong:
            yield f"{len(wrong)} jobs {words}: {_shown(stored, wrong)}"
    if len(jobs.accepted) != jobs.total or jobs.surprises:
        yield f"{len(jobs.accepted)} of {jobs.total} were accepted; answers no client should get: {jobs.surprises[:SHOWN]}"
    if gaps:
        yield f"the numbers of events have gaps: tenants {gaps}"
    ran = executions.read(service.journal)
    yield from executions.faults(ran, succeeded)
    yield from _invented(ran, stored)
    yield from _wrong_over_http(service, {job: jobs.accepted[job] for job in succeeded})


def _shown(stored: dict[str, Stored], wrong: set[str]) -> str:
    return "; ".join(_described(job, stored.get(job)) for job in sorted(wrong)[:SHOWN])


def _described(job: str, stored: Stored | None) -> str:
    return f"{job} ({stored.kind}) {stored.history}" if stored else job


def _invented(ran: Executions, stored: dict[str, Stored]) -> Iterator[str]:
    if wrong := ran.keys() - stored.keys():
        yield f"{len(wrong)} jobs ran and were never submitted: {sorted(wrong)[:SHOWN]}"


def _wrong_over_http(service: Service, succeeded: dict[str, int]) -> Iterator[str]:
    """A sample, as the tenant sees it."""
    for job in random.sample(sorted(succeeded), min(ASKED, len(succeeded))):
        status, result = service.get(f"/jobs/{job}")["status"], service.get(f"/jobs/{job}/result")
        if (status, result) != ("succeeded", {"number": succeeded[job]}):
            yield f"job {job} is said to be {status} with the result {result}"
