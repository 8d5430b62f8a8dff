"""The expression of an alert rule: `aggregate(metric{labels}[window]) comparison number`, parsed and formatted.

| expression | its value | in PromQL |
|---|---|---|
| `max(m) > 1` | of all label sets the greatest; so `min`, `sum`, `avg` | `max(m) > 1` |
| `max(m[5m]) > 1` | the same over the window; so `min`, `avg`, and no `sum` | `max_over_time(max(m)[5m:5s]) > 1` |
| `increase(m_total[5m]) > 1` | by how much all label sets together grew in the window | `sum(increase(m_total[5m])) > 1` |
| `rate(m_total[5m]) > 1` | the same per second | `sum(rate(m_total[5m])) > 1` |

A rule of scope `host` is evaluated for each host: its PromQL aggregates `by (instance)`. `increase` counts a label set that is
new from 0, which PromQL does not, and does not extrapolate to the ends of the window, which PromQL does.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

LONGEST_WINDOW = 3600  # seconds: an evaluator keeps its samples in memory


class BadExpression(ValueError):
    """The expression of an alert rule cannot be understood; the message says where, and what is allowed."""


class Aggregate(StrEnum):
    """How the samples of a metric become one number."""

    MAX = "max"
    MIN = "min"
    SUM = "sum"
    AVG = "avg"
    INCREASE = "increase"
    RATE = "rate"

    @property
    def is_of_counters(self) -> bool:
        return self in (Aggregate.INCREASE, Aggregate.RATE)


class Relation(StrEnum):
    """How the number is compared with the rule's own."""

    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    EQUAL = "=="
    NOT_EQUAL = "!="

    def holds(self, value: float, number: float) -> bool:
        match self:
            case Relation.LESS:
                return value < number
            case Relation.LESS_OR_EQUAL:
                return value <= number
            case Relation.GREATER:
                return value > number
            case Relation.GREATER_OR_EQUAL:
                return value >= number
            case Relation.EQUAL:
                return value == number
            case Relation.NOT_EQUAL:
                return value != number


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label of the metric's samples. A sample without the label has the empty value."""

    label: str
    value: str
    equal: bool = True  # False: `!=`

    def matches(self, labels: Mapping[str, str]) -> bool:
        return (labels.get(self.label, "") == self.value) is self.equal

    def __str__(self) -> str:
        escaped = self.value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        return f'{self.label}{"=" if self.equal else "!="}"{escaped}"'


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `str` formats it, and `parse` reads that again. Raises BadExpression."""

    aggregate: Aggregate
    metric: str  # name of the sample as /metrics shows it, such as registry_jobs_total
    relation: Relation
    number: float
    matchers: tuple[Matcher, ...] = ()
    window: int | None = None  # seconds

    def __post_init__(self) -> None:
        counter = self.metric.endswith(("_total", "_count", "_sum", "_bucket"))
        if not math.isfinite(self.number):
            raise BadExpression(f"{self.number} is no number to compare with")
        if self.aggregate.is_of_counters and self.window is None:
            raise BadExpression(f"{self.aggregate} wants a window, such as {self.aggregate}({self.metric}[5m])")
        if self.aggregate.is_of_counters and not counter:
            raise BadExpression(f"{self.aggregate} wants a counter (…_total, …_count, …_sum), not {self.metric}")
        if not self.aggregate.is_of_counters and self.metric.endswith(("_total", "_bucket")):
            raise BadExpression(f"{self.aggregate} wants a gauge: of the counter {self.metric} use increase or rate")
        if self.aggregate is Aggregate.SUM and self.window is not None:
            raise BadExpression("sum takes no window: use max, min or avg")
        if self.window is not None and not 0 < self.window <= LONGEST_WINDOW:
            raise BadExpression(f"a window is 1 to {LONGEST_WINDOW} s long, not {self.window} s")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a sample with these labels is selected."""
        return all(matcher.matches(labels) for matcher in self.matchers)

    def holds(self, value: float) -> bool:
        """Whether the condition holds for a value of the aggregate."""
        return self.relation.holds(value, self.number)

    @property
    def selector(self) -> str:
        """The metric with its labels and window, as in PromQL."""
        labels = f"{{{', '.join(map(str, self.matchers))}}}" if self.matchers else ""
        return f"{self.metric}{labels}{f'[{duration(self.window)}]' if self.window is not None else ''}"

    def __str__(self) -> str:
        return f"{self.aggregate}({self.selector}) {self.relation} {shown(self.number)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an expression. Raises BadExpression."""
        return cls(**_Reader(text).expression())


def duration(seconds: int) -> str:
    """As in PromQL, in the greatest unit that gives a whole number: 300 is 5m, 90 is 90s."""
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "m"), (1, "s")) if seconds % size == 0)
    return f"{seconds // size}{unit}"


def shown(number: float) -> str:
    """A number without a needless fraction, exact: 1 rather than 1.0."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


class _Reader:
    """Reads an expression from left to right."""

    UNITS = {"s": 1, "m": 60, "h": 3600}

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def take(self, pattern: str, wanted: str) -> str:
        found = re.compile(rf"\s*({pattern})\s*").match(self.text, self.at)
        if not found:
            rest = self.text[self.at :].strip() or "its end"
            raise BadExpression(f"{self.text!r}: wants {wanted} at {rest!r}")
        self.at = found.end()
        return found[1]

    def has(self, sign: str) -> bool:
        """Take the sign if it is next."""
        if self.text.startswith(sign, self.at):
            self.take(re.escape(sign), sign)
            return True
        return False

    def expression(self) -> dict:
        aggregate = Aggregate(self.take(rf"(?:{'|'.join(Aggregate)})(?!\w)", f"one of {', '.join(Aggregate)}"))
        self.take(r"\(", "(")
        metric = self.take(r"[a-zA-Z_:][a-zA-Z0-9_:]*", "the name of a metric")
        matchers = self.matchers() if self.has("{") else ()
        window = self.window() if self.has("[") else None
        self.take(r"\)", ") after the metric, its {labels} and its [window]")
        relation = Relation(self.take("[<>]=?|[=!]=", f"one of {' '.join(Relation)}"))
        number = float(self.take(r"-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", "a number"))
        self.take(r"\Z", "nothing more")
        return {
            "aggregate": aggregate,
            "metric": metric,
            "relation": relation,
            "number": number,
            "matchers": matchers,
            "window": window,
        }

    def matchers(self) -> tuple[Matcher, ...]:
        found = [self.matcher()]
        while self.has(","):
            found.append(self.matcher())
        self.take(r"\}", "} or a comma")
        return tuple(found)

    def matcher(self) -> Matcher:
        label = self.take(r"[a-zA-Z_][a-zA-Z0-9_]*", "the name of a label")
        sign = self.take("!=|=(?![=~])", "= or != (patterns are not supported)")
        quoted = self.take(r'"(?:[^"\\\n]|\\["\\n])*"', 'a value in double quotes, with \\", \\\\ and \\n')
        value = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], quoted[1:-1])
        return Matcher(label, value, equal=sign == "=")

    def window(self) -> int:
        length = self.take(r"\d+[smh]", "a window such as 30s, 5m or 1h")
        self.take(r"\]", "]")
        return int(length[:-1]) * self.UNITS[length[-1]]
