"""What the console shows of a tenant's queues, read once for all who look: figures of now, and of the last hour by minute."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from queueing.broker import groups, long_polls, statistics
from queueing.broker.statistics import Depth, Range, Traffic
from queueing.console import queries
from registry.data.cache import Cached

FRESH = 1.0  # seconds; each open console asks every 2 s, and all of a process share one answer
KEPT = 1_000  # entries of each
HOUR = timedelta(hours=1)
MOST = 1000  # queues in one reading; more than that nobody looks through
YOUNG = 10.0  # seconds; a minute that has just begun says nothing about a rate yet


class Standing(msgspec.Struct, frozen=True):
    """A queue as it stands, and how it came there."""

    depth: Depth
    minutes: list[Traffic]  # of the last hour, the running one last
    in_rate: float  # messages per second, over the last minute or two
    out_rate: float
    parked: int  # long polls in this process

    @property
    def history(self) -> list[int]:
        """What waited at the end of each minute: counted back from now by what came and went."""
        readers = max(self.depth.groups, 1)
        level = float(self.depth.pending + self.depth.processing)
        found = [level]
        for minute in reversed(self.minutes[1:]):
            level = max(level - minute.pushed + (minute.completed + minute.buried) / readers, 0)
            found.append(level)
        return [round(value) for value in reversed(found)]


class Reading(msgspec.Struct, frozen=True):
    """All queues of a tenant."""

    at: datetime
    points: list[datetime]
    standings: list[Standing]
    minutes: list[Traffic]  # of all queues together

    @property
    def totals(self) -> dict[str, Any]:
        depths = [one.depth for one in self.standings]
        return {
            "in_rate": sum(one.in_rate for one in self.standings),
            "out_rate": sum(one.out_rate for one in self.standings),
            "waiting": sum(depth.pending for depth in depths),
            "processing": sum(depth.processing for depth in depths),
            "dead": sum(depth.dead for depth in depths),
            "oldest": max((depth.oldest_seconds for depth in depths), default=0.0),
        }

    def find(self, name: str) -> Standing | None:
        return next((one for one in self.standings if one.depth.name == name), None)


async def _read(tenant_id: int) -> Reading:
    return await _reading(tenant_id, statistics.About())


async def _read_one(key: tuple[int, str]) -> Reading:
    return await _reading(key[0], statistics.About(queue=key[1]))


class Known(msgspec.Struct, frozen=True):
    """What is configured of a queue, and who reads it."""

    options: dict[str, Any]
    groups: list[groups.Standing]


async def _about(key: tuple[int, str]) -> Known:
    tenant_id, name = key
    found = [one for one in await groups.standings(tenant_id) if one.queue_name == name]
    return Known(await queries.queue_options(tenant_id, name), found)


type Page = tuple[int, int, str, int, int]  # tenant, queue, part of a name, limit, offset


async def _strands(key: Page) -> tuple[list[queries.Strand], int]:
    tenant_id, queue_id, name, limit, offset = key
    return await queries.partitions(tenant_id, queue_id, name=name, limit=limit, offset=offset)


readings: Cached[int, Reading] = Cached(_read, fresh=FRESH, kept=KEPT)
of_queue: Cached[tuple[int, str], Reading] = Cached(_read_one, fresh=FRESH, kept=KEPT)
about: Cached[tuple[int, str], Known] = Cached(_about, fresh=FRESH, kept=KEPT)
strands: Cached[Page, tuple[list[queries.Strand], int]] = Cached(_strands, fresh=FRESH, kept=KEPT)


def forget(tenant_id: int, queue: str) -> None:
    """Somebody here has changed it, and wants to see that."""
    of_queue.forget((tenant_id, queue))
    about.forget((tenant_id, queue))
    readings.forget(tenant_id)


async def _reading(tenant_id: int, which: statistics.About) -> Reading:
    now = datetime.now(UTC)
    when = Range(now - HOUR, now, 1)
    depths = await statistics.depths(tenant_id, which, limit=MOST)
    by_queue = await statistics.traffic_by_queue(tenant_id, which, when)
    waiting = long_polls.lot().parked_at([depth.id for depth in depths])
    empty = dict.fromkeys(when.points, Traffic())
    standings = [
        _standing(depth, list(by_queue.get(depth.name, empty).values()), when, waiting.get(depth.id, 0))
        for depth in depths
    ]
    minutes = [sum((series[at] for series in by_queue.values()), Traffic()) for at in when.points]
    return Reading(now, when.points, standings, minutes)


def _standing(depth: Depth, minutes: list[Traffic], when: Range, parked: int) -> Standing:
    last = sum(minutes[-2:], Traffic())
    seconds = 60 + (when.end - when.points[-1]).total_seconds()
    return Standing(depth, minutes, last.pushed / seconds, last.completed / seconds, parked)


def series(reading: Reading) -> dict[str, list[Any]]:
    """For the charts: per second in and out, and from push to pop in seconds, at the end of each minute."""
    elapsed = (reading.at - reading.points[-1]).total_seconds()
    spans = [60.0] * (len(reading.points) - 1) + [elapsed]
    shown = list(zip(reading.points, spans, reading.minutes, strict=True))
    if elapsed < YOUNG:
        shown.pop()
    return {
        "at": [int(at.timestamp() + span) for at, span, _ in shown],
        "in": [round(minute.pushed / span, 3) for _, span, minute in shown],
        "out": [round(minute.completed / span, 3) for _, span, minute in shown],
        "lag": [round(minute.average_lag_ms / 1000, 4) if minute.popped else None for *_, minute in shown],
        "worst": [minute.max_lag_ms / 1000 if minute.popped else None for *_, minute in shown],
    }


WIDTH, HEIGHT = 96, 24  # of a sparkline, in its own units


def sparkline(values: list[int]) -> str:
    """Points of an SVG polyline, the highest value at the top."""
    top = max(values, default=0) or 1
    step = WIDTH / max(len(values) - 1, 1)
    return " ".join(f"{n * step:.1f},{HEIGHT - 1 - value / top * (HEIGHT - 2):.1f}" for n, value in enumerate(values))
