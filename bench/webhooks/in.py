"""Inbound webhooks of Stripe stored durably per second, and the time from arrival to the end of handling.

The rate is measured with one web process and no worker; the time with the whole service, idle between events
about a payment of ours.
"""

import asyncio
import json
import random
import subprocess
import sys
import uuid
from dataclasses import asdict

import uvloop

from bench.figures import Effort, Figure, median, quantile
from bench.load import Load, Result, limit
from bench.machine import durability_of
from bench.place import ROOT, Place, Process, place, progress, service, wait_until, web
from bench.users import Wire
from bench.webhooks.sender import SECRET, event, signed

CONNECTIONS = (32, 1, 128)  # the target applies to the first
TARGET = 3_000  # events per second
SECONDS = {Effort.QUICK: 2.0, Effort.NORMAL: 10.0, Effort.FULL: 20.0}
WARM_UP = 2.0  # seconds
SAMPLES = {Effort.QUICK: 20, Effort.NORMAL: 200, Effort.FULL: 500}
PAUSE = (0.05, 0.15)  # seconds between two events: the system becomes idle in between
SLOWEST = 200  # milliseconds from received to handled, median
ADDRESS = "/webhooks/stripe/bench.stripe"

PAYMENT = """
INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, status, sequence, code,
    refunded, attempt, wanted_processor, priority, run_at, created_at, changed_at)
SELECT id, %(id)s, '', 1990, 'BRL', '', 'succeeded', 1, '', 0, 0, '', 0, now(), now(), now()
FROM registry_tenant WHERE slug = 'bench'
RETURNING tenant_id
"""
TIMES = "SELECT 1000 * extract(epoch FROM done_at - received_at)::float8 FROM payments_inboundevent WHERE outcome = 'nothing new'"


def run(effort: Effort) -> list[Figure]:
    with place("webhooks_in") as here:
        add_account(here)
        with here.connect() as connection:
            durability_of(connection)
        with web(here) as process:
            results = measure(process, effort)
            check_books(here, results)
            figures = rates(results)
    with place("webhooks_in_quiet") as here:
        add_account(here)
        with service(here) as up:
            times = handled(here, up, SAMPLES[effort])
    note = f"p99 {quantile(times, 0.99):.1f} ms, {len(times)} events"
    return [
        *figures,
        Figure("received to handled on a quiet system: median", median(times), "ms", SLOWEST, at_most=True, note=note),
    ]


def add_account(here: Place) -> None:
    secrets = ("--option", "secretKey=sk_test_bench", "--option", f"webhookSecret={SECRET.decode()}")
    here.manage("processor", "add", "bench", "stripe", "--kind", "stripe", *secrets)


def measure(process: Process, effort: Effort) -> dict[int, Result]:
    results = {}
    with progress() as bars:
        bar = bars.add_task("warming up", total=len(CONNECTIONS))
        send(Load(process.port, CONNECTIONS[0], WARM_UP, path=ADDRESS))
        for connections in CONNECTIONS:
            bars.update(bar, description=f"{connections} connections")
            results[connections] = send(Load(process.port, connections, SECONDS[effort], path=ADDRESS))
            process.check()
            bars.advance(bar)
    return results


def send(load: Load) -> Result:
    command = [sys.executable, "-m", "bench.webhooks.sender", json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit(load), check=True)
    return Result(**json.loads(done.stdout))


def check_books(here: Place, results: dict[int, Result]) -> None:
    """Verify that every 200 has a row with its body."""
    answered, errors = sum(r.requests for r in results.values()), sum(r.errors for r in results.values())
    kept = here.ask("SELECT count(*) FROM payments_inboundevent WHERE length(body) > 1000")
    if not 0 < answered <= kept or errors:
        raise AssertionError(f"{answered} answered and {errors} errors, but {kept} events are in the database")


def rates(results: dict[int, Result]) -> list[Figure]:
    return [
        Figure(
            f"signed webhooks made durable, {connections} connections",
            result.rate,
            "/s",
            TARGET if connections == CONNECTIONS[0] else None,
            note=f"p50 {result.p50:.2f} ms, p99 {result.p99:.2f} ms; {len(event()):,} bytes each",
            data=asdict(result),
        )
        for connections, result in results.items()
    ]


def handled(here: Place, up: Process, samples: int) -> list[float]:
    """Milliseconds from the arrival of an event to the end of handling, from its row."""
    payment = uuid.uuid4()
    tenant = here.ask(PAYMENT, {"id": payment})
    uvloop.run(trickle(up.port, samples, {"registry_payment": str(payment), "registry_tenant": str(tenant)}))
    wait_until(lambda: here.ask("SELECT count(*) = 0 FROM payments_inboundevent WHERE closed IS NULL"), "all handled")
    with here.connect() as connection:
        times = [row[0] for row in connection.execute(TIMES)]
    if len(times) != samples:
        raise AssertionError(f"{samples} events were sent, {len(times)} handled")
    return times


async def trickle(port: int, samples: int, metadata: dict[str, str]) -> None:
    wire = Wire(port)
    with progress(still=True) as bars:
        bar = bars.add_task("one at a time", total=samples)
        for _ in range(samples):
            await asyncio.sleep(random.uniform(*PAUSE))
            body = event(metadata)
            status, said, _ = await wire.ask("POST", ADDRESS, body, **{"Stripe-Signature": signed(body)})
            if status != 200:
                raise AssertionError(f"answered {status}: {said!r}")
            bars.advance(bar)
            bars.refresh()
    wire.close()
