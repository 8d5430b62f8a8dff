"""A circuit breaker per endpoint: after some failures in a row nothing is sent, but for single probes. Who acts on it is routing.

closed ── FAILURES in a row ──► open ── after a pause ──► half open: one probe ──► closed, or open again for longer
"""

import random
from dataclasses import dataclass
from enum import StrEnum

FAILURES = 5  # in a row before it opens
FIRST_PAUSE = 0.5  # seconds before the first probe
LONGEST_PAUSE = 5.0  # seconds; the health poll tells within that anyway
PROBE_LOST_AFTER = 10.0  # seconds after which a probe that never came back no longer blocks the next


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    """Times are seconds of the caller's monotonic clock."""

    state: State = State.CLOSED
    failures: int = 0
    pause: float = FIRST_PAUSE
    probe_at: float = 0.0
    changed: bool = False  # since the last look, for whoever writes it down

    def allows(self, now: float) -> bool:
        """Whether something may be sent; for an open breaker that is a probe, announced with `probing`."""
        return self.state is State.CLOSED or now >= self.probe_at

    def is_probe(self) -> bool:
        return self.state is not State.CLOSED

    def probing(self, now: float) -> None:
        """A probe is on its way: no other until it is back, or lost."""
        self._become(State.HALF_OPEN)
        self.probe_at = now + PROBE_LOST_AFTER

    def succeeded(self) -> None:
        self.failures, self.pause = 0, FIRST_PAUSE
        self._become(State.CLOSED)

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.state is State.HALF_OPEN:
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
            self._open(now)
        elif self.state is State.CLOSED and self.failures >= FAILURES:
            self._open(now)

    def recovered(self, now: float) -> None:
        """The endpoint says that it is well again: probe at once instead of waiting out the pause."""
        if self.state is State.OPEN:
            self.probe_at = now

    def trip(self, now: float) -> None:
        """Open it from outside: another worker's verdict, or an operator's."""
        if self.state is State.CLOSED:
            self._open(now)

    def reset(self) -> None:
        """Close it from outside."""
        self.succeeded()

    def _open(self, now: float) -> None:
        self._become(State.OPEN)
        self.probe_at = now + self.pause * random.uniform(0.8, 1.2)

    def _become(self, state: State) -> None:
        self.changed |= state is not self.state
        self.state = state
