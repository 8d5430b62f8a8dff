"""Asks PostgreSQL for its time again and again, for processes that live long: clocks drift, and the server's may be set."""

import asyncio
import logging
import time
from pathlib import Path

from registry.data import clock, database, db_breaker, faults
from registry.data.loop import PerLoop, background
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "clock.sql")

ASK_EVERY = 30.0  # seconds


class ClockWatch:
    """The questions of one event loop, from its creation to `close`."""

    def __init__(self) -> None:
        self._asking = background(self._ask())

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(ASK_EVERY)
            try:
                await db_breaker.attempt(ask, writes=False)
            except Unavailable:
                pass
            except Exception as error:
                faults.warn(log, "the time of PostgreSQL is unknown", error=error)

    async def close(self) -> None:
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)


async def ask() -> None:
    asked = time.monotonic()
    [(theirs,)] = await database.fetch(SQL["clock"], prepare=False)
    clock.learn(theirs, asked=asked)


watches: PerLoop[ClockWatch] = PerLoop(ClockWatch, close=ClockWatch.close)
