"""Messages pushed per second in batches of 1, 10 and 100, and latency of a push at half of that rate.

50 connections, 100 partitions, a key, transaction ids given by the sender. A request's messages go to one partition, as
clients send them.
"""

from dataclasses import replace

from bench.figures import Effort, Figure
from bench.machine import durability_of
from bench.place import Place, place, progress, web
from bench.queue.cost import Cost, counted
from bench.queue.load import Load, Report, drive, prepare

WANTED = {1: 5_800, 10: 40_000, 100: 90_000}  # messages per second, by batch
SECONDS = {Effort.QUICK: 1.0, Effort.NORMAL: 8.0, Effort.FULL: 20.0}
WARM_UP = 1.0  # seconds
CONNECTIONS = 50
SLOWEST = 15  # milliseconds, p99 at half of the rate

# Counts messages with a gap in the numbers of their partition, or out of the order of their producer.
ORDER = """
    SELECT count(*), count(*) FILTER (WHERE place <> seq OR sent <> number) FROM (
        SELECT seq, ('x' || left(transaction_id, 8))::bit(32)::int AS number,
            row_number() OVER (PARTITION BY partition_id ORDER BY seq) AS place,
            row_number() OVER (PARTITION BY partition_id, substr(transaction_id, 10, 4) ORDER BY seq) - 1 AS sent
        FROM queueing_message WHERE partition_id IN (
            SELECT p.id FROM queueing_partition p JOIN queueing_queue q ON q.id = p.queue_id WHERE q.name = %s
        )
    ) m
"""


def run(effort: Effort) -> list[Figure]:
    with place("queue_push") as here, web(here) as process, progress() as bars:
        with here.connect() as connection:
            durability_of(connection)
        bar = bars.add_task("pushing", total=2 * len(WANTED))
        figures = []
        for batch, wanted in WANTED.items():
            load = Load(process.port, here.headers, f"push-{batch}", batch, push=CONNECTIONS, seconds=SECONDS[effort])
            warm = [prepare(load), drive(replace(load, seconds=WARM_UP))]
            bars.update(bar, description=f"batches of {batch}, as fast as it goes")
            with counted(here, process) as cost:
                full = drive(replace(load, first=100))
            bars.update(bar, description=f"batches of {batch}, at half of that", advance=1)
            rate = full.requests / full.push_seconds / 2
            half = drive(replace(load, first=200, rate=rate))
            bars.advance(bar)
            process.check()
            figures += [fast(batch, wanted, full, cost), calm(batch, rate, half)]
            check_books(here, load.queue, sum(report.pushed for report in (*warm, full, half)))
        return figures


def fast(batch: int, wanted: int, full: Report, cost: Cost) -> Figure:
    note = f"p50 {full.p50:.1f} ms, p99 {full.p99:.1f} ms; {cost.note(full.pushed, full)}"
    return Figure(f"messages pushed, batches of {batch}", full.push_rate, "/s", wanted, note=note)


def calm(batch: int, rate: float, half: Report) -> Figure:
    note = f"p50 {half.p50:.1f} ms, worst {half.worst:.0f} ms; {half.requests:,} requests, {rate:,.0f}/s wanted"
    what = f"push p99 at half of that, batches of {batch}"
    return Figure(what, half.p99, "ms", SLOWEST, at_most=True, note=note)


def check_books(here: Place, queue: str, pushed: int) -> None:
    """Verify that every acknowledged message is stored once, in order."""
    with here.connect() as connection:
        there, broken = connection.execute(ORDER, (queue,)).fetchone()  # type: ignore[misc]
        if (there, broken) != (pushed, 0):
            raise AssertionError(f"{pushed} pushed, {there} in the database, {broken} of them out of order")
