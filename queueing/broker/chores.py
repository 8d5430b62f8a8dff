"""What cron runs for the message queue, by name."""

import logging
from collections.abc import Awaitable, Callable

from queueing.broker import retention
from queueing.work import entry
from registry.data import chores

log = logging.getLogger(__name__)

EVERY = 60  # seconds between evictions and removals by retention
SELDOM = 3600  # seconds between looks for partitions and figures that are old


async def _told(what: str, work: Callable[[], Awaitable[int]]) -> None:
    if removed := await work():
        log.info("removed from the queues", extra={"what": what, "rows": removed})


async def retain() -> None:
    """Messages whose time is over, and those of queues that were dropped."""
    await _told("by age", retention.by_age)
    await _told("completed", retention.completed)
    await _told("evicted", retention.evict)
    await _told("of dropped queues", retention.dropped)


async def tidy() -> None:
    """Empty partitions, figures and traces that are old."""
    await _told("empty partitions", retention.empty_partitions)
    await _told("old figures", retention.old_figures)


entry.CHORES["retain-messages"] = retain
entry.CHORES["tidy-queues"] = tidy
chores.every("retain-messages", EVERY)
chores.every("tidy-queues", SELDOM)
