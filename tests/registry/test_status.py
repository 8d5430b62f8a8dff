"""Health per dependency, and the metrics of requirement O1, from all processes and without a tenant's name."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from django.utils import timezone

from payments.models import Difference, Endpoint
from payments.states import FAILED
from queueing.work import table
from registry.data import redis_health
from registry.edge import status
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_dead_letter, make_payment, make_processor
from tests.servers import unreachable


async def report(api: Api, path: str) -> tuple[int, dict]:
    async with api.get(path) as response:
        return response.status, await response.json()


@pytest.fixture
async def working(worker) -> AsyncIterator[None]:
    """A worker that is on the books."""
    await eventually(lambda: worker.worker_id)
    yield


# -- Health ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_with_everything_well_every_dependency_is_named_and_ok(api: Api, working, path: str):
    code, body = await report(api, path)

    assert (code, body["status"]) == (200, "healthy")
    assert {name: check["status"] for name, check in body["checks"].items()} == dict.fromkeys(
        ("database", "redis", "workers", "queue", "spill"), "ok"
    )


async def test_without_redis_health_is_503_and_names_redis_alone(api: Api, working, monkeypatch):
    monkeypatch.setattr(redis_health.settings, "REDIS_URL", "redis://:hush@127.0.0.1:1/0")

    code, body = await report(api, "/health/ready")

    assert code == 503
    assert failing(body) == {"redis"}
    assert "hush" not in str(body)
    assert "127.0.0.1" not in str(body)


async def test_without_the_database_health_is_503_and_names_everything_that_needs_it(api: Api):
    async with unreachable():
        code, body = await report(api, "/health/ready")

    assert code == 503
    assert failing(body) == {"database", "workers", "queue"}
    assert "password" not in str(body)


async def test_without_a_worker_health_is_503_and_names_the_workers(api: Api):
    code, body = await report(api, "/health/ready")

    assert code == 503
    assert failing(body) == {"workers"}


async def test_health_is_503_and_names_a_queue_that_cannot_be_read(api: Api, working, monkeypatch):
    async def unreadable(self: table.WorkTable, tenants: None) -> None:
        raise RuntimeError("no such table")

    monkeypatch.setattr(table.WorkTable, "standing", unreadable)

    code, body = await report(api, "/health")

    assert (code, failing(body)) == (503, {"queue"})


async def test_a_hanging_dependency_does_not_block_the_health_check(api: Api, working, monkeypatch):
    monkeypatch.setattr(status, "CHECK_TIMEOUT", 0.2)
    monkeypatch.setitem(status.checks, "redis", lambda: asyncio.Event().wait())

    async with asyncio.timeout(2):
        code, body = await report(api, "/health")

    assert (code, failing(body)) == (503, {"redis"})


async def test_the_process_is_alive_during_an_outage_of_everything_else(api: Api, monkeypatch):
    monkeypatch.setattr(redis_health.settings, "REDIS_URL", "redis://127.0.0.1:1/0")

    async with unreachable():
        code, body = await report(api, "/health/live")

    assert (code, body) == (200, {"status": "alive"})


def failing(body: dict) -> set[str]:
    return {name for name, check in body["checks"].items() if check["status"] != "ok"}


# -- Metrics -----------------------------------------------------------------------------------------------------


async def samples(api: Api) -> dict[str, float]:
    """Every sample of /metrics by its name with labels."""
    async with api.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


REQUIREMENT = {
    "depth": [
        'registry_queue_rows{queue="payments",state="waiting"}',
        'registry_queue_rows{queue="payments",state="leased"}',
    ],
    "age": ['registry_queue_oldest_seconds{queue="payments"}'],
    "processing time": [
        'registry_processor_seconds_count{kind="sandbox",outcome="booked"}',
        "registry_settle_commit_seconds_count",
    ],
    "success rate": [
        'registry_payments_settled_total{outcome="succeeded"}',
        'registry_payments_accepted_total{outcome="new"}',
    ],
    "worker use": ['registry_worker_use_ratio{pool="",queue="payments"}', 'registry_workers{pool="",queue="payments"}'],
    "pool use": [
        "registry_database_pool_pool_size",
        "registry_database_pool_pool_available",
        "registry_database_pool_requests_waiting",
    ],
    "breaker state": [
        'registry_breakers{kind="sandbox",state="closed"}',
        'registry_breakers{kind="sandbox",state="open"}',
    ],
    "latency": ["registry_received_to_settled_seconds_count", 'registry_received_to_settled_seconds_bucket{le="0.1"}'],
    "requests": ['registry_http_requests_total{method="POST",status="202"}'],
    "sockets": ["registry_live_sockets", "registry_live_events_total", "registry_live_sockets_dropped_total"],
}


async def test_every_metric_of_the_requirement_is_there_once_a_payment_has_settled(api: Api, tenant):
    processor = await in_thread(make_processor, tenant, "default", options={"delay": 0})
    await in_thread(Endpoint.objects.create, key=processor.endpoint)
    async with at_work():
        await api.until((await api.pay())["correlationId"], "succeeded")
        found = await samples(api)
    await in_thread(Endpoint.objects.all().delete)

    assert [name for names in REQUIREMENT.values() for name in names if name not in found] == []
    assert found['registry_workers{pool="",queue="payments"}'] == 1
    assert found['registry_breakers{kind="sandbox",state="closed"}'] >= 1


async def test_counters_count(api: Api):
    before = await samples(api)

    await api.pay()
    await api.pay()

    after = await samples(api)
    name = 'registry_payments_accepted_total{outcome="new"}'
    assert after[name] - before.get(name, 0) == 2
    assert after['registry_queue_rows{queue="payments",state="waiting"}'] == 2


async def test_open_dead_letters_are_counted_and_resolved_ones_are_not(api: Api, tenant):
    payment = await in_thread(make_payment, tenant, status=FAILED)
    await in_thread(make_dead_letter, payment)
    await in_thread(make_dead_letter, payment)
    await in_thread(make_dead_letter, payment, resolution="closed")

    found = await samples(api)

    assert found['registry_dead_letters{status="failed"}'] == 2


async def test_open_differences_of_reconciliation_are_counted_by_kind(api: Api, tenant):
    processor = await in_thread(make_processor, tenant)

    def differ(key: str, resolution: str = "") -> None:
        Difference.objects.create(
            tenant=tenant,
            processor=processor,
            kind="amount",
            key=key,
            requested_at=timezone.now(),
            resolution=resolution,
        )

    await in_thread(differ, "a")
    await in_thread(differ, "b", "closed")

    found = await samples(api)

    assert found['registry_open_differences{kind="amount"}'] == 1
    assert found['registry_open_differences{kind="duplicate"}'] == 0


async def test_no_tenant_processor_payment_or_key_is_named_in_the_metrics(api: Api, tenant, default):
    async with at_work():
        payment = await api.pay()
        await api.until(payment["correlationId"], "succeeded")
        await eventually(lambda: default.booked)
        async with api.get("/metrics") as response:
            text = await response.text()

    for name in (tenant.slug, payment["correlationId"], api.key, api.key.split("_")[1], default.url, 'name="default"'):
        assert name not in text


async def test_the_metrics_are_served_while_the_database_is_unavailable(api: Api):
    async with unreachable():
        found = await samples(api)

    assert any(name.startswith("registry_http_requests_total") for name in found)
    assert not any(name.startswith("registry_queue_rows") for name in found)


@pytest.fixture
def shared_folder(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    status._processes.cache_clear()
    yield tmp_path
    status._processes.cache_clear()


async def test_with_several_processes_the_metrics_are_the_sum_of_all(api: Api, shared_folder: Path):
    script = "from registry.telemetry import metrics; metrics.SETTLED.labels('succeeded').inc(5); metrics.LIVE_SOCKETS.set(3)"
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [await asyncio.to_thread(one.wait) for one in both] == [0, 0]

    found = await samples(api)

    assert found['registry_payments_settled_total{outcome="succeeded"}'] == 10
    assert found["registry_live_sockets"] == 6
