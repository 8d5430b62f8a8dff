"""The service's clock: PostgreSQL's, as this process knows it. Times that hosts compare with each other's are taken from here.

Each new connection asks the server for its time, and clock_watch.py asks again from time to time. A host whose wall clock agrees uses
that. Where it does not, the monotonic clock counts on from the server's answer, so that a wall clock that is wrong, or is set, changes
nothing. Before the first connection it is the wall clock: also in a process that starts while PostgreSQL is away.
"""

import time
from datetime import UTC, datetime

AGREES = 0.1  # seconds between both clocks: what is due comes so much later at most
STALE = 120.0  # seconds after which any answer replaces the last one, however long it took


class _Known:
    offset: float | None = (
        None  # seconds: the server's time less time.monotonic(); None: the wall clock agrees, or is all we know
    )
    at: float | None = None  # time.monotonic() of the answer
    within = 0.0  # seconds that the question took


def now() -> datetime:
    return datetime.fromtimestamp(timestamp(), UTC)


def timestamp() -> float:
    """Seconds since 1970, as time.time()."""
    return time.time() if _Known.offset is None else time.monotonic() + _Known.offset


def learn(theirs: float, *, asked: float) -> None:
    """The server answered that it is `theirs`, at some moment since `asked` by time.monotonic()."""
    answered, wall = time.monotonic(), time.time()
    took = answered - asked
    if _Known.at is not None and took > _Known.within and answered - _Known.at < STALE:
        return
    agrees = theirs - AGREES <= wall <= theirs + took + AGREES
    # As if it were the moment of the answer: a clock that is ahead of the server's would make what is new due too late.
    _Known.offset, _Known.at, _Known.within = None if agrees else theirs - answered, answered, took
