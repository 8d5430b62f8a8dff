"""Settled per second by one worker: a backlog of accepted payments, over real HTTP to two processors.

The payments are accepted through the API first; attempts, ledger, roll-ups and events are written as usual.
"""

import json
import time
import urllib.request
import uuid
from datetime import datetime

from bench.figures import Effort, Figure
from bench.place import Place, Process, place, processors, progress, web, worker
from tests.bed import RemoteProcessor

BACKLOG = {Effort.QUICK: 5_000, Effort.NORMAL: 50_000, Effort.FULL: 200_000}
LOOK_EVERY = 0.25  # seconds; the query is one small sum
PER_CALL = 1_000  # limit of POST /payments/batch
STALLED = 30.0  # seconds without a single settlement until the run is aborted
SETTLED = "SELECT coalesce(sum(payments), 0)::bigint FROM payments_rollup WHERE width = 3600"
SPAN = "SELECT min(at), max(at) FROM payments_paymentevent WHERE status = 'succeeded'"


def run(effort: Effort) -> list[Figure]:
    backlog = BACKLOG[effort]
    with place("settle") as here, processors() as (default, fallback):
        here.add_processors(default, fallback)
        with web(here) as accepting:
            accept(here, accepting.port, backlog)
        started = time.time()
        with worker(here) as working:
            watch(here, working, backlog)
        check_books(here, backlog, default, fallback)
        return figures(here, backlog, started, default, fallback)


def accept(here: Place, port: int, backlog: int) -> None:
    with progress() as bars:
        bar = bars.add_task("accepting a backlog", total=backlog)
        for _ in range(backlog // PER_CALL):
            submit_batch(here, port)
            bars.advance(bar, PER_CALL)


def submit_batch(here: Place, port: int) -> None:
    items = [{"correlationId": str(uuid.uuid4()), "amount": "19.90"} for _ in range(PER_CALL)]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/payments/batch",
        json.dumps({"items": items}).encode(),
        {"Content-Type": "application/json", **here.headers},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        verdicts = {result["status"] for result in json.load(answer)["results"]}
    if verdicts != {"queued"}:
        raise AssertionError(f"a batch was answered with {verdicts}")


def watch(here: Place, working: Process, backlog: int) -> None:
    done, moved = 0, time.monotonic()
    with progress() as bars, here.connect() as connection:
        bar = bars.add_task("settling it", total=backlog)
        while done < backlog:
            time.sleep(LOOK_EVERY)
            working.check()
            before, done = done, connection.execute(SETTLED).fetchone()[0]  # type: ignore[index]
            bars.update(bar, completed=done)
            if done != before:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED:
                raise RuntimeError(f"stuck at {done} of {backlog}: {working.log.read_text()[-2000:]}")


def check_books(here: Place, backlog: int, default: RemoteProcessor, fallback: RemoteProcessor) -> None:
    """Verify that each payment is booked once at one processor, with all of its rows."""
    first, second = default.ids, fallback.ids
    if len(first) + len(second) != backlog or first & second:
        raise AssertionError(f"{len(first)} + {len(second)} booked, {len(first & second)} of them twice, of {backlog}")
    for table, least in (("attempt", 1), ("ledgerentry", 2), ("paymentevent", 2)):
        if (rows := here.ask(f"SELECT count(*) FROM payments_{table}")) < least * backlog:
            raise AssertionError(f"payments_{table} has {rows} rows for {backlog} payments")


def figures(
    here: Place, backlog: int, started: float, default: RemoteProcessor, fallback: RemoteProcessor
) -> list[Figure]:
    with here.connect() as connection:
        first, last = connection.execute(SPAN).fetchone()  # type: ignore[misc]
    whole = last.timestamp() - started
    calls = len(default.received) + len(fallback.received)
    return [
        Figure("settled per second by one worker", backlog / seconds_between(first, last), "/s", 3_000,
               note=f"{backlog:,} payments, first settling commit to the last"),
        Figure("the same from the start of its process", backlog / whole, "/s", note=f"{whole:.1f} s in all"),
        Figure("calls per payment settled", calls / backlog, note=f"{calls:,} calls of POST /payments"),
    ]  # fmt: skip


def seconds_between(first: datetime, last: datetime) -> float:
    return max((last - first).total_seconds(), 0.001)
