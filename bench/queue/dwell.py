"""Longest wait of any message while readers keep up: 1,000 partitions, ten of which could keep all readers busy
if the longest-waiting partition were not served first."""

from bench.figures import Effort, Figure
from bench.place import place, progress, web
from bench.queue.load import Load, drive, prepare

PARTITIONS, HOT = 1_000, 10
BATCH = 10
RATE = {Effort.QUICK: 30.0, Effort.NORMAL: 200.0, Effort.FULL: 200.0}  # pushes per second
SECONDS = {Effort.QUICK: 3.0, Effort.NORMAL: 30.0, Effort.FULL: 120.0}
PRODUCERS, READERS = 20, 20
LONGEST = 1  # second


def run(effort: Effort) -> list[Figure]:
    with place("queue_dwell") as here, web(here) as process, progress() as bars:
        bars.add_task("pushing and reading", total=None)
        load = Load(
            process.port, here.headers, "dwell", BATCH, PARTITIONS, push=PRODUCERS, rate=RATE[effort],
            seconds=SECONDS[effort], hot=HOT, read=READERS, wait=True,
        )  # fmt: skip
        prepare(load)
        report = drive(load)
        process.check()
    note = (
        f"median {report.dwell_p50:.1f} ms, p99 {report.dwell_p99:.1f} ms; {report.delivered:,} messages at "
        f"{report.push_rate:,.0f}/s, half of them into {HOT} partitions"
    )
    what = f"longest from push to pop, {PARTITIONS:,} partitions"
    return [Figure(what, report.dwell / 1000, "s", LONGEST, at_most=True, note=note)]
