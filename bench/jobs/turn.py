"""A turn of a side: jobs are enqueued, then one worker does them. Both sides are timed by the same clocks.

Enqueuing is timed by the process that enqueues; work by PostgreSQL, from the transaction of the first claim to that of the last
outcome, so that the start of a worker does not count. Processor time comes from /proc.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.figures import median
from bench.place import ROOT, Place
from bench.queue.cost import seconds_of_tree
from registry.servers.processes import parent_of

LIMIT = 300.0  # seconds for one part of a turn


@dataclass(frozen=True)
class Way:
    """How jobs are enqueued: so many tasks make calls one after the other, each for so many jobs."""

    name: str
    tasks: int
    per_call: int


ONE = Way("one per call from 32 tasks", 32, 1)
MANY = Way("1,000 per call", 4, 1000)  # from 4 tasks: PgQueuer is faster than with 1, 2 or 8
HTTP = Way("through HTTP in batches of 100", 8, 100)


@dataclass
class Cost:
    """Processor seconds of a turn."""

    enqueue: float = 0.0  # of the process that enqueues, and of the web process
    work: float = 0.0  # of the worker
    postgres: float = 0.0  # of all its processes; 0 where it runs on another machine


@dataclass
class Turn:
    jobs: int
    enqueue: float = 0.0  # seconds
    work: float = 0.0  # seconds
    cost: Cost = field(default_factory=Cost)

    @property
    def rate(self) -> float:
        return self.jobs / (self.enqueue + self.work)


@contextmanager
def counted(here: Place, turn: Turn) -> Iterator[None]:
    """Add what PostgreSQL spends meanwhile."""
    with here.connect() as connection:
        postmaster = parent_of(connection.info.backend_pid)
    before = seconds_of_tree(postmaster)
    yield
    turn.cost.postgres += seconds_of_tree(postmaster) - before


def part(here: Place, module: str, *arguments: object) -> dict[str, float]:
    """Run a module in a process of its own; what its last line says."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=here.environment, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def described(turns: Sequence[Turn]) -> str:
    """Medians of the turns: rates in and out, and processor time per job."""
    per_job = [
        [1e6 * spent / turn.jobs for turn in turns for spent in [getattr(turn.cost, name)]]
        for name in ("enqueue", "work", "postgres")
    ]
    rates = (median([turn.jobs / seconds(turn) for turn in turns]) for seconds in (_enqueue, _work))
    return "in {:,.0f}/s, out {:,.0f}/s; µs per job: in {:.0f}, worker {:.0f}, PostgreSQL {:.0f}".format(
        *rates, *map(median, per_job)
    )


def _enqueue(turn: Turn) -> float:
    return turn.enqueue


def _work(turn: Turn) -> float:
    return turn.work
