"""An evaluator over real metrics whose clock a test advances, and what a receiver of its messages hears about one rule."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from registry.operators.alerts import rules
from registry.operators.alerts.evaluator import EVERY, AlertEvaluator, Clock
from registry.operators.alerts.rules import KEEP_FIRING, AlertRule
from tests.bed.receiver import Receiver
from tests.registry.alerting import HOST, ElectedAtOnce

GRACE = 10.0  # seconds beyond its own time within which an alert must fire, or be resolved
FIRING, RESOLVED = "firing", "resolved"


class ShiftedClock(Clock):
    """The real time and what the test has added to it. It stands still during an evaluation, which is at `at`."""

    def __init__(self, every: float) -> None:
        self.every = every  # seconds between evaluations
        self._shift = 0.0  # seconds
        self._epoch = time.time() - time.monotonic()
        self.at = time.monotonic() - every

    @property
    def here(self) -> float:
        """The time now, between evaluations."""
        return time.monotonic() + self._shift

    def step(self) -> float:
        """Go on to `every` seconds after the step before, or further where that time has passed; the time then."""
        self._shift += max(0.0, self.at + self.every - self.here)
        self.at = self.here
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at + self._epoch, UTC)

    def monotonic(self) -> float:
        return self.at


@dataclass(frozen=True)
class Seen:
    """A line of the table: within how many seconds of the clock an alert fired and was resolved."""

    trouble: str
    rule: str
    fired: float
    resolved: float

    def __str__(self) -> str:
        return f"{self.trouble:58} {self.rule:24} {self.fired:8.0f} {self.resolved:10.0f}"


SEEN: list[Seen] = []
HEAD = f"{'trouble':58} {'rule':24} {'fired':>8} {'resolved':>10}   (seconds of the evaluator's clock)"


# Rules that no test provokes for real, and why.
ELSEWHERE = {
    "hosts": "wants a second host that dies: tests/hosts/test_hosts.py kills one and reads the metric",
    "database.replication": "wants a second PostgreSQL that replays late: its statement is read in tests/registry/test_attention.py",
    "database.statements": "wants a statement that is refused for a minute: tests/registry/test_faults.py reads the metric",
    "deliveries.failed": "counted by the statement of attention: tests/queueing/test_queue_attention.py",
    "messages.dead": "counted by the statement of attention: tests/queueing/test_queue_attention.py",
    "inbound.dead": "counted by the statement of attention: tests/payments/test_payment_attention.py",
    "refunds.stopped": "counted by the statement of attention: tests/payments/test_payment_attention.py",
    "disputes.due": "counted by the statement of attention: tests/payments/test_payment_attention.py",
    "discrepancies": "counted by the statement of attention: tests/payments/test_payment_attention.py",
}


def declared(name: str, expression: str = "") -> AlertRule:
    """The rule as it is declared, or with another expression."""
    found = rules.rule_of(name)
    assert found
    return replace(found, expression=expression) if expression else found


async def evaluated(evaluator: AlertEvaluator) -> None:
    """One evaluation, with the messages that it sends."""
    await evaluator.evaluate()
    if evaluator._sending:
        await evaluator._sending


class Watch:
    """Evaluates one rule and follows what is told about it. The evaluator of the service sends the stored messages of all hosts."""

    def __init__(self, rule: AlertRule, trouble: str, receiver: Receiver) -> None:
        self.rule, self.trouble, self.receiver = rule, trouble, receiver
        self.clock = ShiftedClock(EVERY[rule.scope])
        host = HOST if rule.scope == "host" else ""
        self.evaluator = AlertEvaluator(rule.scope, host, ElectedAtOnce(), clock=self.clock)
        self.sender = AlertEvaluator("service", "", ElectedAtOnce(), clock=self.clock)
        self.fired = 0.0

    async def tick(self) -> None:
        """One evaluation, at the time that the service would make the next."""
        self.clock.step()
        await evaluated(self.evaluator)
        if self.rule.scope == "host":
            await evaluated(self.sender)

    @property
    def told(self) -> Counter[str]:
        """How many messages said that the alert fires, and that it is resolved."""
        return Counter(
            alert["status"]
            for message in self.receiver.heard
            for alert in message.data["alerts"]
            if alert["rule"] == self.rule.name
        )

    async def is_quiet(self) -> None:
        """Nothing is told before the trouble."""
        await self.tick()
        assert self.told == Counter()

    async def fires(self) -> None:
        """A message says that the alert fires, within the rule's own time."""
        self.fired = await self._until(FIRING, self.rule.for_ + GRACE)

    async def resolves(self) -> None:
        """A message says that it is resolved, once the trouble has left its window; and nothing else was told or is told."""
        resolved = await self._until(RESOLVED, KEEP_FIRING + (self.rule.condition.window or 0) + GRACE)
        await self.tick()
        assert self.told == Counter({FIRING: 1, RESOLVED: 1})
        SEEN.append(Seen(self.trouble, self.rule.name, self.fired, resolved))

    async def _until(self, status: str, limit: float) -> float:
        began = self.clock.here
        while not self.told[status]:
            await self.tick()
            took = self.clock.at - began
            assert took <= limit, f"{self.rule.name} is not {status} after {took:.0f} s"
        return took
