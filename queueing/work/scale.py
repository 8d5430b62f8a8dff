"""Autoscaling: how many workers are needed (requirement S12), by depth and age of the queues. The supervisor starts and stops them."""

import math
import time

from queueing.work.table import TABLES

ROWS_PER_WORKER = 10_000  # due rows that one worker finishes in a few seconds
PATIENCE = 5.0  # seconds; if the oldest due row waits for longer, one more worker is worth its memory
CALM = (
    30.0  # seconds of low load until the number is lowered, so that bursts do not start and stop workers all the time
)

_busy_at = 0.0
_wanted = 0


async def desired_workers(minimum: int, maximum: int) -> int:
    """A number from `minimum` to `maximum`. It rises at once, and falls after CALM seconds."""
    global _busy_at, _wanted
    depths = [await table.depth() for table in TABLES.values()]
    waiting = sum(depth.waiting for depth in depths)
    oldest = max((depth.oldest for depth in depths), default=0.0)
    needed = math.ceil(waiting / ROWS_PER_WORKER) + (waiting > 0 and oldest > PATIENCE)
    needed = max(minimum, min(maximum, needed))
    if needed >= _wanted:
        _wanted, _busy_at = needed, time.monotonic()
    elif time.monotonic() - _busy_at > CALM:
        _wanted = needed
    return _wanted
