"""Cost of a message in a queue with a history (a million messages already read, or ten thousand partitions), compared with
an empty queue. Each has its own database and web process; they alternate."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Effort, Figure, median
from bench.place import Place, Process, place, progress, web
from bench.queue.cost import Cost, counted
from bench.queue.load import Load, drive, prepare

BATCH, CONNECTIONS = 10, 50
BEHIND = {Effort.QUICK: 10_000, Effort.NORMAL: 1_000_000, Effort.FULL: 5_000_000}
MANY = {Effort.QUICK: 500, Effort.NORMAL: 10_000, Effort.FULL: 10_000}  # partitions
MESSAGES = {Effort.QUICK: 1_000, Effort.NORMAL: 40_000, Effort.FULL: 100_000}  # per round
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 3, Effort.FULL: 7}
MOST = 1.3
AT_ONCE, PORTIONS = 1_000, 5  # messages per request, and number of portions, when the history is created
PER_MESSAGE = 1e6  # from seconds for all to microseconds for each


@dataclass
class Subject:
    name: str
    here: Place
    process: Process
    partitions: int = 100
    producers: int = 0  # producer numbers assigned so far
    seconds: list[float] = field(default_factory=list)  # of each round, pushing and reading
    costs: list[Cost] = field(default_factory=list)

    @property
    def base(self) -> dict[str, Any]:
        return {"port": self.process.port, "headers": self.here.headers, "queue": "history"}

    def through(self, messages: int, *, batch: int = BATCH, auto_ack: bool = False) -> float:
        """Seconds to push and read `messages`. The readers verify that all arrive, in order."""
        first, self.producers = self.producers, self.producers + CONNECTIONS
        pushed = drive(
            Load(**self.base, batch=batch, partitions=self.partitions, push=CONNECTIONS, messages=messages, first=first)
        )
        read = drive(Load(**self.base, batch=batch, read=CONNECTIONS, wanted=pushed.pushed, auto_ack=auto_ack))
        self.process.check()
        return pushed.push_seconds + read.read_seconds

    def measure(self, messages: int) -> None:
        with counted(self.here, self.process) as cost:
            self.seconds.append(self.through(messages))
        self.costs.append(cost)


def run(effort: Effort) -> list[Figure]:
    with subjects(effort) as (empty, behind, many), progress() as bars:
        bar = bars.add_task("", total=3 + 3 * ROUNDS[effort])
        for subject in (empty, behind, many):
            bars.update(bar, description=f"{subject.partitions:,} partitions")
            prepare(Load(**subject.base, batch=BATCH, partitions=subject.partitions, read=2))
            bars.advance(bar)
        bars.update(bar, description=f"{BEHIND[effort]:,} messages through the queue")
        for _ in range(PORTIONS):
            behind.through(BEHIND[effort] // PORTIONS, batch=AT_ONCE, auto_ack=True)
        for turn in range(ROUNDS[effort]):
            for place_in_turn in range(3):
                subject = (empty, behind, many)[(turn + place_in_turn) % 3]
                bars.update(bar, description=subject.name)
                subject.measure(MESSAGES[effort])
                bars.advance(bar)
        return [against(empty, subject, MESSAGES[effort]) for subject in (behind, many)]


@contextmanager
def subjects(effort: Effort) -> Iterator[tuple[Subject, Subject, Subject]]:
    with ExitStack() as stack:
        found = []
        for n, name in enumerate(("empty", f"{BEHIND[effort]:,} read messages behind", f"{MANY[effort]:,} partitions")):
            here = stack.enter_context(place(f"queue_history_{n}"))
            found.append(Subject(name, here, stack.enter_context(web(here))))
        found[2].partitions = MANY[effort]
        yield found[0], found[1], found[2]


def against(empty: Subject, subject: Subject, messages: int) -> Figure:
    """Ratios of each round, by time and by processor time, which other work on the machine disturbs less."""
    ratios = [a / b for a, b in zip(subject.seconds, empty.seconds, strict=True)]
    spent = median([a.service / max(b.service, 0.01) for a, b in zip(subject.costs, empty.costs, strict=True)])
    each = [PER_MESSAGE * median(one.seconds) / messages for one in (subject, empty)]
    note = (
        f"{each[0]:.0f} against {each[1]:.0f} µs; {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds; "
        f"processor time {spent:.2f} ×"
    )
    return Figure(
        f"cost per message, {subject.name}, against empty", median(ratios), "×", MOST, at_most=True, note=note
    )
