"""Whether PostgreSQL can be reached: a breaker per event loop, for callers who have somewhere else to turn.

Any of them that waits longer than SUSPECT has the server probed, once for all. If it does not answer, everybody hears so
at once, and nobody waits again until one probe, which goes on beside, finds it back.
"""

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Awaitable, Callable

import psycopg

from registry import database, telemetry
from registry.errors import Unavailable

log = logging.getLogger(__name__)

SUSPECT = 0.25  # seconds that a statement may take before somebody looks whether the server is there
SLOW = 1.0  # seconds between further looks at one that is slow at a server that is there
PROBE_LIMIT = 0.4  # seconds for a connection and an answer; both together leave time to spill within a second
PROBE_STEP = 0.05  # seconds of a step in which that is counted
PROBE_EVERY = 0.2  # seconds between probes while it is away
POOL_LIMIT = 3.0  # seconds for the pool to have a connection again before the probe starts over
AWAY = "the database cannot be reached"


class Reach:
    """What one loop knows of the server."""

    def __init__(self) -> None:
        self.away = False
        self._probing: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def attempt[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work`. Raises Unavailable (503) within SUSPECT + PROBE_LIMIT if the server is away, at once if that is known.

        Work that was under way then may still be committed.
        """
        if self.away:
            raise Unavailable(AWAY)
        task = asyncio.ensure_future(work())
        try:
            await self._wait(task)
        finally:
            if not task.done():
                task.cancel()
        try:
            return task.result()
        except Unavailable:
            await self.is_there()
            raise

    async def _wait(self, task: asyncio.Future) -> None:
        patience = SUSPECT
        while True:
            await asyncio.wait({task}, timeout=patience)
            if task.done():
                return
            if not await self.is_there() and not task.done():
                raise Unavailable(AWAY)
            patience = SLOW

    async def is_there(self) -> bool:
        """One probe for all who ask at the same time; opens the breaker when it fails."""
        if self.away:
            return False
        if self._probing is None:
            self._probing = _alone(_probe())
            self._probing.add_done_callback(self._probed)
        there = await asyncio.shield(self._probing)
        if not there and not self.away:
            self.away = True
            telemetry.DB_ERRORS.labels("away").inc()
            log.warning("the database is away")
            self._watching = _alone(self._watch())
        return there

    def _probed(self, _: asyncio.Task) -> None:
        self._probing = None

    async def _watch(self) -> None:
        while self.away:
            await asyncio.sleep(PROBE_EVERY)
            if await _probe():
                try:
                    async with asyncio.timeout(POOL_LIMIT), database.connection():
                        self.away = False
                except (TimeoutError, Unavailable, psycopg.Error):
                    continue
        log.warning("the database is back")

    async def close(self) -> None:
        tasks = [task for task in (self._probing, self._watching) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _alone[T](work) -> asyncio.Task:
    """A task that inherits nothing: neither a request's connection nor its names in the log."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


async def _probe() -> bool:
    """Whether there is an answer within PROBE_LIMIT, counted in steps of the loop's own time: what a busy loop comes late is
    not the server's."""
    asking = _alone(_ask())
    try:
        for _ in range(round(PROBE_LIMIT / PROBE_STEP)):
            await asyncio.wait({asking}, timeout=PROBE_STEP)
            if asking.done():
                return asking.result()
        return False
    finally:
        asking.cancel()


async def _ask() -> bool:
    """A connection of its own, and an answer on it: the pool's may be of yesterday."""
    parameters = {**database.connection_parameters(), "cursor_factory": psycopg.AsyncCursor}
    conn: psycopg.AsyncConnection | None = None
    try:
        conn = await psycopg.AsyncConnection.connect(**parameters)
        await conn.execute("SELECT 1")
        return True
    except psycopg.errors.TooManyConnections:
        return True
    except (psycopg.Error, OSError):
        return False
    finally:
        if conn:
            await conn.close()


_all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Reach] = weakref.WeakKeyDictionary()


def reach() -> Reach:
    loop = asyncio.get_running_loop()
    found = _all.get(loop)
    if found is None:
        found = _all[loop] = Reach()
    return found


async def attempt[T](work: Callable[[], Awaitable[T]]) -> T:
    """`Reach.attempt` on the running loop."""
    return await reach().attempt(work)


async def close() -> None:
    if found := _all.pop(asyncio.get_running_loop(), None):
        await found.close()
