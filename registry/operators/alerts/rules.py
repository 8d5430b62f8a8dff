"""Rules of alerts, registered by name. Each app has its own in `alerts.py`, beside `attention.py`.

A rule's name is the anchor of its section in docs/operators/runbook.md, as with sources of attention: where both have the same
name they are one line on the operators' home.

    register(
        AlertRule(
            name="workers.none",
            expression="min(registry_workers_alive) < 1",
            for_=30,
            severity=Severity.CRITICAL,
            scope="service",
            sentence="No worker is alive: accepted payments wait.",
        ),
    )

Expressions are read at import; `expressions.py` has the grammar and its equivalents in PromQL. A metric that does not exist is
found by a test over all rules.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from registry.operators.alerts.expressions import Expression
from registry.operators.attention import Severity

KEEP_FIRING = 30  # seconds that the condition must have been false for a firing alert to be resolved

type Scope = Literal["service", "host"]


class BadRule(ValueError):
    """A rule of an alert contradicts itself or another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """A condition on a metric that must not hold for `for_` seconds. One alert each: of the service, or of each host.

    scope "service": of values in PostgreSQL, which every host reads alike; evaluated once for the service.
    scope "host": of the processes, the disk or the connections of a host; evaluated by one process there, also while PostgreSQL
    is away. Counters (`increase`, `rate`) are counted by the processes of a host: their scope is "host".
    """

    name: str  # such as workers.none
    expression: str
    for_: int  # seconds that the condition must hold before the alert fires; 0: at once
    severity: Severity
    scope: Scope
    sentence: str  # what happened, and what it means; the message adds the value and its labels
    runbook: str = ""  # section of docs/operators/runbook.md; empty: the name
    condition: Expression = field(init=False)  # the parsed expression

    def __post_init__(self) -> None:
        object.__setattr__(self, "condition", Expression.parse(self.expression))
        object.__setattr__(self, "runbook", self.runbook or self.name)
        if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", self.name) or len(self.name) > 60:
            raise BadRule(f"the name of a rule is made of a-z, _ and ., at most 60 characters, not {self.name!r}")
        if self.scope not in ("service", "host"):
            raise BadRule(f"{self.name}: scope is service or host, not {self.scope!r}")
        if self.severity is Severity.WELL:
            raise BadRule(f"{self.name}: severity is CRITICAL, WARNING or NOTICE")
        if self.for_ < 0:
            raise BadRule(f"{self.name}: for_ is a number of seconds, not {self.for_}")
        if self.condition.aggregate.is_of_counters and self.scope != "host":
            raise BadRule(f"{self.name}: counters are counted by the processes of a host: its scope is host")


_rules: dict[str, AlertRule] = {}


def register(*added: AlertRule) -> None:
    """Add rules. Raises BadRule for a name that is taken."""
    for rule in added:
        if rule.name in _rules:
            raise BadRule(f"there are two rules named {rule.name}")
        _rules[rule.name] = rule


def rules(scope: Scope | None = None) -> list[AlertRule]:
    """The registered rules by name; of one scope, or all."""
    return [rule for _, rule in sorted(_rules.items()) if scope in (None, rule.scope)]


def rule_of(name: str) -> AlertRule | None:
    """None for a rule that was removed from the code."""
    return _rules.get(name)
