"""Runs of chores, of all hosts: which are due, which process runs one, and how the latest run of each ended.

A process that decides which chores are due holds the lease CRON; one that runs a chore holds the lease of that chore. Both by
PostgreSQL's clock, so that each chore runs once per interval, whatever the number of hosts and their clocks.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from queueing.work.table import SQL
from registry.data import chores, database, faults
from registry.data.lease import HeldLease, renewing

log = logging.getLogger(__name__)

CRON = "cron"  # the lease of the process that decides which chores are due
RUN_AGAIN_AFTER = (
    60.0  # seconds from the start of a run that ended with its process to the next, if that is not due before
)
RECORD_WITHIN = 5.0  # seconds to record a run: a chore does not fail because of its record
LONGEST = 300  # characters of an error or finding
MISSED = "a chore's run was not recorded"


async def due(names: Iterable[str], *, holder: str = "") -> list[str]:
    """Those of the chores that are due and that no other process than `holder` runs. Raises Unavailable (503)."""
    asked = list(names)
    every = [float(chores.CHORES[name].every) for name in asked]
    parameters = {"names": asked, "every": every, "again": RUN_AGAIN_AFTER, "holder": holder}
    return [name for (name,) in await database.fetch(SQL["due_chores"], parameters, prepare=False)]


@asynccontextmanager
async def claimed(name: str) -> AsyncIterator[bool]:
    """Whether this process is to run the chore: it is due, and no other process runs it while the block runs. Raises Unavailable."""
    lease = HeldLease(f"chore {name}", level=logging.DEBUG)
    async with renewing(lease):
        is_due = bool(await due([name], holder=lease.holder))
        yield is_due and lease.held


async def recorded(name: str) -> None:
    """Run a chore and record it. Raises what the chore raises."""
    await _record("began", name=name)
    try:
        found = await chores.CHORES[name].run()
    except BaseException as error:
        await _record("ended", name=name, error=repr(error)[:LONGEST], found="")
        raise
    await _record("ended", name=name, error="", found=found[:LONGEST] if isinstance(found, str) else "")


async def _record(statement: str, **run: str) -> None:
    try:
        async with asyncio.timeout(RECORD_WITHIN):
            await database.fetch(SQL[statement], run, prepare=False)
    except Exception as error:
        if faults.is_temporary(error):
            faults.warn(log, MISSED, error=error, chore=run["name"])
        else:
            log.warning(MISSED, extra={"chore": run["name"], "error": repr(error)})
