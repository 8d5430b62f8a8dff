"""Alert about dead letters of payments, and the gauge that it reads."""

from prometheus_client.core import GaugeMetricFamily

from payments.settle.attention import open_letters
from payments.states import FAILED, UNCERTAIN
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _dead_letters() -> list[GaugeMetricFamily]:
    counts = {FAILED.value: 0, UNCERTAIN.value: 0, "other": 0}
    for state, _, count, *_ in await open_letters(None):
        counts[state if state in counts else "other"] += count
    text = "Dead letters of payments that wait for an operator, by the payment's status"
    family = GaugeMetricFamily("registry_dead_letters", text, labels=["status"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return [family]


status.gauges.append(_dead_letters)

register(
    AlertRule(
        name="payments.dead_letters",
        expression="sum(registry_dead_letters) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="Payments ran out of attempts. Nobody tries them again until an operator replays or closes them.",
    ),
)
