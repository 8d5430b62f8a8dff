"""Checks for /health and gauges for /metrics: queues and workers."""

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily

from queueing.models import Worker
from queueing.work.table import TABLES
from registry.edge import status


@status.check("workers")
async def _workers() -> str:
    """Of all hosts; on a host of role `worker` its own, since the others have listeners of their own."""
    workers = Worker.async_objects.filter(queue__in=TABLES)  # without web processes that stand in
    if settings.REGISTRY_ROLE == "worker":
        workers = workers.filter(hostname=settings.REGISTRY_HOST)
    alive = await workers.alive().acount()
    if not alive and settings.REGISTRY_ROLE == "worker":
        raise RuntimeError("no worker of this host is alive")
    if not alive:
        raise RuntimeError("no worker is alive; accepted payments wait")
    return f"{alive} alive"


@status.check("queue")
async def _queue() -> str:
    found = {name: await table.standing(None) for name, table in TABLES.items()}
    return "; ".join(f"{name}: {now.due} waiting, oldest {now.due_for or 0:.1f} s" for name, now in found.items())


async def _gauges() -> list[GaugeMetricFamily]:
    depth = GaugeMetricFamily("registry_queue_rows", "Open rows by what they wait for", labels=["queue", "state"])
    age = GaugeMetricFamily("registry_queue_oldest_seconds", "How long the oldest due row has waited", labels=["queue"])
    unfinished = GaugeMetricFamily(
        "registry_queue_unfinished_seconds", "How long ago the oldest unfinished row was accepted", labels=["queue"]
    )
    for name, table in TABLES.items():
        now = await table.standing(None)
        for state, count in (("waiting", now.due), ("leased", now.leased), ("scheduled", now.scheduled)):
            depth.add_metric([name, state], count)
        age.add_metric([name], now.due_for or 0)
        unfinished.add_metric([name], now.accepted_for or 0)
    workers = GaugeMetricFamily("registry_workers", "Drains at work", labels=["queue", "pool"])
    use = GaugeMetricFamily("registry_worker_use_ratio", "Rows in flight against capacity", labels=["queue", "pool"])
    processes = GaugeMetricFamily(
        "registry_worker_process_ratio",
        "Child processes against the places that workers have for them; above 1 tenants that held none got further places",
        labels=["queue", "pool"],
    )
    found = [w async for w in Worker.async_objects.all().alive()]
    for name, pool in sorted({(name, "") for name in TABLES} | {(w.queue, w.pool) for w in found if w.queue in TABLES}):
        mine = [w for w in found if (w.queue, w.pool) == (name, pool)]
        workers.add_metric([name, pool], len(mine))
        capacity = sum(w.capacity for w in mine)
        use.add_metric([name, pool], sum(w.in_flight for w in mine) / capacity if capacity else 0)
        if places := sum(w.places for w in mine):
            processes.add_metric([name, pool], sum(w.processes for w in mine) / places)
    return [depth, age, unfinished, workers, use, processes]


status.gauges.append(_gauges)
