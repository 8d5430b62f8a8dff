"""Reads the metrics that alert rules need, as /metrics shows them: what the processes of this host count, and what is read now."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric

from registry.edge import status
from registry.edge.status import Gauge

AT_ONCE = 3  # functions that read at the same time: most use a database connection, which requests need more
WITHIN = 4.0  # seconds for all of them
KINDS = {"_total": "counter", "_count": "histogram", "_sum": "histogram", "_bucket": "histogram"}  # else a gauge

type Labels = Mapping[str, str]
type Samples = list[tuple[Labels, float]]


@dataclass(slots=True)
class Readings:
    """The samples of metrics at one moment."""

    samples: dict[str, Samples] = field(default_factory=dict)  # by name; one without samples has no label sets now
    unread: set[str] = field(default_factory=set)  # names that could not be read

    def add(self, families: Iterable[Metric], wanted: Collection[str]) -> None:
        for family in families:
            for sample in family.samples:
                if sample.name in wanted:
                    self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))


class MetricReader:
    """Reads metrics by name. It learns which registered function reads which of them, and calls only those that are needed."""

    def __init__(self) -> None:
        self._names: dict[Gauge, set[str]] = {}  # that a function has returned so far

    async def read(self, wanted: Collection[str]) -> Readings:
        """Read each source once; sources that fail or take too long leave their metrics unread."""
        readings = Readings()
        counted = await asyncio.to_thread(status.counted_by_processes, {_kind(name) for name in wanted}, list(wanted))
        readings.add(counted, wanted)
        gauges = list(self._needed(set(wanted) - set(readings.samples)))
        for gauge, families in zip(gauges, await _read_all(gauges), strict=True):
            if families is None:
                readings.unread |= self._names.get(gauge, set(wanted) - self._known()) & set(wanted)
            else:
                self._names.setdefault(gauge, set()).update(family.name for family in families)
                readings.add(families, wanted)
        readings.unread -= set(readings.samples)
        return readings

    def _needed(self, wanted: set[str]) -> Iterator[Gauge]:
        """Functions that read one of the names, and while some name was never seen, those that have not returned anything."""
        unseen = wanted - self._known()
        for gauge in status.gauges:
            names = self._names.get(gauge)
            if (names and names & wanted) or (not names and unseen):
                yield gauge

    def _known(self) -> set[str]:
        return {name for names in self._names.values() for name in names}


async def _read_all(gauges: Collection[Gauge]) -> list[list[GaugeMetricFamily] | None]:
    """What each function reads; None for one that fails, or that was not reached in time."""
    slots, deadline = asyncio.Semaphore(AT_ONCE), asyncio.get_running_loop().time() + WITHIN

    async def one(gauge: Gauge) -> list[GaugeMetricFamily] | None:
        try:
            async with asyncio.timeout_at(deadline), slots:
                return await status.read_gauge(gauge)
        except TimeoutError:
            return None

    return await asyncio.gather(*map(one, gauges))


def _kind(name: str) -> str:
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "gauge")
