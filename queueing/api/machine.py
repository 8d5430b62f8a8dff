"""Figures of this process and of the whole database, and Prometheus text (queue contract section 1.5)."""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from queueing import spill
from queueing.api.edge import answer, endpoint
from queueing.broker import long_polls, statistics
from queueing.broker.statistics import About, QueueDepth, Range, TrafficCounts
from queueing.models import Worker
from registry.data import clock, database
from registry.edge import status
from registry.edge.handler import lean
from registry.errors import Unauthorized, Unavailable
from registry.tenants import access
from registry.tenants.access import Principal

STARTED = time.monotonic()
DEAD_AT_MOST = 100_000  # dead letters counted for all tenants' gauge
QUEUES_AT_MOST = 1000  # of a tenant that have gauges of their own: each is a permanent time series


# -- For operators ---------------------------------------------------------------------------------------------


@endpoint("read")
async def buffers(_request: HttpRequest, _principal: Principal) -> HttpResponse:
    """All tenants' writes in this process's spill, which wait for PostgreSQL."""
    found = await spill.state()
    return answer(
        {
            "pending": sum(one.records for one in found),
            "failed": sum(one.quarantined for one in found),
            "dbHealthy": all(one.draining for one in found),
            "worker": _worker(),
            "kinds": [
                {
                    "kind": one.kind,
                    "engine": one.engine,
                    "pending": one.records,
                    "bytes": one.bytes,
                    "oldestSeconds": round(one.oldest_seconds, 3),
                    "failed": one.quarantined,
                    "refused": one.refused or None,
                }
                for one in found
            ],
        }
    )


@endpoint("read")
async def system_metrics(_request: HttpRequest, _principal: Principal) -> HttpResponse:
    """CPU, memory and database connections of the process that answers."""
    return answer({"timestamp": clock.now(), "replicas": [{**_worker(), **_process()}]})


@endpoint("read")
async def worker_metrics(_request: HttpRequest, _principal: Principal) -> HttpResponse:
    """The workers that are alive, with the number of items in flight."""
    found = [one async for one in Worker.async_objects.all().alive()]
    return answer(
        {
            "timestamp": clock.now(),
            "workers": [
                {
                    "workerId": str(one.pk),
                    "hostname": one.hostname,
                    "pid": one.pid,
                    "queue": one.queue,
                    "startedAt": one.started_at,
                    "heartbeatAt": one.heartbeat_at,
                    "inFlight": one.in_flight,
                    "capacity": one.capacity,
                    "finished": one.finished,
                    "failed": one.failed,
                }
                for one in found
            ],
        }
    )


@endpoint("read")
async def postgres_stats(_request: HttpRequest, _principal: Principal) -> HttpResponse:
    """PostgreSQL's own counters of this database."""
    return answer({"timestamp": clock.now(), **await statistics.postgres()})


def _worker() -> dict[str, Any]:
    return {"hostname": settings.REGISTRY_HOST, "workerId": str(os.getpid())}


def _process() -> dict[str, Any]:
    use = resource.getrusage(resource.RUSAGE_SELF)
    pool = _pool()
    return {
        "uptimeSeconds": round(time.monotonic() - STARTED, 1),
        "cpu": {"userSeconds": round(use.ru_utime, 3), "systemSeconds": round(use.ru_stime, 3)},
        "memory": {"rssMb": round(use.ru_maxrss / 1024, 1)},  # Linux: the peak, in KiB
        "database": {"poolSize": pool["size"], "poolIdle": pool["idle"], "poolActive": pool["active"]},
        "parkedConsumers": long_polls.parked().count,
    }


def _pool() -> dict[str, int]:
    found = {"pool_size": 0, "pool_available": 0, **database.statistics()}
    size, idle = found["pool_size"], found["pool_available"]
    return {"size": size, "idle": idle, "active": size - idle}


# -- Prometheus ------------------------------------------------------------------------------------------------


@lean
async def prometheus(request: HttpRequest) -> HttpResponse:
    """/metrics and more gauges, under the names that dashboards of this API know.

    Public like /metrics, and without names of tenants or queues; with a key, the gauges of its tenant's queues are added.
    """
    status.only_get(request)
    families = [*await _machine(), *await _queues(await _principal(request))]
    now = CollectorRegistry()
    now.register(status.Now(families))
    text = await status.metrics_text() + generate_latest(now)
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST)


