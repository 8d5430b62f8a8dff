"""Alerts about refunds that nobody retries and disputes whose evidence is due soon, and the gauges that they read."""

from prometheus_client.core import GaugeMetricFamily

from payments.refunds.attention import disputes_due, stopped_refunds
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _gauges() -> list[GaugeMetricFamily]:
    stopped = sum(row[1] for row in await stopped_refunds(None))
    soon = sum(row[4] for row in await disputes_due(None))
    return [
        GaugeMetricFamily("registry_refunds_stopped", "Refunds that wait for an operator", value=stopped),
        GaugeMetricFamily("registry_disputes_due", "Disputes whose evidence is due within three days", value=soon),
    ]


status.gauges.append(_gauges)

register(
    AlertRule(
        name="refunds.stopped",
        expression="max(registry_refunds_stopped) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="Refunds failed in every attempt: money may not have reached the payer.",
    ),
    AlertRule(
        name="disputes.due",
        expression="max(registry_disputes_due) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="A dispute wants evidence within three days. Without it the money is lost.",
    ),
)
