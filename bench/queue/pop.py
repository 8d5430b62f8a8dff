"""Messages popped and acked per second, two requests for each batch of 1, 10 and 100, by 50 readers of one backlog."""

from dataclasses import replace

from bench.figures import Effort, Figure
from bench.place import Place, Process, place, progress, web
from bench.queue.cost import counted
from bench.queue.load import Load, drive, prepare

WANTED = {1: 2_500, 10: 25_000, 100: 100_000}  # messages per second, by batch
BACKLOG = {
    Effort.QUICK: {1: 1_000, 10: 5_000, 100: 10_000},
    Effort.NORMAL: {1: 20_000, 10: 150_000, 100: 500_000},
    Effort.FULL: {1: 60_000, 10: 400_000, 100: 1_500_000},
}
CONNECTIONS, PARTITIONS = 50, 100


def run(effort: Effort) -> list[Figure]:
    with place("queue_pop") as here, web(here) as process, progress() as bars:
        bar = bars.add_task("reading", total=len(WANTED))
        figures = []
        for batch in WANTED:
            bars.update(bar, description=f"batches of {batch}")
            figures.append(measure(here, process, batch, BACKLOG[effort][batch]))
            bars.advance(bar)
        return figures


def measure(here: Place, process: Process, batch: int, backlog: int) -> Figure:
    reading = Load(process.port, here.headers, f"pop-{batch}", batch, PARTITIONS, read=CONNECTIONS)
    prepare(reading)
    per_push = min(100, backlog // PARTITIONS)  # a push goes to one partition, and all partitions get the same number
    pushed = drive(replace(reading, batch=per_push, push=10, messages=backlog, read=0)).pushed
    with counted(here, process) as cost:
        report = drive(replace(reading, wanted=pushed))
    process.check()
    note = f"{report.delivered:,} messages, {report.empty} of {report.pops:,} pops empty; {cost.note(pushed, report)}"
    return Figure(f"popped, then acked, batches of {batch}", report.read_rate, "/s", WANTED[batch], note=note)
