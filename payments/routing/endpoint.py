"""The state of an endpoint: breaker, pace and reported health, of the endpoint and of each account there.

An account whose payments are refused, fail or are slow is unavailable by itself. The endpoint is unavailable once several
payments show it, of two tenants if it is shared. No I/O; the caller passes the time.
"""

from dataclasses import dataclass, field

from payments.processors.base import Account, Health, Outcome
from payments.routing.pace import Pace, next_number
from registry.data.breaker import Breaker, BreakerState

REPORT_VALID_FOR = 20.0  # seconds that a health report counts: some polls may get no answer
SEVERAL_TENANTS = 2  # whose payments must fail or be slow before a shared endpoint counts as such


@dataclass(slots=True, kw_only=True)
class Condition:
    """The breaker and the pace of an endpoint, or of one account there."""

    breaker: Breaker = field(default_factory=Breaker)
    pace: Pace = field(default_factory=Pace)


@dataclass(slots=True)
class EndpointCondition(Condition):
    """An endpoint, as this worker sees it and as all workers share it."""

    key: str
    failing: bool = False  # by its health report at polled_at
    min_response_ms: int = 0  # by its health report at polled_at
    polled_at: float = float("-inf")
    known_state: BreakerState = BreakerState.CLOSED  # as last read from the database
    accounts: dict[int, Condition] = field(default_factory=dict)

    def of(self, account: int) -> tuple[Condition, Condition]:
        """The conditions that apply to an account: the endpoint's and its own."""
        condition = self.accounts.get(account)
        if condition is None:
            condition = self.accounts[account] = Condition()
        return self, condition

    def mark_shared(self) -> None:
        """Several tenants have accounts here."""
        self.breaker.shared_by(SEVERAL_TENANTS)
        self.pace.parties = SEVERAL_TENANTS

    # -- Availability and speed -----------------------------------------------------------------------------

    def allows(self, account: int, now: float) -> bool:
        return not (self.failing and self._has_report(now)) and all(s.breaker.allows(now) for s in self.of(account))

    def is_probe(self, account: int) -> bool:
        return any(condition.breaker.is_probe() for condition in self.of(account))

    def admits(self, account: int, now: float) -> bool:
        """`allows`, for a caller that sends next: if that is a probe, no other is allowed."""
        if not self.allows(account, now):
            return False
        self.probing(account, now)
        return True

    def probing(self, account: int, now: float) -> None:
        for condition in self.of(account):
            if condition.breaker.is_probe():
                condition.breaker.probing(now)

    def expected_ms(self, account: int, now: float) -> float:
        """How long an answer will take: as measured, or as reported since if that is longer."""
        return max(self._reported_ms(now), *(condition.pace.measured_ms(now) for condition in self.of(account)))

    def recent_ms(self, now: float) -> float:
        """The longest response time measured lately, of the endpoint or of an account there; 0 where nothing was measured."""
        return max(condition.pace.recent_ms(now) for condition in (self, *self.accounts.values()))

    def is_slow(self, account: Account, now: float) -> bool:
        """Whether an answer takes longer than the tenant's patience, or earlier answers are overdue."""
        return bool(self._reported_ms(now) > account.patience_ms or self._slow(account, now))

    def reports_slow(self, account: Account, now: float) -> bool:
        """Whether its health report says that an answer takes longer than the tenant's patience."""
        return self._has_report(now) and self.min_response_ms > account.patience_ms

    def may_try(self, account: Account, now: float) -> bool:
        """Whether a payment may test if it is still slow: not while its health report says so."""
        if self.reports_slow(account, now):
            return False
        return all(condition.pace.probe_at <= now for condition in self._slow(account, now))

    def trying(self, account: Account, now: float) -> None:
        for condition in self._slow(account, now):
            condition.pace.probing(now)

    def _slow(self, account: Account, now: float) -> list[Condition]:
        return [condition for condition in self.of(account.id) if condition.pace.is_slow(account.patience_ms, now)]

    def _reported_ms(self, now: float) -> int:
        """The reported response time, unless it was measured since."""
        return self.min_response_ms if self._has_report(now) and self.polled_at > self.pace.measured_at else 0

    def _has_report(self, now: float) -> bool:
        return now - self.polled_at < REPORT_VALID_FOR

    # -- Learning --------------------------------------------------------------------------------------------

    def sent(self, account: Account, now: float) -> int:
        """A payment is sent; pass the returned number to `answered` or `lost`."""
        number = next_number()
        for condition in self.of(account.id):
            condition.pace.sent(number, account.tenant_id, now)
        return number

    def lost(self, number: int, account: Account) -> None:
        """The send counts no more: it has no answer, or one that says nothing about the pace."""
        for condition in self.of(account.id):
            condition.pace.forget(number)

    def answered(
        self, number: int, account: Account, payment: object, outcome: Outcome, *, ms: float, now: float
    ) -> None:
        """Update from the answer to a send; number 0: the answer says nothing about the pace."""
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
            self.recovered(now)
        whole.breaker.succeeded()
        own.breaker.succeeded()
        if not number:
            return
        own.pace.answered(number, account.tenant_id, now, ms)
        if whole.pace.answered(number, account.tenant_id, now, ms):  # other accounts may be fast again, too
            for condition in self.accounts.values():
                condition.pace.probe_at = now

    def recovered(self, now: float) -> None:
        """Close the endpoint's breaker; accounts with an open breaker may probe at once."""
        self.breaker.succeeded()
        for condition in self.accounts.values():
            condition.breaker.recovered(now)

    def health_reported(self, health: Health, now: float) -> None:
        """Update from a health call."""
        conditions = (self, *self.accounts.values())
        if self.failing and not health.failing:
            for condition in conditions:
                condition.breaker.recovered(now)
        for condition in conditions:
            if health.min_response_ms < condition.pace.measured_ms(now):
                condition.pace.probe_at = now
        self.failing, self.min_response_ms, self.polled_at = health.failing, health.min_response_ms, now
