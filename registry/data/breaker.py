"""Circuit breaker of a processor: after failures in a row only single probes are sent. Routing acts on it.

closed ── FAILURES payments in a row ──► open ── after a pause ──► half open: one probe ──► closed, or open again for longer

A payment that fails repeatedly counts once: the payment may be the cause. Where several tenants share an address, several must
fail: the account of one tenant may be the cause.
"""

import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

FAILURES = 5  # different payments in a row before it opens
FIRST_PAUSE = 0.5  # seconds before the first probe
LONGEST_PAUSE = 5.0  # seconds; the health poll reports within that time anyway
PROBE_LOST_AFTER = 10.0  # seconds after which a lost probe no longer blocks the next
TENANTS_KEPT = 100  # whose failures are counted separately


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
    changed: bool = False  # since it was last saved
    _failed: dict[Hashable, set[Hashable]] = field(default_factory=dict)  # tenant → payments, since the last success

    @property
    def failures(self) -> int:
        """Different payments that failed in a row; at most FAILURES of each tenant count."""
        return sum(map(len, self._failed.values()))

    def allows(self, now: float) -> bool:
        """Whether something may be sent; for an open breaker that is a probe, announced with `probing`."""
        return self.state is State.CLOSED or now >= self.probe_at

    def is_probe(self) -> bool:
        return self.state is not State.CLOSED

    def probing(self, now: float) -> None:
        """A probe is being sent: allow no other until it ends or is lost."""
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
        """An outcome that proves nothing: if it was that of the probe, allow the next one."""
        if self.state is State.HALF_OPEN:
            self.probe_at = now

    def recovered(self, now: float) -> None:
        """The endpoint reports that it is healthy again: probe at once."""
        if self.state is State.OPEN:
            self.probe_at = now

    def shared_by(self, parties: int) -> None:
        """More tenants share the endpoint than known before: close it, the failures may be those of single accounts."""
        if parties > self.parties and 0 < len(self._failed) < parties:
            self._become(State.CLOSED)
        self.parties = parties

    def trip(self, now: float) -> None:
        """Open it by decision of another worker or an operator."""
        if self.state is State.CLOSED:
            self._open(now)

    def reset(self) -> None:
        """Close it by decision of another worker or an operator."""
        self.succeeded()

    def _open(self, now: float) -> None:
        self._become(State.OPEN)
        self.probe_at = now + self.pause * random.uniform(0.8, 1.2)

    def _become(self, state: State) -> None:
        self.changed |= state is not self.state
        self.state = state
