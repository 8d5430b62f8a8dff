"""Load generator for the queue: connections that push, and connections that pop and ack, in one process on uvloop.

`python -m bench.queue.load '{…}'` prints one JSON line. wrk cannot read a lease and send it back; this client does, and
reports its own processor time. Afterwards it compares all delivered messages with the pushed ones.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import uvloop

from bench.figures import quantile
from bench.load import ROOT
from bench.queue.wire import Connection, acking, connect, getter, payload, popped, poster, pushing

GRACE = 120.0  # seconds beyond the asked duration until a load is aborted
EMPTY_PAUSE = 0.02  # seconds after an empty pop without `wait`
QUEUE_MODE = "__QUEUE_MODE__"
PREPARING = 9_900  # number of the first producer that only prepares


@dataclass(frozen=True)
class Load:
    """Load: pushes and reads. With both, reading ends when every group has read everything pushed."""

    port: int
    headers: dict[str, str]
    queue: str
    batch: int
    partitions: int = 100
    push: int = 0  # connections
    messages: int = 0  # to push in total, or
    seconds: float = 0.0  # for how long to push
    rate: float = 0.0  # requests per second in an open loop; 0: closed loop, each connection waits for its response
    first: int = 0  # number of the first producer: loads must not share producers
    hot: int = 0  # every second request goes to one of the first so many partitions
    read: int = 0  # connections for each group
    wanted: int = 0  # messages to read in total, if none are pushed
    groups: tuple[str, ...] = (QUEUE_MODE,)
    claim: int = 1  # partitions per pop
    wait: bool = False  # long poll, or repeat
    auto_ack: bool = False


@dataclass
class Report:
    pushed: int = 0  # messages
    requests: int = 0  # of these pushes
    push_seconds: float = 0.0
    p50: float = 0.0  # milliseconds of a push; in an open loop from the moment it was due
    p99: float = 0.0
    worst: float = 0.0
    delivered: int = 0
    read_seconds: float = 0.0
    pops: int = 0
    empty: int = 0  # of them
    broken: int = 0  # messages out of the order of their producer in their partition
    dwell_p50: float = 0.0  # milliseconds from the first byte of the push to the last of the pop
    dwell_p99: float = 0.0
    dwell: float = 0.0  # the longest
    errors: list[str] = field(default_factory=list)
    cpu: float = 0.0  # processor seconds of this process

    @property
    def push_rate(self) -> float:
        return self.pushed / self.push_seconds if self.push_seconds else 0.0

    @property
    def read_rate(self) -> float:
        return self.delivered / self.read_seconds if self.read_seconds else 0.0


def drive(load: Load) -> Report:
    """Raises AssertionError if a message was refused, lost, delivered twice or out of order."""
    command = [sys.executable, "-m", "bench.queue.load", json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=load.seconds + 2 * GRACE)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    report = Report(**json.loads(done.stdout))
    if report.errors:
        raise AssertionError(f"{len(report.errors)} errors, such as {report.errors[0]}")
    if report.broken:
        raise AssertionError(f"{report.broken} of {report.delivered} messages repeated or out of order")
    wanted = (report.pushed or load.wanted) * len(load.groups)
    if load.read and report.delivered != wanted:
        raise AssertionError(f"{report.delivered} delivered of {wanted}")
    return report


def prepare(load: Load) -> Report:
    """Warm-up: create all partitions, group positions, connections and plans."""
    few = {"first": PREPARING, "push": 10, "batch": 10, "messages": 10 * load.partitions, "read": min(load.read, 2)}
    return drive(replace(load, **few, seconds=0, rate=0, hot=0, wanted=0, auto_ack=False))  # type: ignore[arg-type]


class Run:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.report = Report()
        self.times: list[float] = []  # seconds of each push
        self.sent: dict[str, float] = {}  # payload → time of the push, if there are readers
        self.read: list[tuple[str, float, list[str]]] = []  # group, time, payloads
        self.wanted = float("inf") if load.push else load.wanted * len(load.groups)
        self.all_read = asyncio.Event()
        self.tickets = itertools.count()

    async def go(self) -> Report:
        load = self.load
        producers = [await connect(load.port) for _ in range(load.push)]
        readers = [(group, await connect(load.port)) for group in load.groups for _ in range(load.read)]
        spent, self.start = time.process_time(), time.perf_counter()
        async with asyncio.timeout(load.seconds + GRACE):
            reading = [asyncio.create_task(self.guarded(self.reads(one, group))) for group, one in readers]
            await asyncio.gather(*(self.guarded(self.pushes(one, n)) for n, one in enumerate(producers)))
            if load.push:
                self.report.push_seconds = time.perf_counter() - self.start
                self.wanted = self.report.pushed * len(load.groups)
            if reading:
                await self.until_all_read()
        self.report.cpu = time.process_time() - spent
        for task in reading:
            task.cancel()
        self.look_back()
        return self.report

    async def guarded(self, actor) -> None:
        try:
            await actor
        except Exception as error:
            self.report.errors.append(repr(error)[:500])
            self.all_read.set()  # there is nothing to read

    async def until_all_read(self) -> None:
        if self.report.delivered < self.wanted:
            await self.all_read.wait()
        self.report.read_seconds = time.perf_counter() - self.start

    # -- Pushing --

    async def pushes(self, connection: Connection, n: int) -> None:
        load, report = self.load, self.report
        post = poster("/api/v1/push", load.headers)
        producer, counts = load.first + n, [0] * load.partitions
        for due, partition in self.turns(n):
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            start = counts[partition]
            numbers = range(start, start + load.batch)
            counts[partition] += load.batch
            request = post(pushing(load.queue, producer, partition, numbers))
            at = time.perf_counter()
            if load.read:
                self.sent |= {payload(producer, partition, number): at for number in numbers}
            answer = await connection.ask(request)
            if answer.status != 201 or answer.body.count(b'"status":"queued"') != load.batch:
                raise AssertionError(f"a push was answered {answer.status}: {answer.body[:300]!r}")
            # A timer may fire a fraction of a millisecond early: then the time of sending counts.
            self.times.append(time.perf_counter() - (min(due, at) if load.rate else at))
            report.pushed += load.batch
            report.requests += 1

    def turns(self, n: int) -> Iterator[tuple[float, int]]:
        """Due time and partition of the next push, from one sequence for all connections."""
        load = self.load
        end = self.start + load.seconds
        for ticket in self.tickets:
            due = self.start + ticket / load.rate if load.rate else 0.0
            if ticket * load.batch >= load.messages if load.messages else max(due, time.perf_counter()) >= end:
                return
            hot = load.hot and ticket % 2
            yield due, ticket // 2 % load.hot if hot else ticket // (2 if load.hot else 1) % load.partitions

    # -- Reading --

    async def reads(self, connection: Connection, group: str) -> None:
        load, report = self.load, self.report
        query = f"batch={load.batch}&partitions={load.claim}&consumerGroup={group}"
        query += "&wait=true&timeout=30000" * load.wait + "&autoAck=true" * load.auto_ack
        pop = getter(f"/api/v1/pop/queue/{load.queue}?{query}", load.headers)
        one, several = poster("/api/v1/ack", load.headers), poster("/api/v1/ack/batch", load.headers)
        while report.delivered < self.wanted:
            report.pops += 1
            answer = await connection.ask(pop)
            if answer.status == 204:
                report.empty += 1
                await asyncio.sleep(0 if load.wait else EMPTY_PAUSE)
                continue
            if answer.status != 200:
                raise AssertionError(f"a pop was answered {answer.status}: {answer.body[:300]!r}")
            messages = popped(answer.body).messages
            self.read.append((group, time.perf_counter(), [message.data for message in messages]))
            if not load.auto_ack:
                acks = acking(messages, group)
                answer = await connection.ask(one(acks) if len(messages) == 1 else several(acks))
                if answer.status != 200 or answer.body.count(b'"success":true') != len(messages):
                    raise AssertionError(f"an ack was answered {answer.status}: {answer.body[:300]!r}")
            report.delivered += len(messages)
            if report.delivered >= self.wanted:
                self.all_read.set()

    # -- Afterwards --

    def look_back(self) -> None:
        report = self.report
        times = [1000 * t for t in self.times] or [0.0]
        report.p50, report.p99, report.worst = (quantile(times, share) for share in (0.5, 0.99, 1))
        expected: dict[tuple[str, str], int] = {}
        dwells = []
        for group, at, payloads in self.read:
            for data in payloads:
                # In the order of responses: a partition is leased to one reader of a group at a time.
                strand, number = (group, data[:10]), int(data[11:20])
                report.broken += number != expected.get(strand, 0)
                expected[strand] = number + 1
                if self.sent:
                    dwells.append(1000 * (at - self.sent[data]))
        if dwells:
            report.dwell_p50, report.dwell_p99, report.dwell = (quantile(dwells, share) for share in (0.5, 0.99, 1))


if __name__ == "__main__":
    import gc

    gc.disable()  # a collection would count as the service's latency
    said = json.loads(sys.argv[1])
    print(json.dumps(asdict(uvloop.run(Run(Load(**said | {"groups": tuple(said["groups"])})).go()))))
