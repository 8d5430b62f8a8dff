"""Concurrency limits: how many deliveries each endpoint may have in flight. A worker's own memory, from the answers it saw.

A dead endpoint costs the others the slots that its time-outs hold. So all slow endpoints together share a part of the slots,
and each has a few at most.
"""

import time
from collections import deque
from dataclasses import dataclass, field

MOST = 32  # in flight at one endpoint
FIRST = 4  # in flight at an endpoint that is not known yet
SLOW = 1.0  # seconds; an endpoint is slow if its answers take longer, or if it has not answered for that long
SLOW_MOST = 4  # in flight at a slow one
SLOW_TOTAL = 100  # in flight at all slow ones together: a quarter of a drain's capacity
WEIGHT = 0.3  # of the latest answer in the trend
FORGET_AFTER = 600.0  # seconds without a delivery


@dataclass(slots=True)
class EndpointLimit:
    """The limit of one endpoint, and the answers that it rests on."""

    allowed: int = FIRST  # deliveries in flight
    trend: float | None = None  # seconds an answer takes; None: not known yet
    started: deque[float] = field(default_factory=deque)  # when the deliveries in flight began, oldest first
    used_at: float = 0.0

    def is_slow(self, now: float) -> bool:
        return (self.trend or 0.0) > SLOW or (bool(self.started) and now - self.started[0] > SLOW)

    def free(self, now: float) -> int:
        allowed = min(self.allowed, SLOW_MOST) if self.is_slow(now) else self.allowed
        return max(allowed - len(self.started), 0)


class EndpointLimits:
    """The limits of all endpoints that this worker knows, by id."""

    def __init__(self) -> None:
        self._limits: dict[int, EndpointLimit] = {}
        self.full = False  # whether an endpoint was at its limit in the latest `free_by_endpoint`

    def of(self, endpoint: int) -> EndpointLimit:
        return self._limits.setdefault(endpoint, EndpointLimit())

    def expect_failure(self, endpoint: int, seconds: float) -> None:
        """Treat an endpoint that fails at another worker as slow, until it answers quickly."""
        if endpoint not in self._limits:
            self._limits[endpoint] = EndpointLimit(allowed=1, trend=seconds)

    def free_by_endpoint(self) -> dict[int, int]:
        """How many more deliveries each endpoint may have in flight; endpoints that are not in it: FIRST.

        Of slow ones, those that were used longest ago go first.
        """
        now = time.monotonic()
        slow = {key: limit for key, limit in self._limits.items() if limit.is_slow(now)}
        left = SLOW_TOTAL - sum(len(limit.started) for limit in slow.values())
        free = {key: limit.free(now) for key, limit in self._limits.items() if key not in slow}
        for key, limit in sorted(slow.items(), key=lambda pair: pair[1].used_at):
            free[key] = max(min(limit.free(now), left), 0)
            left -= free[key]
        self.full = not all(free.values())
        return free

    def begin(self, endpoint: int) -> None:
        limit, now = self.of(endpoint), time.monotonic()
        limit.started.append(now)
        limit.used_at = now

    def end(self, endpoint: int, *, seconds: float | None = None, good: bool = False) -> None:
        """A delivery ended after `seconds` (None: it never began). A quick success raises the limit, a failure halves it."""
        limit = self.of(endpoint)
        if limit.started:
            limit.started.popleft()
        if seconds is None:
            return
        quick = good and limit.trend is not None and limit.trend > SLOW and seconds < SLOW  # it has recovered
        limit.trend = seconds if limit.trend is None or quick else limit.trend + WEIGHT * (seconds - limit.trend)
        if good and seconds < SLOW:
            limit.allowed = min(limit.allowed + 1, MOST)
        elif not good:
            limit.allowed = max(limit.allowed // 2, 1)

    def forget(self) -> list[int]:
        """Drop endpoints without a delivery for FORGET_AFTER; returns their ids."""
        then = time.monotonic() - FORGET_AFTER
        gone = [key for key, limit in self._limits.items() if not limit.started and limit.used_at < then]
        for key in gone:
            del self._limits[key]
        return gone
