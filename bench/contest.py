"""The load of a public contest, on one machine with all parts: latency, and summaries that must agree.

bench/users.py has the users and the schedule of faults. Nothing is tuned to this schedule.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from bench.figures import Effort, Figure
from bench.place import ROOT, Process, place, processors, progress, service
from bench.users import Contest

SPEED = {Effort.QUICK: 4.0, Effort.NORMAL: 1.0, Effort.FULL: 1.0}
SECONDS = 60.0
GRACE = 60.0  # seconds beyond the profile until the run is aborted


def run(effort: Effort) -> list[Figure]:
    speed = SPEED[effort]
    with place("contest") as here, processors() as (default, fallback):
        here.add_processors(default, fallback)
        with service(here) as up:
            contest = Contest(up.port, default.port, fallback.port, here.headers, seconds=SECONDS / speed, speed=speed)
            report = hold(contest, up)
    return figures(report)


def hold(contest: Contest, up: Process) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.users", json.dumps(asdict(contest))]
    users = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        show(contest, users, up)
        out, err = users.communicate(timeout=GRACE)
    finally:
        users.kill()
        users.wait()
    if users.returncode:
        raise RuntimeError(f"the users gave up: {err[-2000:]}")
    return json.loads(out)


def show(contest: Contest, users: subprocess.Popen, up: Process) -> None:
    started = time.monotonic()
    with progress() as bars:
        bar = bars.add_task(f"{contest.users} users", total=round(contest.seconds))
        while users.poll() is None and (passed := time.monotonic() - started) < contest.seconds:
            up.check()
            bars.update(bar, completed=round(passed))
            time.sleep(0.5)


def figures(report: dict[str, Any]) -> list[Figure]:
    booked = (
        f"{report['accepted']:,} accepted, {report['default']:,} booked by default, {report['fallback']:,} by fallback"
    )
    times = f"p50 {report['p50']:.2f} ms, worst {report['worst']:.0f} ms"
    off = [c for c in report["comparisons"] if c["off"]]
    compared = (
        f"{len(report['comparisons'])} comparisons, {len(off)} off; slowest summary {report['summary_worst']:.1f} ms"
    )
    return [
        Figure("contest: p99", report["p99"], "ms", 5, at_most=True, note=times, data=report),
        Figure("contest: lag", report["lag"], "", 0, at_most=True, note=booked),
        Figure("contest: double booked", report["double_booked"], "", 0, at_most=True),
        Figure("contest: inconsistencies", report["inconsistencies"], "", 0, at_most=True,
               note=compared),
        Figure("contest: refused", report["refused"], "", 0, at_most=True, note=str(report["refusals"] or "")),
    ]  # fmt: skip
