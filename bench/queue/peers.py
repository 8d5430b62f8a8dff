"""Jobs per second through enqueue, claim and finish, compared with procrastinate and PgQueuer on the same PostgreSQL.

Each has its own database, one process that enqueues and one that works; they alternate. Ours goes through HTTP:
one client pushes batches of 100, one pops and acks them. The peers are used as their documentation recommends for
throughput, in case of doubt in their favour; see their modules.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from bench.figures import Effort, Figure, median
from bench.place import ROOT, Place, Process, place, progress, web
from bench.queue.load import Load, drive, prepare

BATCH, CONNECTIONS = 100, 8
JOBS = {
    Effort.QUICK: {"ours": 5_000, "procrastinate": 200, "pgqueuer": 1_000},
    Effort.NORMAL: {"ours": 100_000, "procrastinate": 1_000, "pgqueuer": 10_000},
    Effort.FULL: {"ours": 500_000, "procrastinate": 5_000, "pgqueuer": 50_000},
}
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 3, Effort.FULL: 5}
WANTED = 5  # times the better one
LIMIT = 300.0  # seconds for one peer's turn


def run(effort: Effort) -> list[Figure]:
    jobs = JOBS[effort]
    with (
        place("queue_peers") as here,
        place("queue_procrastinate", migrated=False) as first,
        place("queue_pgqueuer", migrated=False) as second,
        web(here) as process,
        progress() as bars,
    ):
        turns: dict[str, Callable[[int, int], tuple[float, float]]] = {
            "ours": lambda jobs, n: ours(here, process, jobs, n),
            "procrastinate": lambda jobs, _: peer(first, "procrastinate", jobs),
            "pgqueuer": lambda jobs, _: peer(second, "pgqueuer", jobs),
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
        bar = bars.add_task("", total=len(turns) * (ROUNDS[effort] + 1))
        for n in range(ROUNDS[effort] + 1):
            for name, turn in turns.items():
                bars.update(bar, description=name)
                taken = turn(jobs[name] if n else jobs[name] // 10, n)  # the first turn is a warm-up
                if n:
                    seconds[name].append(taken)
                bars.advance(bar)
    return figures(seconds, jobs)


def ours(here: Place, process: Process, jobs: int, n: int) -> tuple[float, float]:
    """Seconds to push them, and to pop and ack them."""
    load = Load(process.port, here.headers, "peers", BATCH, first=n * CONNECTIONS)
    if n == 0:
        prepare(replace(load, read=1))
    pushed = drive(replace(load, push=CONNECTIONS, messages=jobs))
    read = drive(replace(load, read=CONNECTIONS, wanted=pushed.pushed))
    process.check()
    return pushed.push_seconds, read.read_seconds


def peer(here: Place, name: str, jobs: int) -> tuple[float, float]:
    """Seconds to enqueue them, and to work on them all. Each part runs in its own process."""
    seconds = []
    for part in ("enqueue", "work"):
        command = [sys.executable, "-m", f"bench.queue.peer_{name}", part, here.database_url, str(jobs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
        if done.returncode:
            raise RuntimeError(f"{name} {part}: {done.stderr[-2000:]}")
        said = json.loads(done.stdout.splitlines()[-1])
        if (said["jobs"], said["left"]) != (jobs, jobs if part == "enqueue" else 0):
            raise AssertionError(f"{name} {part} of {jobs} jobs: {said}")
        seconds.append(said["seconds"])
    return seconds[0], seconds[1]


def figures(seconds: dict[str, list[tuple[float, float]]], jobs: dict[str, int]) -> list[Figure]:
    rates = {name: [jobs[name] / sum(taken) for taken in rounds] for name, rounds in seconds.items()}
    ratios = [a / max(b, c) for a, b, c in zip(rates["ours"], rates["procrastinate"], rates["pgqueuer"], strict=True)]
    note = f"{min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} rounds"
    return [
        Figure("jobs against the better of procrastinate and PgQueuer", median(ratios), "×", WANTED, note=note),
        *(rate_of(name, rates[name], jobs[name], rounds) for name, rounds in seconds.items()),
    ]


def rate_of(name: str, rates: list[float], jobs: int, rounds: list[tuple[float, float]]) -> Figure:
    ways = (jobs / median([taken[part] for taken in rounds]) for part in (0, 1))
    return Figure(f"{name}, in and out", median(rates), "/s", note="in {:,.0f}/s, out {:,.0f}/s".format(*ways))