async def _principal(request: HttpRequest) -> Principal | None:
    """The key's principal; None without a key, and while keys cannot be looked up. Raises Unauthorized (401)."""
    try:
        return (await access.authorize(request, "read"))[0]
    except Unavailable:
        return None
    except Unauthorized:
        if request.META.get("HTTP_AUTHORIZATION"):
            raise
        return None


async def _machine() -> list[GaugeMetricFamily]:
    """Gauges of this process and the spill; those of the database are left out while it is away."""
    pool, spilled = _pool(), await spill.state()
    figures = {
        "queen_uptime_seconds": ("Since this process began to serve", time.monotonic() - STARTED),
        "queen_process_resident_memory_bytes": ("The most that this process has held", _most_memory()),
        "queen_db_pool_size": ("Database connections of this process", pool["size"]),
        "queen_db_pool_active": ("Those in use", pool["active"]),
        "queen_db_pool_idle": ("Those not in use", pool["idle"]),
        "queen_file_buffer_pending": ("Writes that wait for PostgreSQL", sum(one.records for one in spilled)),
        "queen_file_buffer_failed": ("Writes set aside", sum(one.quarantined for one in spilled)),
        "queen_file_buffer_db_healthy": (
            "Whether the spill is being drained",
            int(all(one.draining for one in spilled)),
        ),
        "registry_queue_parked_readers": ("Long polls that wait in this process", long_polls.parked().count),
    }
    families = [GaugeMetricFamily(name, text, value=value) for name, (text, value) in figures.items()]
    with suppress(Exception):
        async with asyncio.timeout(status.CHECK_TIMEOUT):
            dead = await statistics.dead_at_most(DEAD_AT_MOST)
        text = f"Dead letters of the message queue, counted up to {DEAD_AT_MOST}"
        families += [
            GaugeMetricFamily(name, text, value=dead) for name in ("queen_dlq_depth", "registry_dead_messages")
        ]
    return families


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux says KiB


_PER_MINUTE = {
    "push_requests": "push_requests", "push_messages": "pushed", "pop_messages": "popped", "pop_empty": "empty_pops",
    "ack": "completed",
}  # fmt: skip


async def _queues(principal: Principal | None) -> list[GaugeMetricFamily]:
    """Gauges of a tenant's queues: depths now, and traffic of the last full minute."""
    if principal is None:
        return []
    try:
        async with asyncio.timeout(status.CHECK_TIMEOUT):
            found = await statistics.depths(principal.tenant_id, limit=QUEUES_AT_MOST)
            end = statistics.floor(clock.now(), 1)
            when = Range(end - timedelta(minutes=1), end, 1)
            series = await statistics.traffic_by_queue(principal.tenant_id, About(), when)
    except Exception:
        return []  # like the gauges of /metrics, they are left out when they cannot be read
    minute = {name: sum(points.values(), TrafficCounts()) for name, points in series.items()}
    waiting = long_polls.parked().count_by_queue([one.id for one in found])
    return [
        _gauge("queen_queue_messages_pending", "Messages that wait", found, lambda one: one.pending),
        _gauge(
            "queen_queue_messages_processing", "Messages handed out under a lease", found, lambda one: one.processing
        ),
        _gauge("queen_dlq_depth_by_queue", "Dead letters", found, lambda one: one.dead),
        _gauge(
            "queen_queue_oldest_seconds",
            "How long the oldest message has waited",
            found,
            lambda one: one.oldest_seconds,
        ),
        _gauge("queen_queue_parked_consumers", "Long polls in this process", found, lambda one: waiting.get(one.id, 0)),
        _gauge(
            "queen_queue_pop_lag_milliseconds",
            "From push to pop, mean of the last full minute",
            found,
            lambda one: minute.get(one.name, TrafficCounts()).average_lag_ms,
        ),
        *(
            _gauge(
                f"queen_queue_{name}_per_minute",
                "In the last full minute",
                found,
                partial(_last_minute, minute, field),
            )
            for name, field in _PER_MINUTE.items()
        ),
    ]


def _last_minute(minute: dict[str, TrafficCounts], field: str, one: QueueDepth) -> float:
    return float(getattr(minute.get(one.name, TrafficCounts()), field))


def _gauge(
    name: str, text: str, queues: Iterable[QueueDepth], figure: Callable[[QueueDepth], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["queue"])
    for one in queues:
        family.add_metric([one.name], figure(one))
    return family
