"""`python -m tests.chaos --minutes 10`: storms for as long as wanted, a verdict after each; status 1 if anything is wrong."""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from registry.servers.testing import keep_bytecode
from tests.chaos.sender import Sender
from tests.chaos.service import Service, running
from tests.chaos.traffic import Traffic
from tests.chaos.verdict import faults, until_settled
from tests.chaos.victims import storm, strike_if_there

STRIKES = 10  # of one storm; then all is settled and judged
PAUSES = (0.3, 3.0)  # seconds between two strikes
STORM_LIMIT = 60.0  # seconds until a storm is settled


class Soak:
    """Storm after storm, and what is shown of them."""

    def __init__(self, service: Service, sender: Sender, seed: int) -> None:
        self.service, self.sender, self.seed = service, sender, seed
        self.dice = random.Random(seed)
        self.struck: Counter[str] = Counter()
        self.storms = self.messages = 0
        self.doing = "starting"
        self.slowest = 0.0
        self.faults: list[str] = []

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.faults:
            await self.storm()

    async def storm(self) -> None:
        traffic = Traffic(self.service.url, self.service.key, queue=f"storm-{self.storms}")
        async with traffic.flowing(), self.sender.sending():
            for victim in storm(self.dice, STRIKES):
                self.doing = f"striking: {victim}"
                self.struck[victim.name] += 1
                await asyncio.to_thread(strike_if_there, victim, self.service)
                await asyncio.sleep(self.dice.uniform(*PAUSES))
            self.doing = "healing"
            started = time.monotonic()
            await until_settled(self.service, before=datetime.now(UTC), within=STORM_LIMIT)
            self.slowest = max(self.slowest, time.monotonic() - started)
        self.doing = "judging"
        self.faults = [*await faults(self.service, self.sender), *await traffic.faults()]
        self.messages += len(traffic.book.accepted)
        self.storms += 1

    def __rich__(self) -> Table:
        columns = ("storms", "payments", "sent again", "messages", "slowest to heal", "now")
        table = Table(*columns, title=f"seed {self.seed}")
        accepted, retries = f"{len(self.sender.accepted):,}", f"{self.sender.retries:,}"
        row = (str(self.storms), accepted, retries, f"{self.messages:,}", f"{self.slowest:.1f} s", self.doing)
        table.add_row(*row)
        table.caption = ", ".join(f"{name} {times}" for name, times in sorted(self.struck.items()))
        return table


async def main(minutes: float, rate: int, seed: int) -> int:
    keep_bytecode()
    console = Console()
    async with running() as service:
        soak = Soak(service, Sender(service.url, service.key, rate=rate), seed)
        with Live(soak, console=console, refresh_per_second=4):
            await soak.run(minutes * 60)
    for fault in soak.faults:
        console.print(f"[bold red]{fault}")
    if not soak.faults:
        console.print("[bold green]everything accepted is booked once or delivered, all sums agree")
    return bool(soak.faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=150, help="payments a second")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="repeats the same strikes")
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.minutes, options.rate, options.seed)))
