"""A metric that a test steers, alert rules about it, and evaluators that the test runs itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from prometheus_client.core import GaugeMetricFamily

from registry.edge import status
from registry.models import Alert, AlertMessage
from registry.operators.alerts import rules
from registry.operators.alerts.evaluator import AlertEvaluator
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity

HOST = "here"


class ElectedAtOnce:
    """An election with one candidate."""

    holder = "this test"

    async def hold(self) -> bool:
        return True

    async def release(self) -> None: ...


@dataclass
class Steered:
    """A gauge `steered` by the label `part`. Empty: it has no samples; `broken`: it cannot be read."""

    values: dict[str, float] = field(default_factory=dict)
    broken: bool = False
    reads: int = 0

    def set(self, value: float, part: str = "") -> None:
        self.values[part] = value

    async def read(self) -> list[GaugeMetricFamily]:
        self.reads += 1
        if self.broken:
            raise ConnectionError("nobody answers")
        family = GaugeMetricFamily("steered", "Steered by a test", labels=["part"])
        for part, value in self.values.items():
            family.add_metric([part], value)
        return [family]


@contextmanager
def steered(*added: AlertRule) -> Iterator[Steered]:
    """No rules but these, and the gauge that they read."""
    gauge = Steered()
    with patch.object(rules, "_rules", {}), patch.object(status, "gauges", [gauge.read]):
        register(*added)
        yield gauge


def rule(**different: Any) -> AlertRule:
    """Fires at once when the steered gauge is above 5."""
    given = {
        "name": "steered.high",
        "expression": "max(steered) > 5",
        "for_": 0,
        "severity": Severity.CRITICAL,
        "scope": "host",
        "sentence": "Something is too high.",
    }
    return AlertRule(**{**given, **different})


def evaluator(scope: Any = "host") -> AlertEvaluator:
    return AlertEvaluator(scope, HOST if scope == "host" else "", ElectedAtOnce())


async def alerts() -> list[Alert]:
    """All alerts, the oldest first."""
    return [one async for one in Alert.async_objects.order_by("since")]


async def states_of_alerts() -> list[str]:
    return [one.status for one in await alerts()]


async def messages() -> list[AlertMessage]:
    return [one async for one in AlertMessage.async_objects.order_by("id")]


async def earlier(seconds: float) -> None:
    """Let everything that is stored be `seconds` older, instead of waiting."""
    names = ("since", "fired_at", "clear_since", "resolved_at", "read_at", "told_at", "told_resolved_at")
    for alert in await alerts():
        moved = {name: at - timedelta(seconds=seconds) for name in names if (at := getattr(alert, name))}
        await Alert.async_objects.filter(pk=alert.pk).aupdate(**moved)
