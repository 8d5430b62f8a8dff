"""Results of a benchmark: figures, targets and their ratio."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Effort(Enum):
    """Duration of a benchmark. Only normal and full runs are valid for a report."""

    QUICK = "quick"  # seconds: a check that it runs
    NORMAL = "normal"  # minutes
    FULL = "full"  # includes sizes that take a quarter of an hour to seed


@dataclass(frozen=True)
class Figure:
    """One number. `target` is its minimum, or maximum if `at_most`; none: for information."""

    what: str
    value: float
    unit: str = ""
    target: float | None = None
    at_most: bool = False
    note: str = ""
    data: dict[str, Any] = field(default_factory=dict)  # raw data, stored in the JSON

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if self.met:
            return "met"
        if self.target == 0:
            return f"missed by {number(self.value)}"
        if self.value > 2 * self.target:
            return f"missed: {number(self.value / self.target)} × as much"
        return f"missed by {abs(self.value / self.target - 1):.0%}"

    @property
    def wanted(self) -> str:
        if self.target is None:
            return ""
        sign = "=" if self.at_most and self.target == 0 else "≤" if self.at_most else "≥"
        return f"{sign} {number(self.target)} {self.unit}".rstrip()

    @property
    def shown(self) -> str:
        return f"{number(self.value)} {self.unit}".rstrip()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def number(value: float) -> str:
    """Format with three significant digits and thousands separators."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def median(values: list[float]) -> float:
    return quantile(values, 0.5)


def quantile(values: list[float], share: float) -> float:
    """The quantile `share`: the smallest value that at least this share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]
