"""Lost attempts: a job whose worker was killed is put off for longer each time, and fails after too many (docs/decisions/034)."""

from pathlib import Path

from queueing.jobs import decisions, events
from queueing.jobs.events import JobChange
from registry.data import database, live
from registry.telemetry import changes, metrics

SQL = database.statements(Path(__file__).parent / "sql" / "lost.sql")


def parameters(workers: list[int]) -> dict[str, object]:
    return {
        "workers": workers,
        "most": decisions.MOST_LOST,
        "waits": list(decisions.LOST_WAITS),
        "jitter": decisions.JITTER,
        "code": decisions.LOST,
        "lost": "the worker of this attempt was lost",
        "given_up": decisions.LOST_TOO_OFTEN,
    }


async def put_off(workers: list[int]) -> None:
    """For jobs of dead workers, before their leases are released. The first loss needs no wait: such a job is left as it is."""
    rows = await database.fetch(SQL["put_off"], parameters(workers))
    lost = [JobChange._make(row) for row in rows]
    changes.record(events.line(change, "running", change.status, change.code) for change in lost)
    live.publish([events.event(change) for change in lost])
    for change in lost:
        metrics.JOBS.labels(change.kind, change.status).inc()
