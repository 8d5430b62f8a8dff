"""A hint to the drains that there is work: sent beside the commit, at once and then not too often. They poll without it."""

import asyncio
import logging

import psycopg

from registry.data import database
from registry.data.loop import PerLoop
from registry.errors import Unavailable

log = logging.getLogger(__name__)

EVERY = 0.02  # seconds: at most that many hints to the drains of a table, however many commits
LAST_HINTS = 1.0  # seconds that a loop's end waits for hints on their way


class Waker:
    """Sends the hint at once, then at most every EVERY; what came meanwhile gets one more."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.wanted = False
        self.task: asyncio.Task | None = None

    def wake(self) -> None:
        self.wanted = True
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self.wanted:
                self.wanted = False
                # On its own: a NOTIFY in the caller's transaction would hold a lock that all share until its fsync is done.
                async with database.connection() as conn:
                    await conn.execute(f"NOTIFY {self.queue}")
                await asyncio.sleep(EVERY)
        except (psycopg.Error, Unavailable) as error:
            log.debug("drains not woken, they look for themselves", extra={"error": repr(error)})
        finally:
            self.task = None


async def _close(of: dict[str, Waker]) -> None:
    """Let the hints on their way arrive."""
    if tasks := [waker.task for waker in of.values() if waker.task]:
        _, late = await asyncio.wait(tasks, timeout=LAST_HINTS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


wakers: PerLoop[dict[str, Waker]] = PerLoop(dict, close=_close)


def wake(queue: str) -> None:
    """Wake the drains of a work table. Never waits, never fails."""
    mine = wakers.get()
    found = mine.get(queue)
    if found is None:
        found = mine[queue] = Waker(queue)
    found.wake()
