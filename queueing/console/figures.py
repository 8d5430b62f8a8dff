"""Figures of a tenant's queues, now and per minute of the last hour, cached for all who watch the console."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from queueing.broker import groups, long_polls, statistics
from queueing.broker.statistics import QueueDepth, Range, TrafficCounts
from queueing.console import queries
from registry.data import clock
from registry.data.cache import Cached
from registry.data.reading import elsewhere

FRESH = 1.0  # seconds; each open console asks every 2 s, and all consoles of a process share one answer
KEPT = 1_000  # entries of each
HOUR = timedelta(hours=1)
MOST = 1000  # queues of one snapshot
YOUNG = 10.0  # seconds; a minute that has just begun gives no rate yet


class QueueFigures(msgspec.Struct, frozen=True):
    """The figures of one queue."""

    depth: QueueDepth
    minutes: list[TrafficCounts]  # of the last hour, the current one last
    in_rate: float  # messages per second, over the last minute or two
    out_rate: float
    parked: int  # long polls in this process

    @property
    def history(self) -> list[int]:
        """Messages waiting at the end of each minute, computed backwards from now: minus pushed, plus completed and dead."""
        readers = max(self.depth.groups, 1)
        level = float(self.depth.pending + self.depth.processing)
        found = [level]
        for minute in reversed(self.minutes[1:]):
            level = max(level - minute.pushed + (minute.completed + minute.buried) / readers, 0)
            found.append(level)
        return [round(value) for value in reversed(found)]


class Snapshot(msgspec.Struct, frozen=True):
    """The figures of all queues of a tenant, or of one queue."""

    at: datetime
    points: list[datetime]
    queues: list[QueueFigures]
    minutes: list[TrafficCounts]  # of all queues together

    @property
    def totals(self) -> dict[str, Any]:
        depths = [one.depth for one in self.queues]
        return {
            "in_rate": sum(one.in_rate for one in self.queues),
            "out_rate": sum(one.out_rate for one in self.queues),
            "waiting": sum(depth.pending for depth in depths),
            "processing": sum(depth.processing for depth in depths),
            "dead": sum(depth.dead for depth in depths),
            "oldest": max((depth.oldest_seconds for depth in depths), default=0.0),
        }

    def find(self, name: str) -> QueueFigures | None:
        return next((one for one in self.queues if one.depth.name == name), None)


async def _read(tenant_id: int) -> Snapshot:
    return await _snapshot(tenant_id, statistics.About())


async def _read_one(key: tuple[int, str]) -> Snapshot:
    return await _snapshot(key[0], statistics.About(queue=key[1]))


class QueueDetails(msgspec.Struct, frozen=True):
    """The options of a queue, and its consumer groups."""

    options: dict[str, Any]
    groups: list[groups.GroupStatus]


async def _details(key: tuple[int, str]) -> QueueDetails:
    tenant_id, name = key
    found = [one for one in await groups.standings(tenant_id) if one.queue_name == name]
    return QueueDetails(await queries.queue_options(tenant_id, name), found)


type Page = tuple[int, int, str, int, int]  # tenant, queue, part of a name, limit, offset


@elsewhere("queues.figures")
async def _partitions(key: Page) -> tuple[list[queries.PartitionRow], int]:
    tenant_id, queue_id, name, limit, offset = key
    return await queries.partitions(tenant_id, queue_id, name=name, limit=limit, offset=offset)


snapshots: Cached[int, Snapshot] = Cached(_read, fresh=FRESH, kept=KEPT)
of_queue: Cached[tuple[int, str], Snapshot] = Cached(_read_one, fresh=FRESH, kept=KEPT)
details: Cached[tuple[int, str], QueueDetails] = Cached(_details, fresh=FRESH, kept=KEPT)
partitions: Cached[Page, tuple[list[queries.PartitionRow], int]] = Cached(_partitions, fresh=FRESH, kept=KEPT)


def forget(tenant_id: int, queue: str) -> None:
    """Drop what is cached of a queue after a change, so that the next page shows it."""
    of_queue.forget((tenant_id, queue))
    details.forget((tenant_id, queue))
    snapshots.forget(tenant_id)


@elsewhere("queues.figures")
async def _snapshot(tenant_id: int, which: statistics.About) -> Snapshot:
    now = clock.now()
    when = Range(now - HOUR, now, 1)
    depths = await statistics.depths(tenant_id, which, limit=MOST)
    by_queue = await statistics.traffic_by_queue(tenant_id, which, when)
    waiting = long_polls.parked().count_by_queue([depth.id for depth in depths])
    empty = dict.fromkeys(when.points, TrafficCounts())
    queues = [
        _figures(depth, list(by_queue.get(depth.name, empty).values()), when, waiting.get(depth.id, 0))
        for depth in depths
    ]
    minutes = [sum((series[at] for series in by_queue.values()), TrafficCounts()) for at in when.points]
    return Snapshot(now, when.points, queues, minutes)


def _figures(depth: QueueDepth, minutes: list[TrafficCounts], when: Range, parked: int) -> QueueFigures:
    last = sum(minutes[-2:], TrafficCounts())
    seconds = 60 + (when.end - when.points[-1]).total_seconds()
    return QueueFigures(depth, minutes, last.pushed / seconds, last.completed / seconds, parked)


def series(snapshot: Snapshot) -> dict[str, list[Any]]:
    """Data of the charts: messages per second in and out, and seconds from push to pop, at the end of each minute."""
    elapsed = (snapshot.at - snapshot.points[-1]).total_seconds()
    spans = [60.0] * (len(snapshot.points) - 1) + [elapsed]
    shown = list(zip(snapshot.points, spans, snapshot.minutes, strict=True))
    if elapsed < YOUNG:
        shown.pop()
    return {
        "at": [int(at.timestamp() + span) for at, span, _ in shown],
        "in": [round(minute.pushed / span, 3) for _, span, minute in shown],
        "out": [round(minute.completed / span, 3) for _, span, minute in shown],
        "lag": [round(minute.average_lag_ms / 1000, 4) if minute.popped else None for *_, minute in shown],
        "worst": [minute.max_lag_ms / 1000 if minute.popped else None for *_, minute in shown],
    }
