"""Workers are killed, Redis is emptied and PostgreSQL ends while jobs run: who is struck, and when.

`python -m tests.chaos.job_storm` submits 20,000 jobs and strikes 33 times; status 1 if anything is wrong.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.console import Console
from rich.live import Live
from rich.table import Table

from registry.servers.processes import children
from tests.chaos import job_verdict
from tests.chaos.job_load import IN_PROCESS, RATE, Jobs
from tests.chaos.service import Service, running
from tests.chaos.victims import VICTIMS, flush_valkey

LOOK_EVERY = 0.05  # seconds
FLOW_LIMIT = 120.0  # seconds until so many jobs are done, and some run, that the next strike is due
DONE_LIMIT = 180.0  # seconds from the last submission until all jobs are done
WORKERS = 2  # so that what one has left is taken by another

_DONE = "SELECT count(*) FROM queueing_job WHERE closed IS NOT NULL"
_RUNNING = "SELECT count(*) FROM queueing_job WHERE status = 'running'"

type Strike = Callable[[Service, random.Random], str]  # what was struck; empty: nobody was there


@dataclass(frozen=True)
class Strikes:
    """How often each is struck."""

    kills: int = 30
    flushes: int = 2
    restarts: int = 1

    def shuffled(self, dice: random.Random) -> list[Strike]:
        row = [kill_a_worker] * self.kills + [empty_redis] * self.flushes + [restart_postgresql] * self.restarts
        dice.shuffle(row)
        return row


def kill_a_worker(service: Service, dice: random.Random) -> str:
    """A worker, the process in which it works, or both."""
    workers = service.parts("worker", "--slot")
    horses = {worker: children(worker) for worker in workers}
    at_work = [worker for worker in workers if horses[worker]]
    if not at_work:
        return ""
    worker = dice.choice(at_work)
    name, killed = dice.choice(
        [("horse", horses[worker]), ("worker", [worker]), ("worker and horse", [worker, *horses[worker]])]
    )
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return name


def empty_redis(service: Service, dice: random.Random) -> str:
    return "emptied redis" if flush_valkey(service) else ""


def restart_postgresql(service: Service, dice: random.Random) -> str:
    """The postmaster is killed; `up` starts it again."""
    [postmaster] = [victim for victim in VICTIMS if victim.name == "postmaster"]
    return "postgresql" if postmaster.strike(service) else ""


class JobStorm:
    """Submits jobs and strikes, evenly over the jobs that are done; then all must be done without anybody's help."""

    def __init__(self, service: Service, strikes: Strikes, *, total: int, seed: int, **load: float) -> None:
        self.service, self.seed = service, seed
        self.dice = random.Random(seed)
        self.row = strikes.shuffled(self.dice)
        self.jobs = Jobs(service.url, service.key, total=total, dice=self.dice, **load)
        self.struck: Counter[str] = Counter()
        self.done, self.doing = 0, "starting"

    async def run(self) -> list[str]:
        """What is wrong, in words."""
        before = await asyncio.to_thread(job_verdict.begin, self.service)
        async with self.jobs.sending():
            for number, strike in enumerate(self.row, 1):
                goal = before + number * self.jobs.total // (len(self.row) + 1)
                self.doing = f"until {goal - before:,} are done"
                await self._until(lambda: self._asked(_DONE) >= goal and self._asked(_RUNNING) > 0)  # noqa: B023
                await self._until(lambda: self._strike(strike))  # noqa: B023
            self.doing = "submitting the rest"
            await self._until(lambda: len(self.jobs.accepted) >= self.jobs.total)
        self.doing = "healing"
        await self._until(lambda: self._asked(_DONE) >= before + self.jobs.total, within=DONE_LIMIT)
        self.doing = "judging"
        return await job_verdict.faults(self.service, self.jobs)

    async def _until(self, question: Callable[[], object], *, within: float = FLOW_LIMIT) -> None:
        deadline = time.monotonic() + within
        while not await asyncio.to_thread(question):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.doing}: not within {within:g} s\n{self.service.last_words()}")
            await asyncio.sleep(LOOK_EVERY)

    def _asked(self, question: str) -> int:
        """0 while PostgreSQL is away."""
        try:
            answer: int = self.service.postgres_says(question)
        except psycopg.OperationalError:
            return 0
        if question is _DONE:
            self.done = answer
        return answer

    def _strike(self, strike: Strike) -> bool:
        with suppress(OSError):
            if name := strike(self.service, self.dice):
                self.struck[name] += 1
                return True
        return False

    def __rich__(self) -> Table:
        table = Table("submitted", "sent again", "done", "strikes", "now", title=f"seed {self.seed}")
        strikes = f"{self.struck.total()} of {len(self.row)}"
        table.add_row(f"{len(self.jobs.accepted):,}", f"{self.jobs.retries:,}", f"{self.done:,}", strikes, self.doing)
        table.caption = ", ".join(f"{name} {times}" for name, times in sorted(self.struck.items()))
        return table


async def main(options: Any) -> int:
    console = Console()
    strikes = Strikes(options.kills, options.flushes, options.restarts)
    async with running("--workers", str(WORKERS)) as service:
        load = {"rate": options.rate, "in_process": options.in_process}
        storm = JobStorm(service, strikes, total=options.jobs, seed=options.seed, **load)
        started = time.monotonic()
        with Live(storm, console=console, refresh_per_second=2):
            found = await storm.run()
        report = await asyncio.to_thread(job_verdict.report, service, storm.jobs)
    console.print(f"{report}; {time.monotonic() - started:.0f} s")
    for fault in found:
        console.print(f"[bold red]{fault}")
    if not found:
        console.print(
            "[bold green]no job was lost, had two leases at once or ran twice at once, and nobody had to help"
        )
    return bool(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.job_storm", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=30, help="of workers, with signal 9")
    parser.add_argument("--flushes", type=int, default=2, help="of Redis")
    parser.add_argument("--restarts", type=int, default=1, help="of PostgreSQL")
    parser.add_argument("--rate", type=int, default=RATE, help="jobs submitted a second")
    parser.add_argument("--in-process", type=float, default=IN_PROCESS, help="share that runs in child processes")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats the same strikes")
    sys.exit(asyncio.run(main(parser.parse_args())))
