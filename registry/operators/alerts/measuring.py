"""The value of a rule's expression from the samples of its metric, now or over a window that the evaluator remembers.

A process that begins to evaluate knows nothing of the time before: until a window is full, a condition that its rest could still
change is unknown. What `increase` has seen so far can only grow, so that it may already hold.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from registry.operators.alerts.expressions import Aggregate, Expression, Relation
from registry.operators.alerts.readings import Samples

SHOWN = 5  # samples that are named
TINY = 1e-9
GROWS = {Relation.GREATER, Relation.GREATER_OR_EQUAL}
FALLS = {Relation.LESS, Relation.LESS_OR_EQUAL}

type LabelSet = tuple[tuple[str, str], ...]


class Named(NamedTuple):
    """A label set and its value."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a rule's expression amounts to. `holds` is None where that is unknown, with the reason in `why`."""

    holds: bool | None
    value: float | None = None
    samples: list[Named] = field(default_factory=list)  # those that violate the rule, the worst first
    why: str = ""


UNREAD = Measured(None, why="its metric cannot be read")
ABSENT = Measured(False)  # no label set: as in Prometheus, the condition does not hold


class Measure:
    """Measures one expression again and again, and keeps what its window needs."""

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self._began: float | None = None  # when the first samples were read
        self._last: dict[LabelSet, float] | None = None  # of a counter
        self._steps: deque[tuple[float, dict[LabelSet, float]]] = (
            deque()
        )  # of a counter: by how much each label set grew
        self._grown: dict[LabelSet, float] = {}  # and that added up
        self._seen: deque[tuple[float, float]] = deque()  # of a gauge with a window: the aggregate of each reading

    def unread(self, now: float) -> Measured:
        """The metric could not be read: what was remembered stays."""
        return UNREAD

    def read(self, samples: Samples, now: float) -> Measured:
        """Measure by the samples of the metric at `now`, in seconds of a monotonic clock."""
        selected = [(labels, value) for labels, value in samples if self.expression.matches(labels)]
        if self._began is None:
            self._began = now
        if self.expression.aggregate.is_of_counters:
            return self._of_counter(selected, now)
        if self.expression.window is None:
            return self._of_gauge(selected)
        return self._of_gauge_over_window(selected, now)

    # -- Gauges --------------------------------------------------------------------------------------------------

    def _of_gauge(self, samples: Samples) -> Measured:
        if not samples:
            return ABSENT
        value = AGGREGATES[self.expression.aggregate](value for _, value in samples)
        return Measured(self.expression.holds(value), value, self._worst(samples))

    def _of_gauge_over_window(self, samples: Samples, now: float) -> Measured:
        assert self.expression.window is not None
        if samples:
            self._seen.append((now, AGGREGATES[self.expression.aggregate](value for _, value in samples)))
        while self._seen and self._seen[0][0] < now - self.expression.window:
            self._seen.popleft()
        if not self._seen:
            return ABSENT
        value = AGGREGATES[self.expression.aggregate](value for _, value in self._seen)
        growing = {Aggregate.MAX: True, Aggregate.MIN: False}.get(self.expression.aggregate)
        return Measured(self._certain(value, now, growing=growing), value, self._worst(samples), why=self._partial(now))

    def _worst(self, samples: Samples) -> list[Named]:
        """Of min and max the samples that violate the rule themselves; of sum and avg those that are not 0."""
        if self.expression.aggregate in (Aggregate.MAX, Aggregate.MIN):
            violating = [(labels, value) for labels, value in samples if self.expression.holds(value)]
        else:
            violating = [(labels, value) for labels, value in samples if value]
        return named(violating, ascending=self.expression.relation in FALLS)

    # -- Counters ------------------------------------------------------------------------------------------------

    def _of_counter(self, samples: Samples, now: float) -> Measured:
        window = self.expression.window
        assert window is not None
        self._add_step(samples, now)
        while self._steps and self._steps[0][0] <= now - window:
            for labels, step in self._steps.popleft()[1].items():
                self._grown[labels] -= step
                if self._grown[labels] < TINY:  # nothing, but for the rounding of what was added and subtracted
                    del self._grown[labels]
        divisor = window if self.expression.aggregate is Aggregate.RATE else 1
        value = sum(self._grown.values()) / divisor
        grown: Samples = [(dict(labels), step / divisor) for labels, step in self._grown.items()]
        return Measured(
            self._certain(value, now, growing=True), value, named(grown, ascending=False), why=self._partial(now)
        )

    def _add_step(self, samples: Samples, now: float) -> None:
        """By how much each label set grew since the last reading. One that is smaller began again from 0, one that is new began then."""
        current = {tuple(sorted(labels.items())): value for labels, value in samples}
        if self._last is not None:
            grew = {}
            for labels, value in current.items():
                before = self._last.get(labels, 0.0)
                if step := value - before if value >= before else value:
                    grew[labels] = step
                    self._grown[labels] = self._grown.get(labels, 0.0) + step
            if grew:
                self._steps.append((now, grew))
        self._last = current

    # -- Windows that are not full -----------------------------------------------------------------------------------

    def _certain(self, value: float, now: float, *, growing: bool | None) -> bool | None:
        """Whether the condition holds, None if a window that is not full yet could still change that. `growing`: more samples make
        the value only greater (True), only smaller (False), or either (None)."""
        holds = self.expression.holds(value)
        if not self._partial(now):
            return holds
        relation = self.expression.relation
        stays = (growing is True and relation in (GROWS if holds else FALLS)) or (
            growing is False and relation in (FALLS if holds else GROWS)
        )
        return holds if stays else None

    def _partial(self, now: float) -> str:
        """Why a window is not full yet; empty if it is."""
        assert self._began is not None and self.expression.window is not None
        seconds = now - self._began
        return f"read for {seconds:.0f} s of its {self.expression.window} s" if seconds < self.expression.window else ""


def named(samples: Samples, *, ascending: bool) -> list[Named]:
    """The first SHOWN samples for people."""
    found = sorted(samples, key=lambda sample: sample[1], reverse=not ascending)
    return [Named(dict(labels), value) for labels, value in found[:SHOWN]]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


AGGREGATES: dict[Aggregate, Callable[[Iterable[float]], float]] = {
    Aggregate.MAX: max,
    Aggregate.MIN: min,
    Aggregate.SUM: sum,
    Aggregate.AVG: _mean,
}
