"""Traffic counters of queues: counted in memory and added to each queue's row of the minute every second."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from registry.data import database, faults
from registry.data.arrays import Bigints
from registry.data.loop import PerLoop
from registry.errors import Unavailable
from registry.telemetry import metrics

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "traffic.sql")

FLUSH_EVERY = 1.0  # seconds; counts since the last flush are lost if the process dies
SUMS = (
    "push_requests", "pushed", "pop_requests", "popped", "empty_pops", "ack_requests", "completed", "failed", "buried", "lag_ms",
)  # fmt: skip


def _zeros() -> defaultdict[tuple[int, int], dict[str, int]]:
    return defaultdict(lambda: dict.fromkeys(SUMS, 0))


class _Counts:
    def __init__(self) -> None:
        self.sums = _zeros()
        self.max_lag: dict[tuple[int, int], int] = {}
        self.task: asyncio.Task | None = None

    def add(self, tenant_id: int, queue_id: int, max_lag_ms: int, counts: dict[str, int]) -> None:
        sums = self.sums[tenant_id, queue_id]
        for name, count in counts.items():
            sums[name] += count
        if max_lag_ms > self.max_lag.get((tenant_id, queue_id), 0):
            self.max_lag[tenant_id, queue_id] = max_lag_ms
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        try:
            await asyncio.sleep(FLUSH_EVERY)
        finally:
            self.task = None
        await self.flush()

    async def flush(self) -> None:
        sums, self.sums = self.sums, _zeros()
        max_lag, self.max_lag = self.max_lag, {}
        if not sums:
            return
        _publish(sums.values())
        keys = sorted(sums)
        params = {name: Bigints([sums[key][name] for key in keys]) for name in SUMS}
        params["tenants"], params["queues"] = Bigints([t for t, _ in keys]), Bigints([q for _, q in keys])
        params["max_lag_ms"] = Bigints([max_lag.get(key, 0) for key in keys])
        try:
            await database.fetch(SQL["add"], params, repeatable=False)
        except Unavailable:
            faults.warn(log, "a second of queue statistics was lost with the database")

    async def close(self) -> None:
        """Write the counts since the last flush."""
        if self.task:
            self.task.cancel()
        await self.flush()


_METRICS = (  # counter of Traffic, operation, whether it counts messages, name in the queue contract
    ("push_requests", "push", False, "push_requests"),
    ("pushed", "push", True, "push_messages"),
    ("pop_requests", "pop", False, "pop_requests"),
    ("popped", "pop", True, "pop_messages"),
    ("ack_requests", "ack", False, "ack_requests"),
    ("completed", "ack", True, "ack_messages"),
    ("failed", "nack", True, None),
    ("buried", "bury", True, "dlq"),
)


def _publish(counted: Iterable[dict[str, int]]) -> None:
    """Add to the process's metrics, which have no labels for tenants or queues."""
    counted = list(counted)
    for field, operation, messages, name in _METRICS:
        count = sum(sums[field] for sums in counted)
        (metrics.QUEUE_MESSAGES if messages else metrics.QUEUE_REQUESTS).labels(operation).inc(count)
        if name:
            metrics.QUEEN[name].inc(count)


counts: PerLoop[_Counts] = PerLoop(_Counts, close=_Counts.close)


def count(tenant_id: int, queue_id: int, *, max_lag_ms: int = 0, **counted: int) -> None:
    """Add to a queue's counters; the names are those of Traffic."""
    counts.get().add(tenant_id, queue_id, max_lag_ms, counted)


async def flush() -> None:
    """Write this loop's counts now."""
    await counts.get().flush()
