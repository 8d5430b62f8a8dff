"""`python -m tests.histories --seed 7`: one run and its verdict, `--seed 7 9`: two; `--runs 100`: so many seeds, without those that passed this commit.

Status 1 if anything is wrong. The history of such a run is kept in .data/histories, and `--check FILE` judges it again.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from registry.servers.testing import keep_bytecode
from tests.chaos.service import PROJECT
from tests.histories import entries
from tests.histories.checker import check
from tests.histories.entries import Line, Operation, Struck
from tests.histories.final import commit
from tests.histories.run import Run

KEPT = PROJECT / ".data" / "histories"
PASSED = KEPT / "passed.json"


class Passed:
    """The seeds that passed, of one commit without changes. `commit` is empty where there are changes: nothing is kept then."""

    def __init__(self, file: Path, commit: Callable[[], str]) -> None:
        self.file, self._commit = file, commit
        self.commit = commit()
        kept = json.loads(file.read_text()) if file.exists() else {}
        self.seeds: list[int] = kept["seeds"] if self.commit and kept.get("commit") == self.commit else []

    def add(self, seed: int) -> None:
        if self.commit and self.commit == self._commit():  # also when the run ended
            self.seeds.append(seed)
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps({"commit": self.commit, "seeds": self.seeds}))
            new.replace(self.file)


class Runs:
    """Seed after seed, and what is shown of them."""

    def __init__(self, seeds: Iterable[int], console: Console) -> None:
        self.seeds, self.console = list(seeds), console
        self.struck: Counter[str] = Counter()
        self.passed = self.failed = self.operations = 0
        self.began = time.monotonic()
        self.run: Run | None = None

    async def all(self, passed: Passed) -> bool:
        """Whether all passed."""
        with Live(self, console=self.console, refresh_per_second=4):
            for seed in self.seeds:
                self.run, began = Run(seed, log=log_of(seed)), time.monotonic()
                good = await self._one(self.run)
                seconds = time.monotonic() - began
                verdict = "passed" if good else "failed"
                self.console.print(f"seed {seed}: {verdict} after {seconds:.0f} s: {self.run.phases}", soft_wrap=True)
                self.passed, self.failed = self.passed + good, self.failed + (not good)
                if good:
                    passed.add(seed)
                    log_of(seed).unlink()
            self.run = None
        return not self.failed

    async def _one(self, run: Run) -> bool:
        try:
            lines = await run.record()
        except BaseException as error:
            if not is_of_the_run(error):
                raise
            entries.write(KEPT / f"{run.seed}.jsonl", run.recorder.finish())
            self.console.print_exception()
            self.console.print(f"[bold red]seed {run.seed}: {run.doing}: {type(error).__name__}: {error}")
            return False
        struck = [line for line in lines if isinstance(line, Struck)]
        self.struck.update(line.name for line in struck if not line.left_out)
        for line in struck:
            if line.left_out:
                self.console.print(f"seed {run.seed}: left out: {line.name}: {line.left_out}")
        self.operations += sum(isinstance(line, Operation) for line in lines)
        return judged(str(run.seed), lines, self.console)

    def __rich__(self) -> Table:
        table = Table("seeds", "passed", "failed", "requests", "minutes", "seed", "now")
        row = len(self.seeds), self.passed, self.failed, f"{self.operations:,}"
        minutes = f"{(time.monotonic() - self.began) / 60:.1f}"
        now = (self.run.seed, self.run.doing) if self.run else ("", "")
        table.add_row(*map(str, (*row, minutes, *now)))
        struck = ", ".join(f"{name} × {times}" for name, times in sorted(self.struck.items()))
        table.caption = f"strikes: {struck}" if struck else None
        return table


def log_of(seed: int) -> Path:
    """What the service said. It is kept where the seed failed."""
    return KEPT / f"{seed}.log"


def is_of_the_run(error: BaseException) -> bool:
    """Whether an error is one of the run, and so its verdict. A cancellation is, unless this very task is cancelled."""
    task = asyncio.current_task()
    return not isinstance(error, KeyboardInterrupt | SystemExit) and not (task and task.cancelling())


def judged(name: str, lines: list[Line], console: Console) -> bool:
    """Whether nothing is wrong; what is wrong is shown, and the history kept."""
    file = KEPT / f"{name}.jsonl"
    entries.write(file, lines)  # first: also where the checker fails
    faults = check(lines)
    if faults:
        console.print(f"[bold red]{name}: {len(faults)} faults, history in {file}")
        for fault in faults:
            console.print(f"[red]{fault}")
    else:
        file.unlink()
    return not faults


async def main(options: argparse.Namespace) -> int:
    keep_bytecode()
    console = Console()
    os.umask(0o022)
    KEPT.mkdir(parents=True, exist_ok=True)
    if options.check:
        return not judged("checked-again", entries.read(options.check), console)
    passed = Passed(PASSED, commit)
    seeds = options.seed or range(options.first, options.first + options.runs)
    left = [seed for seed in seeds if options.seed or seed not in passed.seeds]
    if skipped := len(seeds) - len(left):
        console.print(f"{skipped} of {len(seeds)} seeds have passed this commit already")
    good = await Runs(left, console).all(passed)
    if good:
        console.print(f"[bold green]No fault in {len(seeds)} {'history' if len(seeds) == 1 else 'histories'}")
    return not good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", help="these only, in this order, and in any case")
    parser.add_argument("--runs", type=int, default=100, help="seeds, in their order")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--check", type=Path, metavar="FILE", help="judge a history that was kept")
    sys.exit(asyncio.run(main(parser.parse_args())))
