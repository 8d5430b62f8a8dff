"""Alert about discrepancies with processors' records, and the gauge that it reads."""

from prometheus_client.core import GaugeMetricFamily

from payments.models import Difference
from payments.reconciliation.attention import open_differences
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _differences() -> list[GaugeMetricFamily]:
    counts = {kind: count for kind, count, _ in await open_differences(None)}
    family = GaugeMetricFamily("registry_open_differences", "Between processors' books and ours", labels=["kind"])
    for kind in Difference.Kind.values:
        family.add_metric([kind], counts.get(kind, 0))
    return [family]


status.gauges.append(_differences)

register(
    AlertRule(
        name="discrepancies",
        expression="sum(registry_open_differences) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="A processor's records and ours differ: either side may hold money that the other does not know.",
    ),
)
