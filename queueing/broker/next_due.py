"""Next due time of groups: when a parked long poll has to look again. Concurrent callers share one query."""

import time
from collections.abc import Sequence

from queueing.broker import long_polls
from queueing.broker.catalog import SQL
from queueing.broker.sources import Source
from registry.data import database
from registry.data.cache import Cached

FRESH = 0.25  # seconds that a result is used without asking again
MISSED = 0.2  # seconds between a claim and this query in which a partition may have become due
LOOK_AGAIN = 0.1  # seconds before a due partition is looked for again: it may be one that the caller does not read
LONG_AGO = float("-inf")

type Groups = tuple[int, tuple[int, ...]]  # tenant, groups


async def next_due(sources: Sequence[Source], woken_at: float) -> tuple[float, int]:
    """Seconds until something (a delay, a lease, a retry) becomes due for these groups, and how many of the groups exist.

    A result from before `woken_at` (time.monotonic()) is not used: there may be newer messages.
    """
    groups = tuple(source.group_id for source in sources)
    due_at, existing = await _due.get((sources[0].tenant_id, groups), since=woken_at)
    return max(LOOK_AGAIN if due_at == LONG_AGO else 0.002, due_at - time.monotonic()), existing


async def _load(key: Groups) -> tuple[float, int]:
    """The due time by time.monotonic(), LONG_AGO where it has passed; and how many of the groups exist."""
    asked_at = time.monotonic()
    seconds, existing = await _ask(*key)
    return asked_at + seconds if seconds > 0 else LONG_AGO, existing


async def _ask(tenant_id: int, groups: tuple[int, ...]) -> tuple[float, int]:
    params = {"tenant": tenant_id, "groups": list(groups), "missed": MISSED}
    seconds, existing = (await database.fetch(SQL["next_due"], params))[0]
    return (long_polls.RECHECK if seconds is None else seconds + 0.001), existing


_due: Cached[Groups, tuple[float, int]] = Cached(_load, fresh=FRESH, stale=FRESH, kept=1_000)
