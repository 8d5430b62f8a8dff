"""Runs of chores, recorded for the operators' home: when each last ran, whether it failed, and what a check found wrong."""

import asyncio
import logging

from queueing.work.table import SQL
from registry.data import chores, database, faults

log = logging.getLogger(__name__)

RECORD_WITHIN = 5.0  # seconds to record a run: a chore does not fail because of its record
LONGEST = 300  # characters of an error or finding
MISSED = "a chore's run was not recorded"


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
