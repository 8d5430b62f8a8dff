"""Alert about events of processors that could not be handled, and the gauge that it reads."""

from prometheus_client.core import GaugeMetricFamily

from payments.inbound.attention import dead_events
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _dead() -> list[GaugeMetricFamily]:
    count, *_ = await dead_events(None)
    text = "Events of processors that could not be handled and wait for an operator"
    return [GaugeMetricFamily("registry_inbound_dead", text, value=count)]


status.gauges.append(_dead)

register(
    AlertRule(
        name="inbound.dead",
        expression="max(registry_inbound_dead) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="Events of processors could not be handled: a refund or dispute may be missing in our records.",
    ),
)
