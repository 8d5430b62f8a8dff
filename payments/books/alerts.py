"""Alerts about the latest proof of the ledger and the roll-ups, and the gauges that they read."""

from prometheus_client.core import GaugeMetricFamily

from payments.books.attention import WRONG, latest_proof
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _gauges() -> list[GaugeMetricFamily]:
    latest = await latest_proof()
    if latest is None:
        return []
    at, _, found = latest
    ledger = sum(found.get(name, 0) for name in WRONG)
    figures = (
        ("registry_ledger_differences", "What the latest proof of the ledger found wrong", ledger),
        ("registry_rollup_differences", "Roll-ups that the same proof found to be wrong", found.get("rollups_off", 0)),
        ("registry_ledger_proof_timestamp_seconds", "When the ledger was proven last", at.timestamp()),
    )
    return [GaugeMetricFamily(name, text, value=value) for name, text, value in figures]


status.gauges.append(_gauges)

register(
    AlertRule(
        name="ledger.proof",
        expression="max(registry_ledger_differences) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="The ledger does not add up, or differs from payments, refunds or disputes: money and records differ.",
    ),
    AlertRule(
        name="rollups.proof",
        expression="max(registry_rollup_differences) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="Roll-ups differ from their payments: summaries and dashboards are wrong, payments and ledger are right.",
    ),
)
