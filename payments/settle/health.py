"""How the processors and the dead letters are, for /metrics. No tenant is named, nor an address: a processor counts by kind."""

from collections import Counter

from prometheus_client.core import GaugeMetricFamily

from payments.models import DeadLetter, Difference, Endpoint, InboundEvent
from registry.edge import status

LETTERS_COUNTED = 100_000  # at most: beyond that the number says "a lot" and the scrape stays cheap


async def _breakers() -> list[GaugeMetricFamily]:
    found: Counter[tuple[str, str]] = Counter()
    async for key, state in Endpoint.async_objects.values_list("key", "breaker"):
        found[key.partition(":")[0], state] += 1
    family = GaugeMetricFamily("registry_breakers", "Processors' addresses by breaker state", labels=["kind", "state"])
    for kind in sorted({kind for kind, _ in found}):
        for state in Endpoint.Breaker.values:
            family.add_metric([kind, state], found[kind, state])
    return [family]


async def _dead_letters() -> list[GaugeMetricFamily]:
    """By the partial index of open letters: resolved ones cost nothing."""
    found = DeadLetter.async_objects.filter(resolution="").order_by("-id")[:LETTERS_COUNTED]
    family = GaugeMetricFamily("registry_dead_letters", "Dead letters that wait for an operator", labels=["app"])
    family.add_metric(["payments"], await found.acount())
    events = InboundEvent.async_objects.filter(closed=InboundEvent.Status.DEAD)[:LETTERS_COUNTED]
    family.add_metric(["inbound"], await events.acount())
    return [family]


async def _differences() -> list[GaugeMetricFamily]:
    """By the partial index of open ones."""
    found = Counter(
        [
            kind
            async for kind in Difference.async_objects.filter(resolution="").values_list("kind", flat=True)[
                :LETTERS_COUNTED
            ]
        ]
    )
    family = GaugeMetricFamily("registry_open_differences", "Between processors' books and ours", labels=["kind"])
    for kind in Difference.Kind.values:
        family.add_metric([kind], found[kind])
    return [family]


status.gauges += [_breakers, _dead_letters, _differences]
