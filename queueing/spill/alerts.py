"""Alerts about the spill of a host. Its gauges are in health.py and state.py."""

from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity

register(
    AlertRule(
        name="spill.waiting",
        expression="sum(registry_spill_records) > 0",
        for_=30,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="Accepted writes have waited in the spill of this host for half a minute. PostgreSQL does not have them yet.",
    ),
    AlertRule(
        name="spill.refuses",
        expression="max(registry_spill_refuses) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="The spill of this host refuses writes, as PostgreSQL does: payments are answered 503.",
    ),
    AlertRule(
        name="spill.set_aside",
        expression="sum(registry_spill_set_aside) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="Writes that were accepted with 202 were set aside by the spill: PostgreSQL refuses them, they are not stored.",
    ),
)
