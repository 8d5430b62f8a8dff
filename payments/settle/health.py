"""Gauges of breakers, dead letters and differences for /metrics, without tenants or URLs: processors count by kind."""

from collections import Counter

from prometheus_client.core import GaugeMetricFamily

from payments.models import DeadLetter, Difference, Endpoint, InboundEvent
from registry.edge import status

COUNT_LIMIT = 100_000  # rows counted at most, so that a scrape stays cheap


async def _breakers() -> list[GaugeMetricFamily]:
    counts: Counter[tuple[str, str]] = Counter()
    async for key, state in Endpoint.async_objects.values_list("key", "breaker"):
        counts[key.partition(":")[0], state] += 1
    family = GaugeMetricFamily("registry_breakers", "Processors' addresses by breaker state", labels=["kind", "state"])
    for kind in sorted({kind for kind, _ in counts}):
        for state in Endpoint.Breaker.values:
            family.add_metric([kind, state], counts[kind, state])
    return [family]


async def _dead_letters() -> list[GaugeMetricFamily]:
    """By the partial index of open dead letters."""
    counts = DeadLetter.async_objects.filter(resolution="").order_by("-id")[:COUNT_LIMIT]
    family = GaugeMetricFamily("registry_dead_letters", "Dead letters that wait for an operator", labels=["app"])
    family.add_metric(["payments"], await counts.acount())
    events = InboundEvent.async_objects.filter(closed=InboundEvent.Status.DEAD)[:COUNT_LIMIT]
    family.add_metric(["inbound"], await events.acount())
    return [family]


async def _differences() -> list[GaugeMetricFamily]:
    """By the partial index of open ones."""
    counts = Counter(
        [
            kind
            async for kind in Difference.async_objects.filter(resolution="").values_list("kind", flat=True)[
                :COUNT_LIMIT
            ]
        ]
    )
    family = GaugeMetricFamily("registry_open_differences", "Between processors' books and ours", labels=["kind"])
    for kind in Difference.Kind.values:
        family.add_metric([kind], counts[kind])
    return [family]


status.gauges += [_breakers, _dead_letters, _differences]
