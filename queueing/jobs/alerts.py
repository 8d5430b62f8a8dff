"""Alert about jobs that failed for good, and the gauge that it reads."""

from prometheus_client.core import GaugeMetricFamily

from queueing.jobs.attention import failed_jobs
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity


async def _failed() -> list[GaugeMetricFamily]:
    count, *_ = await failed_jobs(None)
    text = "Jobs that failed in every attempt and wait for somebody"
    return [GaugeMetricFamily("registry_jobs_failed", text, value=count)]


status.gauges.append(_failed)

register(
    AlertRule(
        name="jobs.failed",
        expression="max(registry_jobs_failed) > 0",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="Background jobs failed in every attempt: what they had to do is not done.",
    ),
)
