"""Health check and metrics of the spill, for /health and /metrics."""

from prometheus_client.core import GaugeMetricFamily

from queueing import spill
from registry.edge import status


@status.check("spill")
async def _spill() -> str:
    """Fail only where the spill refuses writes. Records that merely wait are explained by the database's own check."""
    states = await spill.state()
    for now in states:
        if now.refused:
            raise RuntimeError(f"{now.kind}: {now.refused}")
    return "; ".join(map(sentence, states)) or "nothing spills"


def sentence(now: spill.SpillState) -> str:
    kept = f", {now.quarantined} set aside" if now.quarantined else ""
    if not now.records:
        return f"{now.kind}: nothing waits{kept}"
    return f"{now.kind}: {now.records} waiting, oldest {now.oldest_seconds:.1f} s{kept}"


async def _gauges() -> list[GaugeMetricFamily]:
    """Read at each scrape, because a command in another process may have dropped or replayed some."""
    family = GaugeMetricFamily("registry_spill_set_aside", "Quarantined writes, to replay or drop", labels=["kind"])
    for now in await spill.state():
        family.add_metric([now.kind], now.quarantined)
    return [family]


status.gauges.append(_gauges)
