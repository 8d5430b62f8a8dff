"""Alerts about processors, and the gauges that they read. Neither names a tenant or an address: endpoints count by kind."""

from collections import Counter

from prometheus_client.core import GaugeMetricFamily

from payments.models import Endpoint
from payments.routing.attention import SQL, down_endpoints
from registry.data import database
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import COUNTED, Severity

FAILING = "failing"


async def _breakers() -> list[GaugeMetricFamily]:
    counts = {(kind, state): count for kind, state, count in await database.fetch(SQL["breakers"], prepare=False)}
    family = GaugeMetricFamily("registry_breakers", "Processors' addresses by breaker state", labels=["kind", "state"])
    for kind in sorted({kind for kind, _ in counts}):
        for state in Endpoint.Breaker.values:
            family.add_metric([kind, state], counts.get((kind, state), 0))
    return [family]


async def _down() -> list[GaugeMetricFamily]:
    """As among what needs attention: only those of enabled processors."""
    rows = await down_endpoints(None, limit=COUNTED)
    counts = Counter(breaker if breaker != Endpoint.Breaker.CLOSED else FAILING for _, breaker, *_ in rows)
    text = "Addresses of enabled processors with an open or half-open breaker, or that report to be failing"
    family = GaugeMetricFamily("registry_processors_down", text, labels=["how"])
    for how in (Endpoint.Breaker.OPEN.value, Endpoint.Breaker.HALF_OPEN.value, FAILING):
        family.add_metric([how], counts[how])
    return [family]


status.gauges += [_breakers, _down]

register(
    AlertRule(
        name="processors.down",
        expression="sum(registry_processors_down) > 0",
        for_=30,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="A processor is down: its breaker is open or it reports that it is failing. Payments go to others, or wait.",
    ),
    AlertRule(
        name="processors.slow",
        expression="max(registry_processor_response_seconds) > 1",
        for_=60,
        severity=Severity.WARNING,
        scope="host",
        sentence="A processor takes longer than a second to answer. Payments go to others if they are faster, or settle late.",
    ),
)
