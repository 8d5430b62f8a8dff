"""Deliveries per second from one worker to 50 endpoints, and the loss caused by an endpoint that never responds.

Events are seeded into the tenant's stream; fan-out, signing, HTTP and the delivery log work as usual.
"""

import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.figures import Effort, Figure
from bench.place import ROOT, STOP_LIMIT, Place, Process, place, progress, web, worker

ENDPOINTS = 50
EVENTS = {Effort.QUICK: 40, Effort.NORMAL: 400, Effort.FULL: 1_000}  # of one round; each is delivered to all endpoints
ROUNDS = {
    Effort.QUICK: 1,
    Effort.NORMAL: 3,
    Effort.FULL: 6,
}  # without a dead endpoint, and as many with one, alternating
TARGET, LOSS_AT_MOST = 1_500, 10  # deliveries per second; per cent
LOOK_EVERY = 0.25  # seconds
STALLED = 60.0  # seconds without a delivery until the run is aborted

SEED = """
WITH made AS (
    INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, status, sequence,
        code, refunded, attempt, wanted_processor, priority, run_at, created_at, changed_at)
    SELECT t.id, gen_random_uuid(), '', 1990, 'BRL', '', 'succeeded', 1, '', 0, 1, '', 0, now(), now(), now()
    FROM registry_tenant t CROSS JOIN generate_series(1, %(count)s) WHERE t.slug = 'bench'
    RETURNING tenant_id, id
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM made GROUP BY tenant_id OFFSET 0) t
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
SELECT tenant_id, n.position - %(count)s + row_number() OVER (ORDER BY m.id), m.id, 1, 'succeeded', 1, now(), ''
FROM made m JOIN numbered n USING (tenant_id)
RETURNING position
"""
DELIVERED = """
SELECT count(*), min(d.changed_at), max(d.changed_at) FROM queueing_webhookdelivery d
WHERE d.position >= %(first)s AND d.status = 'delivered'
"""
DEAD = "UPDATE queueing_webhookendpoint SET enabled = %(on)s WHERE url LIKE '%%/dead'"


def run(effort: Effort) -> list[Figure]:
    rates: dict[bool, list[float]] = {False: [], True: []}
    with place("webhooks_out") as here, receiver() as (address, called):
        register(here, address)
        with worker(here) as working, progress() as bars:
            bar = bars.add_task("delivering", total=2 * ROUNDS[effort])
            for _ in range(ROUNDS[effort]):
                for dead in (False, True):
                    rates[dead].append(one_round(here, working, EVENTS[effort], dead=dead))
                    bars.advance(bar)
        check(here, called(), EVENTS[effort] * ROUNDS[effort] * 2)
    return figures(rates, EVENTS[effort])


def figures(rates: dict[bool, list[float]], events: int) -> list[Figure]:
    well, beside = statistics.median(rates[False]), statistics.median(rates[True])
    note = f"{events * ENDPOINTS:,} deliveries a round, {len(rates[False])} rounds each, medians"
    return [
        Figure(f"deliveries from one worker to {ENDPOINTS} endpoints", well, "/s", TARGET, note=note, data={"rates": rates[False]}),
        Figure("the same beside one that never answers", beside, "/s", data={"rates": rates[True]}),
        Figure("what that takes from the others", max(0.0, 100 * (1 - beside / well)), "%", LOSS_AT_MOST, at_most=True),
    ]  # fmt: skip


def register(here: Place, address: str) -> None:
    """Create all endpoints by the API; the dead one is disabled at first."""
    key = json.loads(here.manage("apikey", "create", "bench", "--scope", "admin", "--json").splitlines()[-1])["apiKey"]
    with web(here) as service:
        for path in (*(f"/hook/{n}" for n in range(ENDPOINTS)), "/dead"):
            body = json.dumps({"url": address + path, "enabled": path != "/dead"}).encode()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            url = f"http://127.0.0.1:{service.port}/webhook-endpoints"
            urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10).close()


def one_round(here: Place, working: Process, events: int, *, dead: bool) -> float:
    """Deliveries per second, from the first commit to the last."""
    with here.connect() as connection:
        connection.execute(DEAD, {"on": dead})
        first = min(position for (position,) in connection.execute(SEED, {"count": events}).fetchall())
        done, moved = 0, time.monotonic()
        while done < events * ENDPOINTS:
            time.sleep(LOOK_EVERY)
            working.check()
            before = done
            done, began, ended = connection.execute(DELIVERED, {"first": first}).fetchone()  # type: ignore[misc]
            if done != before:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED:
                raise RuntimeError(f"stuck at {done} deliveries: {working.log.read_text()[-2000:]}")
    return done / max((ended - began).total_seconds(), 0.001)


def check(here: Place, calls: dict[str, int], events: int) -> None:
    """Verify that every endpoint received every event; repetitions are allowed and reported."""
    short = {path: count for path, count in calls.items() if path.startswith("/hook/") and count < events}
    if short or len(calls) < ENDPOINTS:
        raise AssertionError(f"{len(calls)} endpoints were called, and these too seldom: {short}")
    if (logged := here.ask("SELECT count(*) FROM queueing_webhookattempt WHERE error = ''")) != events * ENDPOINTS:
        raise AssertionError(f"{logged} deliveries in the log of {events * ENDPOINTS}")


@contextmanager
def receiver() -> Iterator[tuple[str, Any]]:
    """A process that responds 200 to /hook/… and never to /dead; gives its address and its counts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bed.receiver"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        address = line.removeprefix("ready ").strip()
        if not address:
            raise RuntimeError("the receiver did not start")

        def called() -> dict[str, int]:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)

        yield address, called
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)
