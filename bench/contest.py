"""The load of a public contest, on one machine with all parts: latency, summaries that must agree, processor time per payment.

bench/users.py has the users and the schedules of faults. Nothing is tuned to them. The same users pay at the floor in turn: a bare
ASGI application that answers and does nothing.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.figures import Effort, Figure, median
from bench.place import DATA, ROOT, Process, place, processors, progress, service, uvicorn
from bench.queue.cost import seconds_of_tree
from bench.users import Contest
from registry.servers import embedded
from registry.servers.processes import children

USERS = {"minute": (550,), "five minutes": (250, 600)}
SPEED = {"minute": 1.0, "five minutes": 5.0}
QUICK = 4.0  # times as fast
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 1, Effort.FULL: 3}
GRACE = 60.0  # seconds beyond the profile until the run is aborted
# The parts of `up` by words of their commands.
PARTS = {
    "web": "registry.servers.serve",
    "workers": "--slot",
    "housekeeping": "--housekeeping",
    "cron": "manage.py cron",
}


@dataclass
class Round:
    """One run: what the users saw, and seconds of processor time by part of the service."""

    report: dict[str, Any]
    spent: dict[str, float] = field(default_factory=dict)

    def each(self, part: str) -> float:
        """Microseconds per payment."""
        return 1e6 * self.spent.get(part, 0.0) / max(1, self.report["accepted"])


def run(effort: Effort, users: int | None = None) -> list[Figure]:
    """`users`: only so many, in the timetable of five minutes."""
    wanted = {"five minutes": (users,)} if users else USERS
    figures: list[Figure] = []
    for timetable, numbers in wanted.items():
        speed = SPEED[timetable] * (QUICK if effort is Effort.QUICK else 1)
        for number in numbers:
            contest = Contest(0, 0, 0, {}, users=number, timetable=timetable, speed=speed)
            rounds = [(in_service(contest), at_the_floor(contest)) for _ in range(ROUNDS[effort])]
            figures += figures_of(contest, [ours for ours, _ in rounds], [floor for _, floor in rounds])
    return figures


def in_service(contest: Contest) -> Round:
    with place("contest") as here, processors() as (default, fallback):
        here.add_processors(default, fallback)
        with service(here) as up:
            ours = replace(contest, service=up.port, default=default.port, fallback=fallback.port, headers=here.headers)
            with counted(up) as spent:
                report = hold(ours, up)
    return Round(report, spent)


def at_the_floor(contest: Contest) -> Round:
    with (
        place("floor", migrated=False) as here,
        uvicorn(here, "floor", "bench.floor:application") as floor,
        counted(floor) as spent,
    ):
        return Round(hold(replace(contest, service=floor.port), floor), spent)


@contextmanager
def counted(process: Process) -> Iterator[dict[str, float]]:
    """Processor time of the parts of `up` and of PostgreSQL, where it is embedded."""
    spent: dict[str, float] = {}
    before = by_part(process)
    yield spent
    spent.update({part: seconds - before.get(part, 0.0) for part, seconds in by_part(process).items()})


def by_part(process: Process) -> dict[str, float]:
    seconds = {"PostgreSQL": seconds_of_tree(embedded.Postgres(DATA).pid() or 0)}
    for pid in children(process.pid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        part = next((name for name, words in PARTS.items() if words in command), "others")
        seconds[part] = seconds.get(part, 0.0) + seconds_of_tree(pid)
    return seconds


def hold(contest: Contest, process: Process) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.users", json.dumps(asdict(contest))]
    users = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        show(contest, users, process)
        out, err = users.communicate(timeout=GRACE)
    finally:
        users.kill()
        users.wait()
    if users.returncode:
        raise RuntimeError(f"the users gave up: {err[-2000:]}")
    return json.loads(out)


def show(contest: Contest, users: subprocess.Popen, process: Process) -> None:
    started = time.monotonic()
    with progress() as bars:
        bar = bars.add_task(f"{contest.users} users", total=round(contest.seconds))
        while users.poll() is None and (passed := time.monotonic() - started) < contest.seconds:
            process.check()
            bars.update(bar, completed=round(passed))
            time.sleep(0.5)


def figures_of(contest: Contest, rounds: list[Round], floors: list[Round]) -> list[Figure]:
    name = f"contest {contest.users}"
    reports = [one.report for one in rounds]
    first = reports[0]
    floor = median([one.report["p99"] for one in floors])
    p99 = median([report["p99"] for report in reports])
    booked = (
        f"{first['accepted']:,} accepted, {first['default']:,} booked by default, {first['fallback']:,} by fallback"
    )
    times = f"p50 {first['p50']:.2f} ms, worst {first['worst']:.0f} ms; {len(rounds)} runs"
    off = [c for report in reports for c in report["comparisons"] if c["off"]]
    compared = f"{sum(len(report['comparisons']) for report in reports)} comparisons, {len(off)} off; slowest summary {first['summary_worst']:.1f} ms"
    parts = {part: median([one.each(part) for one in rounds]) for part in ("web", "workers", "PostgreSQL")}
    spent = ", ".join(f"{part} {each:,.0f}" for part, each in parts.items())

    def worst(key: str) -> float:
        return max(report[key] for report in reports)

    return [
        Figure(f"{name}: p99", p99, "ms", 5, at_most=True, note=times, data={"rounds": [asdict(one) for one in rounds]}),
        Figure(f"{name}: p99 over the floor's", p99 / floor, "×", 5, at_most=True, note=f"bare ASGI: p99 {floor:.2f} ms"),
        Figure(f"{name}: lag", worst("lag"), "", 0, at_most=True, note=booked),
        Figure(f"{name}: double booked", worst("double_booked"), "", 0, at_most=True),
        Figure(f"{name}: inconsistencies", worst("inconsistencies"), "", 0, at_most=True, note=compared),
        Figure(f"{name}: refused", worst("refused"), "", 0, at_most=True, note=str(first["refusals"] or "")),
        Figure(f"{name}: processor time per payment", sum(parts.values()), "µs", note=spent),
    ]  # fmt: skip
