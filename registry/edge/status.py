"""The service's own routes: health per dependency, metrics, the OpenAPI document."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection
from functools import cache
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from registry.data import database, db_breaker, faults, reading, redis_health
from registry.data.faults import Fault
from registry.edge import metric_files
from registry.edge.api import api, json_response
from registry.edge.handler import lean
from registry.errors import MethodNotAllowed

CHECK_TIMEOUT = 2.0  # seconds per dependency; a probe must answer while one of them hangs
REFUSED = "registry_database_statement_refused"  # metrics.DB_REFUSED
VERSION = "1.0.0"  # of the contract; the queue's clients expect one

OF_OTHERS = {"web": {"workers"}, "housekeeping": {"workers"}}  # checks that say nothing of a host of this role

type Check = Callable[[], Awaitable[str]]
checks: dict[str, Check] = {}
type Gauge = Callable[[], Awaitable[list[GaugeMetricFamily]]]
gauges: list[Gauge] = []


def check(name: str) -> Callable[[Check], Check]:
    """Register a health check of a dependency. It returns a word on its state, and raises when it is unhealthy."""

    def register(function: Check) -> Check:
        checks[name] = function
        return function

    return register


@check("database")
async def _database() -> str:
    trouble = await db_breaker.trouble()
    if refused := await asyncio.to_thread(_refused_for_long):
        trouble = trouble or f"{Fault.BROKEN.value}: {', '.join(refused)}"
    if trouble:
        raise RuntimeError(trouble)
    return "connected"


def _refused_for_long() -> list[str]:
    """Names of statements that the database has refused for a minute, in any of the processes."""
    families = [one for one in _processes().collect() if one.name == REFUSED]
    return sorted({sample.labels["statement"] for one in families for sample in one.samples if sample.value})


async def gauge_of(name: str) -> dict[str, float]:
    """A gauge with one label, over all processes of this host: by the label's value."""

    def read() -> dict[str, float]:
        samples = [sample for family in _processes().collect() for sample in family.samples if sample.name == name]
        return {next(iter(sample.labels.values()), ""): sample.value for sample in samples}

    return await asyncio.to_thread(read)


@check("redis")
async def _redis() -> str:
    """Check with a write to each server in use. Redis' own messages are not repeated: they name hosts and ports."""
    for use, trouble in (await redis_health.troubles()).items():
        if trouble:
            raise RuntimeError(f"{redis_health.SENTENCES[trouble]} ({use})")
    return "takes writes"


if settings.DATABASE_READ:

    @check("replica")
    async def _replica() -> str:
        """Never unhealthy: everything is read from the primary without it."""
        replica = reading.replicas.get()
        if replica.is_usable():
            return f"shows what was written {replica.age:.1f} s ago"
        return "not in use: everything is read from the primary"


async def _run(function: Check) -> dict[str, str]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT), database.own_connection():
            return {"status": "ok", "detail": await function()}
    except Exception as error:
        fault = faults.of(error)  # the server's own messages name hosts and users
        said = fault.value if fault else str(error)[:200]
        return {"status": "failing", "detail": said or type(error).__name__}


async def _report(*, ready: bool = False) -> HttpResponse:
    """`ready`: without the checks of what other hosts do, since this one can do its part without them."""
    names = [name for name in checks if not ready or name not in OF_OTHERS.get(settings.REGISTRY_ROLE, ())]
    results = await asyncio.gather(*(_run(checks[name]) for name in names))
    well = all(result["status"] == "ok" for result in results)
    found = dict(zip(names, results, strict=True))
    body = {
        "status": "healthy" if well else "unhealthy",
        "checks": found,
        # For clients of the message queue's contract (section 1.5).
        "database": "connected" if found["database"]["status"] == "ok" else "disconnected",
        "server": "registry",
        "worker_id": str(os.getpid()),
        "host": settings.REGISTRY_HOST,
        "role": settings.REGISTRY_ROLE,
        "version": VERSION,
    }
    return json_response(body, status=200 if well else 503, headers={"Cache-Control": "no-store"})


def only_get(request: HttpRequest) -> None:
    """Raises MethodNotAllowed (405)."""
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("allowed: GET", headers={"Allow": "GET, HEAD"})


