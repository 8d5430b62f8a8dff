"""How many deliveries each endpoint may have in flight. A worker's own memory: what it saw of an endpoint decides, at once.

What a dead endpoint takes from the others is the slots that its time-outs hold. So whoever answers slowly shares a part of
the slots with all that do, and nobody has more than a few.
"""

import time
from collections import deque
from dataclasses import dataclass, field

MOST = 32  # in flight at one endpoint
FIRST = 4  # at one that we know nothing of yet
SLOW = (
    1.0  # seconds; an endpoint whose answers take longer is slow, and so is one that has kept us waiting for that long
)
SLOW_MOST = 4  # in flight at a slow one
SLOW_ROOM = 100  # in flight at all slow ones together: a quarter of a drain's capacity
WEIGHT = 0.3  # of the latest answer in the trend
FORGET_AFTER = 600.0  # seconds without a delivery


@dataclass(slots=True)
class Lane:
    """One endpoint as this worker sees it."""

    room: int = FIRST
    trend: float | None = None  # seconds an answer takes; None: not known yet
    started: deque[float] = field(default_factory=deque)  # when what is in flight was begun, oldest first
    used_at: float = 0.0

    def is_slow(self, now: float) -> bool:
        return (self.trend or 0.0) > SLOW or (bool(self.started) and now - self.started[0] > SLOW)

    def free(self, now: float) -> int:
        room = min(self.room, SLOW_MOST) if self.is_slow(now) else self.room
        return max(room - len(self.started), 0)


class Lanes:
    """All of them, by the endpoint's id."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self.full = False  # whether the latest `rooms` left an endpoint without

    def of(self, endpoint: int) -> Lane:
        return self._lanes.setdefault(endpoint, Lane())

    def expect_failure(self, endpoint: int, seconds: float) -> None:
        """Another worker, or an earlier one, found it failing: it is slow until it shows that it is not."""
        if endpoint not in self._lanes:
            self._lanes[endpoint] = Lane(room=1, trend=seconds)

    def rooms(self) -> dict[int, int]:
        """How many more each may have; endpoints that are not named may have FIRST. Slow ones that waited longest go first."""
        now = time.monotonic()
        slow = {key: lane for key, lane in self._lanes.items() if lane.is_slow(now)}
        left = SLOW_ROOM - sum(len(lane.started) for lane in slow.values())
        rooms = {key: lane.free(now) for key, lane in self._lanes.items() if key not in slow}
        for key, lane in sorted(slow.items(), key=lambda pair: pair[1].used_at):
            rooms[key] = max(min(lane.free(now), left), 0)
            left -= rooms[key]
        self.full = not all(rooms.values())
        return rooms

    def begin(self, endpoint: int) -> None:
        lane, now = self.of(endpoint), time.monotonic()
        lane.started.append(now)
        lane.used_at = now

    def end(self, endpoint: int, *, seconds: float | None = None, good: bool = False) -> None:
        """One is done with, after `seconds` (None: it never began). What goes well and quickly earns more room."""
        lane = self.of(endpoint)
        if lane.started:
            lane.started.popleft()
        if seconds is None:
            return
        quick = good and lane.trend is not None and lane.trend > SLOW and seconds < SLOW  # it is well again
        lane.trend = seconds if lane.trend is None or quick else lane.trend + WEIGHT * (seconds - lane.trend)
        if good and seconds < SLOW:
            lane.room = min(lane.room + 1, MOST)
        elif not good:
            lane.room = max(lane.room // 2, 1)

    def forget(self) -> list[int]:
        """Endpoints that nothing was sent to for a while, not known any more from now on."""
        then = time.monotonic() - FORGET_AFTER
        gone = [key for key, lane in self._lanes.items() if not lane.started and lane.used_at < then]
        for key in gone:
            del self._lanes[key]
        return gone
