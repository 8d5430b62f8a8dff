"""How the spill is, for /health and /metrics."""

from prometheus_client.core import GaugeMetricFamily

from queueing import spill
from registry.edge import status


@status.check("spill")
async def _spill() -> str:
    """Failing only when it takes nothing: that something waits, the database's own check explains."""
    states = await spill.state()
    for now in states:
        if now.refused:
            raise RuntimeError(f"{now.kind}: {now.refused}")
    return "; ".join(map(words, states)) or "nothing spills"


def words(now: spill.State) -> str:
    aside = f", {now.set_aside} set aside" if now.set_aside else ""
    if not now.records:
        return f"{now.kind}: nothing waits{aside}"
    return f"{now.kind}: {now.records} waiting, oldest {now.oldest_seconds:.1f} s{aside}"


async def _gauges() -> list[GaugeMetricFamily]:
    """Read at each scrape: a command may have dropped or replayed some."""
    family = GaugeMetricFamily("registry_spill_set_aside", "Writes set aside, to replay or drop", labels=["kind"])
    for now in await spill.state():
        family.add_metric([now.kind], now.set_aside)
    return [family]


status.gauges.append(_gauges)
