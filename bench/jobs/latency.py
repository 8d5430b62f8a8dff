"""Time from accepted to started of a job, against the time from accepted to sent of a payment, on a quiet system.

One service, idle in between; a job and a payment in turn. Both times are differences of two events in PostgreSQL: the commit that
accepts, and the claim after which the work begins.
"""

import asyncio
import json
import random
import uuid

import uvloop

from bench.figures import Effort, Figure, median, quantile
from bench.jobs import ours
from bench.place import Place, place, processors, progress, service, wait_until
from bench.users import Wire

SAMPLES = {Effort.QUICK: 20, Effort.NORMAL: 300, Effort.FULL: 1_000}
PAUSE = (0.05, 0.15)  # seconds between two: the system becomes idle in between
MOST = 1.3  # times a payment's
WARM_UP = 3  # of each, which open what opens on first use

STARTED = """
    SELECT 1000 * extract(epoch FROM b.at - a.at)::float8
    FROM {events} a JOIN {events} b ON b.tenant_id = a.tenant_id AND b.{of} = a.{of} AND b.sequence = 2
    WHERE a.sequence = 1 AND b.status = '{began}' ORDER BY a.position OFFSET {warm_up}
"""
JOBS = STARTED.format(events="queueing_jobevent", of="job_id", began="running", warm_up=WARM_UP)
PAYMENTS = STARTED.format(events="payments_paymentevent", of="payment_id", began="processing", warm_up=WARM_UP)
LEFT = """
    SELECT EXISTS (SELECT FROM queueing_job WHERE closed IS NULL) OR EXISTS (SELECT FROM payments_payment WHERE closed IS NULL)
"""


def run(effort: Effort) -> list[Figure]:
    samples = SAMPLES[effort]
    with place("jobs_latency") as here, processors() as (default, fallback):
        here.add_processors(default, fallback)
        ours.with_kinds(here)
        with service(here) as up:
            uvloop.run(trickle(here, up.port, samples + WARM_UP))
            wait_until(lambda: not here.ask(LEFT), "all are done")
        jobs, payments = times(here, JOBS, samples), times(here, PAYMENTS, samples)
    return figures(jobs, payments)


async def trickle(here: Place, port: int, samples: int) -> None:
    wire = Wire(port)
    with progress(still=True) as bars:
        bar = bars.add_task("one at a time", total=samples)
        for _ in range(samples):
            for path, body in (("/jobs", job()), ("/payments", payment())):
                await asyncio.sleep(random.uniform(*PAUSE))
                status, said, _ = await wire.ask("POST", path, json.dumps(body).encode(), **here.headers)
                if status != 202:
                    raise AssertionError(f"{path} answered {status}: {said!r}")
            bars.advance(bar)
            bars.refresh()
    wire.close()


def job() -> dict[str, object]:
    return {"kind": "bed.nothing", "input": {"payload": ""}}


def payment() -> dict[str, object]:
    return {"correlationId": str(uuid.uuid4()), "amount": 19.90}


def times(here: Place, sql: str, samples: int) -> list[float]:
    with here.connect() as connection:
        found = [row[0] for row in connection.execute(sql)]
    if len(found) != samples:
        raise AssertionError(f"{len(found)} of {samples} began with their second event")
    return found


def figures(jobs: list[float], payments: list[float]) -> list[Figure]:
    note = "job {:.2f} ms, p99 {:.1f} ms; payment {:.2f} ms, p99 {:.1f} ms; {} of each".format(
        *(quantile(several, share) for several in (jobs, payments) for share in (0.5, 0.99)), len(jobs)
    )
    what = "a job's accepted to started against a payment's accepted to sent, quiet system, medians"
    return [Figure(what, median(jobs) / median(payments), "×", MOST, at_most=True, note=note)]
