"""A circuit breaker: after some failures in a row nothing is sent, but for single probes. Who acts on it is routing.

closed ── FAILURES payments in a row ──► open ── after a pause ──► half open: one probe ──► closed, or open again for longer

A payment that fails again and again counts once: it may be the payment. Where several tenants share an address, the
failures of one say nothing of the others: it may be the tenant's account.
"""

import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

FAILURES = 5  # different payments in a row before it opens
FIRST_PAUSE = 0.5  # seconds before the first probe
LONGEST_PAUSE = 5.0  # seconds; the health poll tells within that anyway
PROBE_LOST_AFTER = 10.0  # seconds after which a probe that never came back no longer blocks the next
TENANTS_KEPT = 100  # whose failures are told apart


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    """Times are seconds of the caller's monotonic clock."""

    state: State = State.CLOSED
    parties: int = 1  # tenants whose payments must have failed
    pause: float = FIRST_PAUSE
    probe_at: float = 0.0
    changed: bool = False  # since the last look, for whoever writes it down
    _failed: dict[Hashable, set[Hashable]] = field(default_factory=dict)  # tenant → payments, since the last success

    @property
    def failures(self) -> int:
        """Different payments that failed in a row; few of each tenant are counted."""
        return sum(map(len, self._failed.values()))

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
        self.pause = FIRST_PAUSE
        self._failed.clear()
        self._become(State.CLOSED)

    def failed(self, now: float, *, payment: Hashable, tenant: Hashable = 0) -> None:
        if tenant in self._failed or len(self._failed) < TENANTS_KEPT:
            payments = self._failed.setdefault(tenant, set())
            if len(payments) < FAILURES:
                payments.add(payment)
        if self.state is State.HALF_OPEN:
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
            self._open(now)
        elif self.state is State.CLOSED and self.failures >= FAILURES and len(self._failed) >= self.parties:
            self._open(now)

    def undecided(self, now: float) -> None:
        """An answer that says nothing: where it was the probe's, the next one may go."""
        if self.state is State.HALF_OPEN:
            self.probe_at = now

    def recovered(self, now: float) -> None:
        """The endpoint says that it is well again: probe at once instead of waiting out the pause."""
        if self.state is State.OPEN:
            self.probe_at = now

    def shared_by(self, parties: int) -> None:
        """More tenants are there than was known: what those before have suffered may be their own trouble."""
        if parties > self.parties and 0 < len(self._failed) < parties:
            self._become(State.CLOSED)
        self.parties = parties

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