@lean
async def health(request: HttpRequest) -> HttpResponse:
    """200 when every dependency is healthy, else 503; with the state of each."""
    only_get(request)
    return await _report()


@lean
async def live(request: HttpRequest) -> HttpResponse:
    """200 while the process serves at all."""
    only_get(request)
    return json_response({"status": "alive"}, headers={"Cache-Control": "no-store"})


@lean
async def ready(request: HttpRequest) -> HttpResponse:
    """200 when this host can do its part. A web host accepts payments also while no worker is alive on any other."""
    only_get(request)
    return await _report(ready=True)


# -- Metrics ---------------------------------------------------------------------------------------------


async def _pool_gauges() -> list[GaugeMetricFamily]:
    """Of the process that answers. Callers that wait are counted in every process: metrics.DB_WAITING."""
    statistics = {"pool_size": 0, "pool_available": 0, **database.statistics()}
    return [
        GaugeMetricFamily(f"registry_database_pool_{name}", f"psycopg_pool's {name}", value=value)
        for name, value in statistics.items()
        if name != "requests_waiting"
    ]


gauges.append(_pool_gauges)


async def _redis_gauges() -> list[GaugeMetricFamily]:
    family = GaugeMetricFamily("registry_redis_takes_writes", "1 where Redis does, 0 where not", labels=["use"])
    for use, trouble in (await redis_health.troubles()).items():
        family.add_metric([use], not trouble)
    return [family]


gauges.append(_redis_gauges)


@cache
def _processes() -> CollectorRegistry:
    if not (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
        return REGISTRY
    registry = CollectorRegistry()
    registry.register(metric_files.Processes(Path(folder)))
    return registry


def _counters() -> bytes:
    return generate_latest(_processes())


class Now:
    """A collector of samples that were just read."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self.families = families

    def collect(self) -> list[GaugeMetricFamily]:
        return self.families


@lean
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text: counters of all processes, gauges read from the database at this moment."""
    only_get(request)
    return HttpResponse(await metrics_text(), content_type=CONTENT_TYPE_LATEST)


async def metrics_text() -> bytes:
    """The text of /metrics; gauges that cannot be read now are left out."""
    text = await asyncio.to_thread(_counters)
    for gauge in gauges:
        families = await read_gauge(gauge)
        if families is None:
            continue
        now = CollectorRegistry()
        now.register(Now(families))
        text += generate_latest(now)
    return text


async def read_gauge(gauge: Gauge) -> list[GaugeMetricFamily] | None:
    """What a registered function reads now; None if it fails, or takes longer than CHECK_TIMEOUT."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT), database.own_connection():
            return await gauge()
    except Exception:
        return None


def counted_by_processes(kinds: Collection[str], names: Collection[str]) -> list[Metric]:
    """Metrics of the processes of this host, for callers in a thread: those in files of these kinds (counter, gauge, histogram), or
    without such files those named. It reads less than the whole of /metrics."""
    if not (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")):
        return list(REGISTRY.restricted_registry(names).collect())
    return metric_files.read(Path(folder), kinds)


# -- Description --------------------------------------------------------------------------------------------


@lean
async def openapi(request: HttpRequest) -> HttpResponse:
    """OpenAPI 3.1 of every public route."""
    only_get(request)
    return json_response(api.get_openapi_schema())


# -- Their description in the OpenAPI document -----------------------------------------------------------------------------------


def _describe(path: str, summary: str, kind: str, *, may_fail: bool = False) -> None:
    answers = {"200": {"description": "Healthy", "content": {kind: {}}}}
    if may_fail:
        answers["503"] = {"description": "Something is unhealthy; the body says what", "content": {kind: {}}}
    name = "service" + path.replace("/", "_").replace(".", "_")
    operation = {"tags": ["service"], "operationId": name, "summary": summary, "security": [], "responses": answers}
    api.describe(path, "get", operation)


_describe("/health", "The health of every dependency", "application/json", may_fail=True)
_describe("/health/live", "Whether the process serves at all", "application/json")
_describe("/health/ready", "Whether requests can be served", "application/json", may_fail=True)
_describe("/metrics", "Metrics as Prometheus reads them", "text/plain")
_describe("/openapi.json", "This document", "application/json")


api.add_examples(__file__)
