"""What the service uses at one moment, from /proc, PostgreSQL and Valkey; and how that changes over hours."""

import math
import os
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import redis

from registry.servers.processes import descendants, read_proc
from tests.chaos.service import Service

MIB = 1024 * 1024
ALLOWED = 1.05  # late against early
LITTLE = 0.5  # MiB: a table of one row keeps the pages that it needed while a snapshot was held
# Tables whose rows are written again while they are worked on.
HOT = ("payments_payment", "payments_attempt", "queueing_webhookdelivery", "queueing_job")
# Tables of a few rows that are written again all the time: their dead rows come and go, their size must not grow.
FEW_ROWS = ("payments_stream", "queueing_jobstream", "queueing_worker")
# Children of `up`, by words of their command lines.
PARTS = {
    "web": ("registry.servers.serve",),
    "workers": ("worker", "--slot"),
    "housekeeping": ("worker", "--housekeeping"),
    "cron": ("cron",),
}

_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
_HOT = "SELECT relname, n_dead_tup::float / greatest(n_live_tup, 1) FROM pg_stat_user_tables WHERE relname = ANY(%s)"
_SIZES = "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s)"


class Reading(NamedTuple):
    """`at`: seconds since the traffic began. `values`: by name; each name begins with its kind."""

    at: float
    values: dict[str, float]


def read(service: Service, at: float) -> Reading:
    """Everything, now."""
    values: dict[str, float] = {}
    for part, pids in _parts(service).items():
        values[f"memory of {part}, MiB"] = sum(_private(pid) for pid in pids) / MIB
        values[f"files of {part}"] = sum(_files(pid) for pid in pids)
    with service.connect() as connection:
        [(count,)] = connection.execute(_CONNECTIONS)
        values["connections to PostgreSQL"] = count
        for name, share in connection.execute(_HOT, [list(HOT)]):
            values[f"dead per live rows of {name}"] = share
        for name, size in connection.execute(_SIZES, [list(FEW_ROWS)]):
            values[f"size of {name}, MiB"] = size / MIB
    with redis.Redis.from_url(service.valkey.url) as client:
        values["connections to Valkey"] = client.info("clients")["connected_clients"] - 1
        values["memory of valkey's data, MiB"] = client.info("memory")["used_memory"] / MIB
    return Reading(at, values)


def _parts(service: Service) -> dict[str, list[int]]:
    """Processes by what they do. What workers start comes and goes: it counts as one part."""
    found = {"up": [service.popen.pid], "postgresql": service.postgres.pids(), "valkey": service.valkey.pids()}
    for part, words in PARTS.items():
        found[part] = service.parts(*words)
    found["work"] = [pid for worker in found["workers"] for pid in descendants(worker)]
    return found


def _private(pid: int) -> int:
    """Bytes that no other process shares; 0 for one that has ended."""
    lines = read_proc(pid, "smaps_rollup").decode().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


class Change(NamedTuple):
    """Medians of a value in the first part of what is judged, and in the last."""

    name: str
    early: float
    late: float

    @property
    def ratio(self) -> float:
        if not self.early:
            return math.inf if self.late else 1.0
        return self.late / self.early

    @property
    def flat(self) -> bool:
        return self.ratio <= ALLOWED or ("MiB" in self.name and self.late - self.early <= LITTLE)


def changes(readings: Sequence[Reading], begin: float) -> list[Change]:
    """What changed since `begin` (seconds): the median of the first fifth of the readings against that of the last fifth."""
    judged = [reading for reading in readings if reading.at >= begin]
    share = max(1, len(judged) // 5)
    names = dict.fromkeys(name for reading in judged for name in reading.values)
    return [Change(name, _median(judged[:share], name), _median(judged[-share:], name)) for name in names]


def _median(readings: Sequence[Reading], name: str) -> float:
    return median([reading.values[name] for reading in readings if name in reading.values] or [0.0])
