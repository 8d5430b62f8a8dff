"""How fast a processor answers now: by its latest answers, and by how long the sends without an answer have waited.

One slow payment is no slow processor: what counts is what the latest SEVERAL different payments have in common, and where
several accounts share an address, those of two of them. A send says nothing any more once a later one was answered.
"""

import itertools
from collections import deque
from dataclasses import dataclass, field

SEVERAL = 3  # payments in a row that were, or are, at least so slow
OVERDUE_TIMES = 5  # times the usual time without an answer: the processor has become slow
OVERDUE_MS = 100.0  # milliseconds; waiting for less is never overdue: a busy machine of ours takes as long
LOOKED_AT = 50  # sends without an answer, the oldest ones, among which those of several tenants are looked for
USUAL_WEIGHT = 0.2  # of the newest answer in the moving average
FIRST_PAUSE = 0.5  # seconds between probes of a slow processor
LONGEST_PAUSE = 5.0  # seconds

_numbers = itertools.count(1)


@dataclass(slots=True)
class Pace:
    """Times are seconds of the caller's monotonic clock, durations milliseconds."""

    parties: int = 1  # tenants whose payments must say so
    usual_ms: float = 0.0  # moving average of the answers
    measured_at: float = 0.0
    pause: float = FIRST_PAUSE
    probe_at: float = 0.0
    _latest: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SEVERAL))  # milliseconds, tenant
    _unanswered: dict[int, tuple[float, int]] = field(default_factory=dict)  # send → when, tenant; oldest first
    _answered_from: float = float("-inf")  # when the latest of the sends that were answered began

    def sent(self, number: int, tenant: int, now: float) -> None:
        self._unanswered[number] = now, tenant

    def forget(self, number: int) -> None:
        """Its answer says nothing of the pace."""
        self._unanswered.pop(number, None)

    def answered(self, number: int, tenant: int, now: float, ms: float) -> bool:
        """Learn from an answer; whether it shows that the processor is much faster than it was thought to be."""
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
        """What the latest payments took at least; 0 while too little is known."""
        return max(self._common_ms(), self._waiting_ms(now))

    def is_slow(self, patience_ms: float, now: float) -> bool:
        """Whether answers take longer than that, or are missing for much longer than they usually take."""
        waiting = self._waiting_ms(now)
        if waiting > patience_ms or self._common_ms() > patience_ms:
            return True
        return bool(self.usual_ms) and waiting > max(OVERDUE_MS, OVERDUE_TIMES * self.usual_ms)

    def probing(self, now: float) -> None:
        """A probe is on its way: no other for a while, which grows."""
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
    """A name for a send, in this process."""
    return next(_numbers)
