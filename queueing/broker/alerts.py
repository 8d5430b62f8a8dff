"""Alert about dead messages of queues, and the gauge that it reads."""

from prometheus_client.core import GaugeMetricFamily

from queueing.broker.attention import dead_messages
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _dead() -> list[GaugeMetricFamily]:
    count, *_ = await dead_messages(None)
    text = "Messages that a consumer group could not process, and that nobody replayed or purged"
    return [GaugeMetricFamily("registry_dead_messages", text, value=count)]


status.gauges.append(_dead)

register(
    AlertRule(
        name="messages.dead",
        expression="max(registry_dead_messages) > 0",
        for_=0,
        severity=Severity.NOTICE,
        scope="service",
        sentence="Messages of queues could not be processed by a consumer group in any delivery.",
    ),
)
