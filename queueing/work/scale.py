"""Autoscaling: how many workers are needed (requirement S12), by depth and age of the queues. The supervisor starts and stops them."""

import math
import time
from collections.abc import Iterable

from queueing.work.table import TABLES, Depth

ROWS_PER_WORKER = 10_000  # due rows that one worker finishes in a few seconds
PATIENCE = 5.0  # seconds; if the oldest due row waits for longer, one more worker is worth its memory
CALM = (
    30.0  # seconds of low load until the number is lowered, so that bursts do not start and stop workers all the time
)


class Scale:
    """The wanted number of workers of one pool, or of the workers of no pool, which do what no pool takes as a whole."""

    def __init__(self, takes: Iterable[str] = (), *, others: Iterable[str] = ()) -> None:
        """`others`: what pools take, for the workers of no pool."""
        self._takes = tuple(takes) or tuple(queue for queue in TABLES if queue not in others)
        self._busy_at = 0.0
        self._wanted = 0

    async def __call__(self, minimum: int, maximum: int) -> int:
        """A number from `minimum` to `maximum`. It rises at once, and falls after CALM seconds."""
        if minimum == maximum:
            return minimum
        depths = [await _depth(one) for one in self._takes]
        waiting = sum(depth.waiting for depth in depths)
        oldest = max((depth.oldest for depth in depths), default=0.0)
        needed = math.ceil(waiting / ROWS_PER_WORKER) + (waiting > 0 and oldest > PATIENCE)
        needed = max(minimum, min(maximum, needed))
        if needed >= self._wanted:
            self._wanted, self._busy_at = needed, time.monotonic()
        elif time.monotonic() - self._busy_at > CALM:
            self._wanted = needed
        return self._wanted


def scale_of(takes: Iterable[str], others: Iterable[str]) -> Scale:
    """For `up`, which knows this function by its name."""
    return Scale(takes, others=others)


async def _depth(taken: str) -> Depth:
    queue, _, part = taken.partition("/")
    table = TABLES[queue]
    return await table.part_depth(part) if part and table.part_depth else await table.depth()
