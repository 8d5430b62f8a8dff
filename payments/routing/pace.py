"""The pace of a processor: how fast it answers now, by its latest answers and by the sends that still wait for one.

One slow payment does not make a processor slow: the fastest of the latest SEVERAL payments counts, and at a shared endpoint these
must be of two tenants. A send without an answer counts no more once a later send was answered.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

SEVERAL = 3  # consecutive payments that were, or are, at least as slow
OVERDUE_TIMES = 5  # multiple of the usual time after which an answer is overdue
OVERDUE_MS = 100.0  # milliseconds; a shorter wait is never overdue: it may be our own load
LOOKED_AT = 50  # of the oldest sends without an answer, among which several tenants must be found
RECENT = 60.0  # seconds; a slow processor is probed several times in it while payments come
USUAL_WEIGHT = 0.2  # of the newest answer in the moving average
FIRST_PAUSE = 0.5  # seconds between probes of a slow processor
LONGEST_PAUSE = 5.0  # seconds

_numbers = itertools.count(1)


@dataclass(slots=True)
class Pace:
    """Times are seconds of the caller's monotonic clock, durations milliseconds."""

    parties: int = 1  # tenants whose payments must agree
    usual_ms: float = 0.0  # moving average of the answers
    measured_at: float = 0.0
    pause: float = FIRST_PAUSE
    probe_at: float = 0.0
    _latest: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SEVERAL))  # milliseconds, tenant
    _unanswered: dict[int, tuple[float, int]] = field(default_factory=dict)  # send → when, tenant; oldest first
    _answered_from: float = float("-inf")  # start of the latest send that was answered

    def sent(self, number: int, tenant: int, now: float) -> None:
        self._unanswered[number] = now, tenant

    def forget(self, number: int) -> None:
        """The send counts no more."""
        self._unanswered.pop(number, None)

    def answered(self, number: int, tenant: int, now: float, ms: float) -> bool:
        """Update from an answer; whether it was much faster than the latest ones."""
        self._unanswered.pop(number, None)
        began = now - ms / 1000
        if began < self._answered_from:  # a later send was answered sooner
            return False
        slow = self._common_ms()
        self._answered_from, self.measured_at = began, now
        self._latest.append((ms, tenant))
        self.usual_ms += (ms - self.usual_ms) * USUAL_WEIGHT if self.usual_ms else ms
        while self._unanswered and (first := next(iter(self._unanswered.items())))[1][0] < began:
            del self._unanswered[first[0]]
        faster = ms < slow / 2
        if faster:
            self.pause = FIRST_PAUSE
        return faster

    def measured_ms(self, now: float) -> float:
        """The minimum response time of the latest payments; 0 while there are too few."""
        return max(self._common_ms(), self._waiting_ms(now))

    def recent_ms(self, now: float) -> float:
        """The same, where it was measured in the last RECENT seconds."""
        return max(self._common_ms() if now - self.measured_at < RECENT else 0.0, self._waiting_ms(now))

    def is_slow(self, patience_ms: float, now: float) -> bool:
        """Whether answers take longer than `patience_ms`, or are overdue."""
        waiting = self._waiting_ms(now)
        if waiting > patience_ms or self._common_ms() > patience_ms:
            return True
        return bool(self.usual_ms) and waiting > max(OVERDUE_MS, OVERDUE_TIMES * self.usual_ms)

    def probing(self, now: float) -> None:
        """A probe was sent: no other for a while, which doubles each time."""
        self.probe_at = now + self.pause
        self.pause = min(self.pause * 2, LONGEST_PAUSE)

    def _common_ms(self) -> float:
        if len(self._latest) < SEVERAL or (
            self.parties > 1 and len({tenant for _, tenant in self._latest}) < self.parties
        ):
            return 0.0
        return min(self._latest)[0]

    def _waiting_ms(self, now: float) -> float:
        if len(self._unanswered) < SEVERAL:
            return 0.0
        tenants: set[int] = set()
        for n, (began, tenant) in enumerate(itertools.islice(self._unanswered.values(), LOOKED_AT), start=1):
            tenants.add(tenant)
            if n >= SEVERAL and len(tenants) >= self.parties:
                return (now - began) * 1000
        return 0.0


def next_number() -> int:
    """The number of a send, unique in this process."""
    return next(_numbers)
