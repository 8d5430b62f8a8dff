"""`python -m tests.soak --hours 2`: steady traffic for hours; memory, files, connections and dead rows must stay as they were.

What is judged begins after a sixth of the time: after 20 minutes of 2 hours. Status 1 if anything grew or anything is wrong.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from registry.servers.testing import keep_bytecode
from tests.chaos.service import Service, running
from tests.chaos.verdict import faults
from tests.soak.readings import ALLOWED, Change, Reading, changes, read
from tests.soak.traffic import Crowd, receiving

READINGS = 120  # of one run
WARM_UP = 1 / 6  # share of the time
DELIVERED_LIMIT = 120.0  # seconds from the last payment until its webhooks are delivered
EVENTS = 2  # webhooks of a payment: accepted, succeeded


class Soak:
    """One run, and what is shown of it."""

    def __init__(self, service: Service, crowd: Crowd, seconds: float) -> None:
        self.service, self.crowd, self.seconds = service, crowd, seconds
        self.readings: list[Reading] = []
        self.began = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    async def run(self, keep: Path | None) -> list[str]:
        """What is wrong, in words. Readings are also appended to `keep`, one line of JSON each."""
        self.began = time.monotonic()
        async with self.crowd.busy():
            for number in range(1, READINGS + 1):
                await asyncio.sleep(max(0.0, number * self.seconds / READINGS - self.elapsed))
                reading = await asyncio.to_thread(read, self.service, self.elapsed)
                self.readings.append(reading)
                if keep:
                    with keep.open("a") as file:
                        file.write(json.dumps(reading._asdict()) + "\n")
        return await self._wrong()

    def changes(self) -> list[Change]:
        return changes(self.readings, self.seconds * WARM_UP)

    async def _wrong(self) -> list[str]:
        found = [*await faults(self.service, self.crowd.sender), *self.crowd.surprises[:10]]
        if missing := await self._undelivered():
            found.append(f"{missing} webhooks were not delivered")
        return found

    async def _undelivered(self) -> int:
        wanted = EVENTS * len(self.crowd.sender.accepted)
        deadline = time.monotonic() + DELIVERED_LIMIT
        while (missing := wanted - await asyncio.to_thread(lambda: self.crowd.receiver.count)) > 0:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
        return max(missing, 0)

    def __rich__(self) -> Table:
        done = self.crowd
        table = Table("minutes", "payments", "p50", "p99", "sent again", "jobs", "seen at sockets", "sockets opened")
        quantiles = [f"{done.sender.quantile(share) * 1000:.0f} ms" for share in (0.5, 0.99)]
        counts = [done.sender.retries, len(done.jobs.accepted), done.watchers.seen, done.watchers.opened]
        minutes = f"{self.elapsed / 60:.1f} of {self.seconds / 60:g}"
        table.add_row(minutes, f"{len(done.sender.accepted):,}", *quantiles, *[f"{count:,}" for count in counts])
        return table


def verdict(found: Sequence[Change]) -> Table:
    """Each value early and late."""
    table = Table("value", "early", "late", "ratio", "verdict")
    for change in found:
        said = "[green]flat" if change.flat else f"[red]more than {ALLOWED:g}"
        table.add_row(change.name, f"{change.early:,.2f}", f"{change.late:,.2f}", f"{change.ratio:.3f}", said)
    return table


async def main(options: argparse.Namespace) -> int:
    keep_bytecode()
    console = Console()
    with receiving() as receiver:
        async with running("--workers", "2", "--max-workers", "2") as service:
            await receiver.register(service)
            crowd = Crowd(service, receiver, payments=options.rate, jobs=options.jobs)
            soak = Soak(service, crowd, options.hours * 3600)
            with Live(soak, console=console, refresh_per_second=1):
                wrong = await soak.run(options.keep)
    found = soak.changes()
    console.print(soak, verdict(found))
    for fault in wrong:
        console.print(f"[bold red]{fault}")
    return bool(wrong or not all(change.flat for change in found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=100, help="payments a second")
    parser.add_argument("--jobs", type=int, default=5, help="jobs a second")
    parser.add_argument("--keep", type=Path, help="file for all readings, one line of JSON each")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the service that it started ends with it
    sys.exit(asyncio.run(main(parser.parse_args())))
