"""How the processors are, for /metrics: by kind, since their addresses and names belong to tenants."""

from collections import Counter

from prometheus_client.core import GaugeMetricFamily

from payments.models import Endpoint
from registry import status


async def _breakers() -> list[GaugeMetricFamily]:
    found: Counter[tuple[str, str]] = Counter()
    async for key, state in Endpoint.async_objects.values_list("key", "breaker"):
        found[key.partition(":")[0], state] += 1
    family = GaugeMetricFamily("registry_breakers", "Processors' addresses by breaker state", labels=["kind", "state"])
    for kind in sorted({kind for kind, _ in found}):
        for state in Endpoint.Breaker.values:
            family.add_metric([kind, state], found[kind, state])
    return [family]


status.gauges.append(_breakers)
