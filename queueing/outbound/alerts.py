"""Alerts about webhooks that do not arrive, and the gauges that they read."""

from prometheus_client.core import GaugeMetricFamily

from queueing.outbound.attention import disabled_endpoints, failed_deliveries
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _gauges() -> list[GaugeMetricFamily]:
    failed, *_ = await failed_deliveries(None)
    disabled, *_ = await disabled_endpoints(None)
    return [
        GaugeMetricFamily("registry_webhook_deliveries_failed", "Deliveries that failed in every try", value=failed),
        GaugeMetricFamily("registry_webhook_endpoints_disabled", "Endpoints switched off by failures", value=disabled),
    ]


status.gauges.append(_gauges)

register(
    AlertRule(
        name="deliveries.failed",
        expression="max(registry_webhook_deliveries_failed) > 0",
        for_=0,
        severity=Severity.NOTICE,
        scope="service",
        sentence="Webhook deliveries failed in every attempt: the receivers do not know of these events.",
    ),
    AlertRule(
        name="deliveries.failing",
        expression='increase(registry_webhook_tries_total{outcome="failed"}[10m]) > 100',
        for_=0,
        severity=Severity.WARNING,
        scope="host",
        sentence="More than 100 tries to deliver webhooks failed within ten minutes. They are repeated for three days.",
    ),
    AlertRule(
        name="endpoints.disabled",
        expression="max(registry_webhook_endpoints_disabled) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="A webhook endpoint was disabled because it failed for days: its events wait until it is switched on.",
    ),
)
