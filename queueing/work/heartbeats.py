"""Heartbeats of workers. All drains of a process report with one statement, which also reads the other workers."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from queueing.models import SILENT_AFTER, Worker
from queueing.work.table import SQL, TABLES
from registry.data import database
from registry.data.arrays import Bigints
from registry.data.batching import Batcher
from registry.data.database import Row
from registry.data.loop import PerLoop

log = logging.getLogger(__name__)


class Report(NamedTuple):
    """What a drain reports of its Worker row; see the model."""

    worker: int
    in_flight: int
    processes: int
    places: int
    finished: int
    failed: int


async def report(one: Report) -> list[Row]:
    """Store a heartbeat. Returns id, pool, takes, whether a stop is requested, and whether it reports in time, of every worker."""
    return await _reports.get().submit(one)


async def _write(reports: Sequence[Report]) -> list[list[Row]]:
    columns = {name: Bigints([getattr(one, name) for one in reports]) for name in Report._fields}
    rows = await database.fetch(SQL["beat"], {**columns, "silent": SILENT_AFTER.total_seconds()})
    return [rows] * len(reports)


_reports: PerLoop[Batcher[Report, list[Row]]] = PerLoop(lambda: Batcher(_write, in_flight=1), close=Batcher.finish)


async def reap() -> None:
    """Release the leases of dead workers in all work tables, and delete their Worker rows."""
    silent = [worker.id async for worker in Worker.async_objects.all().silent()]
    if silent:
        for table in TABLES.values():
            await table.release(silent)
        await Worker.async_objects.filter(id__in=silent).adelete()
        log.warning("workers without heartbeat: their leases were released", extra={"workers": silent})
