"""Alerts about queues, workers, chores and the audit trail, and the gauges that they read besides those of health.py."""

from prometheus_client.core import GaugeMetricFamily

from queueing.work.attention import is_failing, latest_runs, overdue_since, reporting
from queueing.work.table import TABLES
from registry.data.chores import CHORES
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _alive() -> list[GaugeMetricFamily]:
    """Of all pools and hosts together, unlike registry_workers: a queue is served while one worker of any pool takes it."""
    counts = dict.fromkeys(TABLES, 0)
    silent = 0
    for queue, _, reports, missing, *_ in await reporting():
        silent += missing
        if queue in counts:  # others are web processes that stand in
            counts[queue] += reports
    alive = GaugeMetricFamily("registry_workers_alive", "Workers that report, by queue", labels=["queue"])
    for queue, count in counts.items():
        alive.add_metric([queue], count)
    return [alive, GaugeMetricFamily("registry_workers_silent", "Workers that stopped reporting", value=silent)]


async def _chores() -> list[GaugeMetricFamily]:
    runs = await latest_runs()
    family = GaugeMetricFamily("registry_chores", "Periodic tasks in trouble", labels=["trouble"])
    family.add_metric(["failing"], sum(is_failing(name, runs) for name in CHORES))
    family.add_metric(["overdue"], sum(overdue_since(name, runs) is not None for name in CHORES))
    broken = bool(run[5]) if (run := runs.get("prove-audit")) else False
    text = "1 where the latest verification found the audit trail changed, 0 where not"
    return [family, GaugeMetricFamily("registry_audit_broken", text, value=broken)]


status.gauges += [_alive, _chores]

register(
    AlertRule(
        name="workers",
        expression="min(registry_workers_alive) < 1",
        for_=30,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="No worker is alive for a queue: what was accepted there waits.",
    ),
    AlertRule(
        name="queues",
        expression="max(registry_queue_oldest_seconds) > 60",
        for_=30,
        severity=Severity.WARNING,
        scope="service",
        sentence="A payment or another row of a queue has been due for more than a minute, and no worker took it.",
    ),
    AlertRule(
        name="queues.stuck",
        expression="max(registry_queue_oldest_seconds) > 300",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="A payment or another row of a queue has been due for more than five minutes, and no worker took it.",
        runbook="queues",
    ),
    AlertRule(
        name="queues.unfinished",
        expression='max(registry_queue_unfinished_seconds{queue="payments"}) > 600',
        for_=30,  # an old one that is tried once more, such as a dead letter, is over within seconds
        severity=Severity.WARNING,
        scope="service",
        sentence="A payment was accepted more than ten minutes ago and is not settled.",
        runbook="queues",
    ),
    AlertRule(
        name="workers.processes",
        expression="max(registry_worker_process_ratio) >= 1",
        for_=1800,
        severity=Severity.NOTICE,
        scope="service",
        sentence="All places for child processes have been taken for half an hour: jobs that run in one wait for others to end.",
    ),
    AlertRule(
        name="chores",
        expression="sum(registry_chores) > 0",
        for_=60,
        severity=Severity.WARNING,
        scope="service",
        sentence="A periodic task fails, or has not run for two of its intervals.",
    ),
    AlertRule(
        name="audit.proof",
        expression="max(registry_audit_broken) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="The audit trail was changed in the database: an entry is missing or differs from its digest.",
    ),
)
