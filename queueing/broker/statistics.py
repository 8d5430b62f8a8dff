"""Statistics of a tenant's queues: depths from numbers that partitions and consumers carry, traffic from sums per minute."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker.ids import public_partition_id
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "statistics.sql")

BUCKETS = (1, 5, 15, 60, 360)  # minutes; the smallest one that gives at most POINTS buckets is used
POINTS = 240
LONGEST = timedelta(days=366)
ALL = 100_000  # queues of one tenant at most in one answer


class Range(msgspec.Struct, frozen=True):
    """A range of time in buckets of `minutes`, from the first bucket that it touches to the last."""

    start: datetime
    end: datetime
    minutes: int

    @property
    def points(self) -> list[datetime]:
        step = timedelta(minutes=self.minutes)
        first = floor(self.start, self.minutes)
        return [first + n * step for n in range(-(-(self.end - first) // step))]


class About(msgspec.Struct, frozen=True):
    """About of queues; "" means any."""

    queue: str = ""
    namespace: str = ""
    task: str = ""


ANY = About()


class QueueDepth(msgspec.Struct, frozen=True):
    """Depth of a queue: its messages by status, and how long the oldest has waited."""

    id: int
    name: str
    namespace: str
    task: str
    created_at: datetime
    retention_enabled: bool
    retention_seconds: int
    completed_retention_seconds: int
    max_wait_seconds: int
    partitions: int
    total: int
    removed: int
    last_at: datetime | None
    pending: int
    processing: int
    leases: int
    leased_partitions: int
    handed_out: int
    dead: int
    oldest_seconds: float
    groups: int
    lagging_partitions: int
    average_seconds: float  # over partitions with waiting messages


class TrafficCounts(msgspec.Struct, frozen=True):
    """Traffic in one bucket; the names are those of the table."""

    push_requests: int = 0
    pushed: int = 0
    pop_requests: int = 0
    popped: int = 0
    empty_pops: int = 0
    ack_requests: int = 0
    completed: int = 0
    failed: int = 0
    buried: int = 0
    lag_ms: int = 0  # sum over popped messages
    max_lag_ms: int = 0

    def __add__(self, other: "TrafficCounts") -> "TrafficCounts":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return TrafficCounts(**{**sums, "max_lag_ms": max(self.max_lag_ms, other.max_lag_ms)})

    @property
    def average_lag_ms(self) -> float:
        return round(self.lag_ms / self.popped, 3) if self.popped else 0.0


NOTHING = TrafficCounts()


class PartitionDepth(msgspec.Struct, frozen=True, rename="camel"):
    """Depth of a partition."""

    id: str
    name: str
    created_at: datetime
    last_activity: datetime
    messages: dict[str, int]


class MessageHead(msgspec.Struct, frozen=True, rename="camel"):
    """A message without its payload."""

    id: UUID
    transaction_id: str
    trace_id: UUID | None
    producer_sub: str | None
    created_at: datetime
    partition_id: str
    partition: str


def floor(at: datetime, minutes: int) -> datetime:
    """Start of the bucket that contains `at`. Buckets are counted from 1970, as in the statement `traffic`."""
    seconds = minutes * 60
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def bucket_of(span: timedelta) -> int:
    """Minutes per bucket for a range of this length."""
    return next((m for m in BUCKETS if span <= timedelta(minutes=m * POINTS)), BUCKETS[-1])


async def depths(tenant_id: int, about: About = ANY, *, limit: int = ALL, offset: int = 0) -> list[QueueDepth]:
    """Depths of the tenant's queues, by name."""
    params = {"tenant": tenant_id, **msgspec.structs.asdict(about), "limit": limit, "offset": offset}
    return [QueueDepth(*row) for row in await database.fetch(SQL["depths"], params)]


async def count_queues(tenant_id: int, about: About = ANY) -> int:
    params = {"tenant": tenant_id, "namespace": about.namespace, "task": about.task}
    return int((await database.fetch(SQL["count_queues"], params))[0][0])


async def traffic(tenant_id: int, about: About, when: Range) -> dict[datetime, TrafficCounts]:
    """Traffic of these queues together, for every bucket of the range."""
    found = (await _traffic(tenant_id, about, when, apart=False)).get("", {})
    return {point: found.get(point, NOTHING) for point in when.points}


async def traffic_by_queue(tenant_id: int, about: About, when: Range) -> dict[str, dict[datetime, TrafficCounts]]:
    """Traffic of each of these queues; those without traffic are left out."""
    found = await _traffic(tenant_id, about, when, apart=True)
    return {name: {p: series.get(p, NOTHING) for p in when.points} for name, series in found.items()}


async def _traffic(
    tenant_id: int, about: About, when: Range, *, apart: bool
) -> dict[str, dict[datetime, TrafficCounts]]:
    params = {
        "tenant": tenant_id,
        **msgspec.structs.asdict(about),
        "from": floor(when.start, when.minutes),
        "to": when.end,
        "minutes": when.minutes,
        "apart": apart,
    }
    found: dict[str, dict[datetime, TrafficCounts]] = {}
    for name, bucket, *sums in await database.fetch(SQL["traffic"], params):
        found.setdefault(name, {})[bucket.astimezone(UTC)] = TrafficCounts(*sums)
    return found


async def partitions(tenant_id: int, queue: str, *, limit: int, offset: int = 0) -> list[PartitionDepth]:
    """Depths of a queue's partitions, by name."""
    params = {"tenant": tenant_id, "queue": queue, "limit": limit, "offset": offset}
    return [
        PartitionDepth(
            public_partition_id(tenant_id, number),
            name,
            created_at,
            last_at,
            {"total": total, "pending": max(waiting - out, 0), "processing": out, "removed": removed},
        )
        for number, name, created_at, last_at, total, removed, waiting, out in await database.fetch(
            SQL["partitions"], params
        )
    ]


async def newest(tenant_id: int, queue: str, limit: int) -> list[MessageHead]:
    """A queue's newest messages, newest first."""
    rows = await database.fetch(SQL["newest"], {"tenant": tenant_id, "queue": queue, "limit": limit})
    return [MessageHead(*row) for row in ((*row[:5], public_partition_id(tenant_id, row[5]), row[6]) for row in rows)]


# -- The whole database, for operators ---------------------------------------------------------------------------

_DATABASE = (
    "connections", "commits", "rollbacks", "blocksRead", "blocksHit", "rowsInserted", "rowsUpdated", "rowsDeleted",
    "deadlocks", "temporaryBytes", "bytes", "since",
)  # fmt: skip
_TABLE = (
    "name", "bytes", "liveRows", "deadRows", "inserted", "updated", "updatedInPlace", "deleted", "sequentialScans",
    "indexScans", "lastVacuum", "lastAnalyze",
)  # fmt: skip


async def postgres() -> dict[str, Any]:
    """PostgreSQL's own statistics of this database and of the queue's tables."""
    about = dict(zip(_DATABASE, (await database.fetch(SQL["database"]))[0], strict=True))
    read = about["blocksRead"] + about["blocksHit"]
    about["cacheHitRatio"] = round(about["blocksHit"] / read, 4) if read else None
    tables = [dict(zip(_TABLE, row, strict=True)) for row in await database.fetch(SQL["tables"], {})]
    return {"database": about, "tables": tables}


async def dead_at_most(most: int) -> int:
    """Number of open dead letters of all tenants, counted up to `most`."""
    return int((await database.fetch(SQL["dead_at_most"], {"most": most}))[0][0])
