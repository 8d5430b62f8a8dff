"""What is known of an address where payments are sent: breaker, pace and its own word, for all accounts and for each.

An account that is turned away, or whose payments fail or are slow, is ill by itself; the address is ill once several
payments say so, of two tenants where it is shared. No I/O, and the caller's clock.
"""

from dataclasses import dataclass, field

from payments.processors.base import Account, Health, Outcome
from payments.routing.pace import Pace, next_number
from registry.data.breaker import Breaker, State

SAID_FOR = 20.0  # seconds that a processor's word about itself counts: some polls may go unanswered
SEVERAL_TENANTS = 2  # whose payments must agree before a shared address is called ill or slow


@dataclass(slots=True, kw_only=True)
class Standing:
    """A breaker and a pace: of an address, or of one account there."""

    breaker: Breaker = field(default_factory=Breaker)
    pace: Pace = field(default_factory=Pace)


@dataclass(slots=True)
class Endpoint(Standing):
    """One address, as this worker sees it and as all workers share it."""

    key: str
    failing: bool = False  # as it said, at polled_at
    min_response_ms: int = 0  # as it said, at polled_at
    polled_at: float = float("-inf")
    known_state: State = State.CLOSED  # as the database had it last
    accounts: dict[int, Standing] = field(default_factory=dict)

    def of(self, account: int) -> tuple[Standing, Standing]:
        """What the account goes by: the address as a whole, and its own standing."""
        standing = self.accounts.get(account)
        if standing is None:
            standing = self.accounts[account] = Standing()
        return self, standing

    def is_shared(self) -> None:
        """Several tenants have accounts there."""
        self.breaker.shared_by(SEVERAL_TENANTS)
        self.pace.parties = SEVERAL_TENANTS

    # -- Whether something may be sent, and whether it should be ---------------------------------------------

    def allows(self, account: int, now: float) -> bool:
        return not (self.failing and self._said(now)) and all(s.breaker.allows(now) for s in self.of(account))

    def is_probe(self, account: int) -> bool:
        return any(standing.breaker.is_probe() for standing in self.of(account))

    def admits(self, account: int, now: float) -> bool:
        """`allows`, for whoever then sends: where that is a probe, it is the only one."""
        if not self.allows(account, now):
            return False
        self.probing(account, now)
        return True

    def probing(self, account: int, now: float) -> None:
        for standing in self.of(account):
            if standing.breaker.is_probe():
                standing.breaker.probing(now)

    def expected_ms(self, account: int, now: float) -> float:
        """How long an answer will take: as measured, or as it said of itself more recently if that is longer."""
        return max(self._said_ms(now), *(standing.pace.measured_ms(now) for standing in self.of(account)))

    def is_slow(self, account: Account, now: float) -> bool:
        """Whether an answer would take longer than the tenant's patience, or others are missing for too long."""
        return bool(self._said_ms(now) > account.patience_ms or self._slow(account, now))

    def says_slow(self, account: Account, now: float) -> bool:
        """Whether its own latest word is that it takes longer than the tenant's patience."""
        return self._said(now) and self.min_response_ms > account.patience_ms

    def may_try(self, account: Account, now: float) -> bool:
        """Whether a payment may find out if it is still slow: not while the processor itself says so."""
        if self.says_slow(account, now):
            return False
        return all(standing.pace.probe_at <= now for standing in self._slow(account, now))

    def trying(self, account: Account, now: float) -> None:
        for standing in self._slow(account, now):
            standing.pace.probing(now)

    def _slow(self, account: Account, now: float) -> list[Standing]:
        return [standing for standing in self.of(account.id) if standing.pace.is_slow(account.patience_ms, now)]

    def _said_ms(self, now: float) -> int:
        """What it said, unless answers came since."""
        return self.min_response_ms if self._said(now) and self.polled_at > self.pace.measured_at else 0

    def _said(self, now: float) -> bool:
        return now - self.polled_at < SAID_FOR

    # -- Learning --------------------------------------------------------------------------------------------

    def sent(self, account: Account, now: float) -> int:
        """A payment is on its way; its number is for `answered` or `lost`."""
        number = next_number()
        for standing in self.of(account.id):
            standing.pace.sent(number, account.tenant_id, now)
        return number

    def lost(self, number: int, account: Account) -> None:
        """Its answer says nothing of the pace, or nobody waits for it any more."""
        for standing in self.of(account.id):
            standing.pace.forget(number)

    def answered(
        self, number: int, account: Account, payment: object, outcome: Outcome, *, ms: float, now: float
    ) -> None:
        """Learn from the answer to `sent`; with number 0, from one that says nothing of the pace."""
        if outcome.works:
            self._works(number, account, ms, now)
            return
        self.lost(number, account)
        whole, own = self.of(account.id)
        if outcome.turned_away or not outcome.healthy:
            own.breaker.failed(now, payment=payment, tenant=account.tenant_id)
        else:
            own.breaker.undecided(now)
        if outcome.healthy:
            whole.breaker.undecided(now)
        else:
            whole.breaker.failed(now, payment=payment, tenant=account.tenant_id)

    def _works(self, number: int, account: Account, ms: float, now: float) -> None:
        self.failing = False
        whole, own = self.of(account.id)
        if whole.breaker.is_probe():
            self.closed(now)
        whole.breaker.succeeded()
        own.breaker.succeeded()
        if not number:
            return
        own.pace.answered(number, account.tenant_id, now, ms)
        if whole.pace.answered(
            number, account.tenant_id, now, ms
        ):  # what other accounts have suffered may be over, too
            for standing in self.accounts.values():
                standing.pace.probe_at = now

    def closed(self, now: float) -> None:
        """The address is well again; accounts that are not yet find it out at once."""
        self.breaker.succeeded()
        for standing in self.accounts.values():
            standing.breaker.recovered(now)

    def said(self, health: Health, now: float) -> None:
        """Learn from its health call."""
        standings = (self, *self.accounts.values())
        if self.failing and not health.failing:
            for standing in standings:
                standing.breaker.recovered(now)
        for standing in standings:
            if health.min_response_ms < standing.pace.measured_ms(now):
                standing.pace.probe_at = now
        self.failing, self.min_response_ms, self.polled_at = health.failing, health.min_response_ms, now
