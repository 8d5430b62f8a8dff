"""The workers of one pool under the supervisor: as many as are wanted, each kept alive."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from registry.servers.child import Keeper, Part

log = logging.getLogger(__name__)

SCALE_EVERY = 2.0  # seconds between two checks of how many workers are wanted
SCALE_LIMIT = 5.0  # seconds for the answer
SHRINK_AFTER = 10.0  # seconds that fewer workers must be wanted before one is stopped: starting one costs a second

Wanted = Callable[[int, int], Awaitable[int]]  # (minimum, maximum) → workers wanted now


@dataclass
class WorkerGroup:
    """From `minimum` to `maximum` workers; `part` gives the command of each by its slot."""

    part: Callable[[int], Part]
    environ: dict[str, str]
    minimum: int
    maximum: int
    wanted: Wanted | None = None
    workers: dict[int, Keeper] = field(default_factory=dict)

    def start(self) -> None:
        self.workers = {slot: Keeper(self.part(slot), self.environ) for slot in range(1, self.minimum + 1)}

    async def scale(self) -> None:
        """Keep as many workers as the queues need. An unknown number changes nothing."""
        enough_since: float | None = None
        while self.wanted:
            await asyncio.sleep(SCALE_EVERY)
            count = await self._ask_wanted()
            have = len([keeper for keeper in self.workers.values() if not keeper.stopping.is_set()])
            if count is None or count >= have:
                enough_since = None
                self._grow((count or 0) - have)
            elif enough_since is None:
                enough_since = time.monotonic()
            elif time.monotonic() - enough_since > SHRINK_AFTER:
                self._shrink()

    async def _ask_wanted(self) -> int | None:
        assert self.wanted
        try:
            async with asyncio.timeout(SCALE_LIMIT):
                count = await self.wanted(self.minimum, self.maximum)
        except Exception as error:  # the database is away: any error may be raised
            log.debug("how many workers are wanted is unknown: %r", error)
            return None
        return min(max(count, self.minimum), self.maximum)

    def _grow(self, by: int) -> None:
        for _ in range(by):
            slot = next(number for number in range(1, len(self.workers) + 2) if number not in self.workers)
            part = self.part(slot)
            log.info("starting %s: the queue is long", part.name)
            self.workers[slot] = Keeper(part, self.environ)

    def _shrink(self) -> None:
        slot = max(slot for slot, keeper in self.workers.items() if not keeper.stopping.is_set())
        log.info("stopping %s: the queue is short", self.part(slot).name)
        leaving = asyncio.create_task(self.workers[slot].stop())
        leaving.add_done_callback(lambda _: self.workers.pop(slot, None))
