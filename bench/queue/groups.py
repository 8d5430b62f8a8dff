"""Ten consumer groups that each read all messages: messages delivered per second, all groups together."""

from dataclasses import replace

from bench.figures import Effort, Figure
from bench.place import place, progress, web
from bench.queue.cost import counted
from bench.queue.load import Load, drive, prepare

GROUPS = tuple(f"group-{n}" for n in range(10))
READERS = 5  # per group
BATCH = 100
BACKLOG = {Effort.QUICK: 2_000, Effort.NORMAL: 60_000, Effort.FULL: 200_000}
WANTED = 100_000  # delivered per second


def run(effort: Effort) -> list[Figure]:
    figures = []
    with place("queue_groups") as here, web(here) as process, progress() as bars:
        bar = bars.add_task("ten groups reading", total=2)
        for auto_ack in (False, True):
            name = f"groups-{auto_ack}"
            load = Load(process.port, here.headers, name, BATCH, read=READERS, groups=GROUPS, auto_ack=auto_ack)
            prepare(load)
            pushed = drive(replace(load, push=10, messages=BACKLOG[effort], read=0)).pushed
            with counted(here, process) as cost:
                report = drive(replace(load, wanted=pushed))
            process.check()
            note = f"{pushed:,} messages, each {len(GROUPS)} times; {cost.note(report.delivered, report)}"
            what = f"delivered to {len(GROUPS)} groups, {'acked by the pop itself' if auto_ack else 'then acked'}"
            figures.append(Figure(what, report.read_rate, "/s", None if auto_ack else WANTED, note=note))
            bars.advance(bar)
    return figures
