"""How many workers the work needs (requirement S12): by depth and by age. The supervisor starts and stops them."""

import math
import time

from queueing.work.table import TABLES

ROWS_PER_WORKER = 10_000  # waiting rows that one worker is expected to clear in a few seconds
PATIENCE = 5.0  # seconds that the oldest due row may wait before one more worker is worth its memory
CALM = 30.0  # seconds of little work before a worker is let go, so that bursts do not make them come and go

_busy_at = 0.0
_wanted = 0


async def desired_workers(minimum: int, maximum: int) -> int:
    """Between `minimum` and `maximum`: up at once, down after CALM seconds."""
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
