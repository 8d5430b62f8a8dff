"""Status, analytics and metrics over HTTP: correct figures per tenant, at low cost; figures of the machine need the admin scope."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from django.conf import settings

from queueing.broker import statistics, traffic
from queueing.broker.statistics import Range
from registry.data import database
from tests.conftest import Api, eventually, make_key
from tests.queueing.mq import Mq
from tests.servers import unreachable

STATUS = "/api/v1/status"
ANALYTICS = "/api/v1/analytics"


@pytest.fixture
async def admin(server: str, tenant) -> Mq:
    """A program of `tenant` whose key may do everything."""
    async with Api(server, await make_key(tenant, "admin")) as api:
        yield Mq(api, tenant.pk)


async def work(mq: Mq, queue: str) -> None:
    """Five pushed over two partitions: one done, two under lease, one dead, one waiting."""
    await mq.push(queue, 1, 2, 3, partition="a")
    await mq.push(queue, 4, 5, partition="b")
    [done] = (await mq.pop(queue, "b"))["messages"]
    await mq.ack(done)
    [dead] = (await mq.pop(queue, "b"))["messages"]
    await mq.ack(dead, "dlq")
    await mq.pop(queue, "a", batch=2)
    await traffic.flush()


# -- Status ---------------------------------------------------------------------------------------------------


async def test_the_status_counts_messages_by_state(mq: Mq, queue: str):
    await work(mq, queue)

    said = await mq.call("GET", STATUS, status=200)

    messages = said["messages"]
    assert (messages["total"], messages["pending"], messages["processing"], messages["deadLetter"]) == (5, 1, 2, 1)
    assert (messages["ingested"], messages["processed"]) == (5, 1)
    assert messages["requests"] == {"push": 2, "pop": 3, "ack": 2}
    assert messages["batchEfficiency"]["push"] == 2.5
    assert said["leases"] == {"active": 1, "partitionsWithLeases": 1, "totalBatchSize": 2, "totalAcked": 1}
    assert said["deadLetterQueue"]["byQueue"] == [{"queue": queue, "count": 1}]
    assert said["errors"]["dlqMessages"] == 1


async def test_throughput_is_summed_by_minute_and_empty_minutes_are_there(mq: Mq, queue: str):
    await work(mq, queue)

    said = await mq.call("GET", STATUS, status=200)

    buckets = said["throughput"]
    assert said["bucketMinutes"] == 1
    assert said["pointCount"] == len(buckets) in (60, 61)
    assert sum(bucket["ingested"] for bucket in buckets) == 5
    assert sum(bucket["popMessages"] for bucket in buckets) == 4
    assert buckets[0]["ingested"] == 0
    times = [datetime.fromisoformat(bucket["timestamp"]) for bucket in buckets]
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(minutes=1)}


@pytest.mark.parametrize(
    ("hours", "minutes"), [(1, 1), (4, 1), (5, 5), (20, 5), (21, 15), (60, 15), (61, 60), (240, 60), (241, 360)]
)
async def test_longer_ranges_have_wider_buckets_that_lose_nothing(mq: Mq, queue: str, hours: int, minutes: int):
    await work(mq, queue)
    start = datetime.now(UTC) - timedelta(hours=hours) + timedelta(seconds=30)

    said = await mq.call("GET", STATUS, params={"from": start.isoformat()}, status=200)

    assert said["bucketMinutes"] == minutes
    assert sum(bucket["ingested"] for bucket in said["throughput"]) == 5
    assert sum(bucket["processed"] for bucket in said["throughput"]) == 1


async def test_a_range_is_from_its_first_minute_to_its_last(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await traffic.flush()
    await mq.sql("UPDATE queueing_traffic SET minute = '2026-01-02 10:00Z'")

    async def ingested(start: str, end: str) -> int:
        said = await mq.call("GET", STATUS, params={"from": start, "to": end}, status=200)
        return sum(bucket["ingested"] for bucket in said["throughput"])

    assert await ingested("2026-01-02T10:00:30Z", "2026-01-02T10:10:00Z") == 1
    assert await ingested("2026-01-02T09:00:00Z", "2026-01-02T10:00:00Z") == 0
    assert await ingested("2026-01-02T10:01:00Z", "2026-01-02T10:10:00Z") == 0


async def test_one_queue_namespace_or_task_can_be_asked_about(mq: Mq):
    await mq.push("shop.mail", 1, 2)
    await mq.push("shop.bill", 3)
    await mq.push("farm.mail", 4)
    await traffic.flush()

    async def both(**query: str) -> tuple[int, int]:
        said = await mq.call("GET", STATUS, params=query, status=200)
        return said["messages"]["total"], said["messages"]["ingested"]

    assert await both(queue="shop.mail") == (2, 2)
    assert await both(namespace="shop") == (3, 3)
    assert await both(task="mail") == (3, 3)
    assert await both(namespace="shop", task="bill") == (1, 1)


@pytest.mark.parametrize(
    "query",
    [
        "from=tomorrow",
        "from=2026-01-02&to=2026-01-01",
        "from=2020-01-01&to=2026-01-01",
        "from=2026-01-01&to=2026-01-01",
    ],
)
@pytest.mark.parametrize("path", [STATUS, f"{STATUS}/analytics", f"{ANALYTICS}/queue-lag", f"{ANALYTICS}/queue-ops"])
async def test_an_invalid_range_is_422(mq: Mq, path: str, query: str):
    body = await mq.call("GET", f"{path}?{query}", status=422)

    assert body["errors"][0]["field"] == "from"
    assert body["error"]


PER_TENANT = [
    STATUS, f"{STATUS}/queues", f"{STATUS}/analytics", f"{ANALYTICS}/queue-lag", f"{ANALYTICS}/queue-ops",
    f"{ANALYTICS}/queue-parked-replicas", f"{ANALYTICS}/retention", "/metrics/prometheus",
]  # fmt: skip


@pytest.mark.parametrize("path", PER_TENANT)
async def test_another_tenant_sees_no_figures_of_the_queues(mq: Mq, foreign: Mq, path: str):
    await work(mq, "a-name-of-ours")

    async with foreign.api.get(path) as response:
        text = await response.text()

    assert response.status == 200
    assert "a-name-of-ours" not in text


async def test_another_tenant_finds_no_single_queue(mq: Mq, foreign: Mq, queue: str):
    await mq.push(queue, 1)

    detail = await foreign.call("GET", f"{STATUS}/queues/{queue}", status=404)
    messages = await foreign.call("GET", f"{STATUS}/queues/{queue}/messages", status=404)

    assert (detail["error"], messages["error"]) == ("Queue not found.", "Queue not found.")


# -- Queues ------------------------------------------------------------------------------------------------------


async def test_queues_are_listed_in_pages_with_a_total(mq: Mq):
    for name in ("a", "b", "c"):
        await mq.push(name, 1)

    page = await mq.call("GET", f"{STATUS}/queues?limit=2&offset=1", status=200)

    assert [one["name"] for one in page["queues"]] == ["b", "c"]
    assert page["pagination"] == {"limit": 2, "offset": 1, "total": 3}


async def test_in_a_queue_without_groups_all_messages_wait_and_deleted_ones_are_not_counted(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, 3)
    await mq.sql("DELETE FROM queueing_message WHERE seq = 1 AND tenant_id = %s", mq.tenant_id)
    await mq.sql("UPDATE queueing_partition SET removed = 1 WHERE tenant_id = %s", mq.tenant_id)

    [one] = (await mq.call("GET", f"{STATUS}/queues", status=200))["queues"]

    assert one["messages"] == {"total": 2, "pending": 2, "processing": 0, "deadLetter": 0}


async def test_waiting_messages_are_those_that_the_slowest_group_has_not_acked(mq: Mq, queue: str):
    await mq.push(queue, 1, 2, 3)
    await mq.data(queue, batch=3, consumerGroup="quick", autoAck=True)
    await mq.data(queue, batch=1, consumerGroup="slow", autoAck=True)
    await mq.age(queue, 120)

    [one] = (await mq.call("GET", f"{STATUS}/queues", status=200))["queues"]

    assert (one["messages"]["pending"], one["consumerGroups"], one["lag"]["partitions"]) == (2, 2, 1)
    assert 120 <= one["lag"]["seconds"] < 130


async def test_a_queue_is_shown_partition_by_partition(mq: Mq):
    queue = "with/slash"
    await work(mq, queue)

    said = await mq.call("GET", f"{STATUS}/queues/{queue}", status=200)

    figures = {one["name"]: one["messages"] for one in said["partitions"]}
    assert figures == {
        "a": {"total": 3, "pending": 1, "processing": 2, "removed": 0},
        "b": {"total": 2, "pending": 0, "processing": 0, "removed": 0},
    }
    assert said["queue"]["name"] == queue
    assert said["totals"]["pending"] == 1
    assert sum(bucket["ingested"] for bucket in said["throughput"]) == 5


async def test_the_latest_messages_of_all_partitions_are_first(mq: Mq, queue: str):
    for number in range(4):
        await mq.push(queue, number, partition=f"p{number % 2}")
    [last] = await mq.push_items([{"queue": queue, "payload": 9, "transactionId": "the last"}])

    said = await mq.call("GET", f"{STATUS}/queues/{queue}/messages?limit=3", status=200)

    assert [one["partition"] for one in said["messages"]] == ["Default", "p1", "p0"]
    assert (said["messages"][0]["transactionId"], said["messages"][0]["id"]) == ("the last", last["message_id"])


# -- Analytics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", ["minute", "hour", "day"])
async def test_analytics_are_summed_by_the_requested_interval(mq: Mq, queue: str, interval: str):
    await work(mq, queue)

    said = await mq.call("GET", f"{STATUS}/analytics?interval={interval}", status=200)

    assert (said["throughput"]["totalIngested"], said["throughput"]["totalProcessed"]) == (5, 1)
    assert sum(one["ingested"] for one in said["throughput"]["timeSeries"]) == 5
    assert said["topQueues"] == [{"name": queue, "ingested": 5, "processed": 1}]


async def test_an_unknown_interval_is_422(mq: Mq):
    body = await mq.call("GET", f"{STATUS}/analytics?interval=week", status=422)

    assert body["errors"][0]["field"] == "interval"


async def test_lag_and_operations_are_shown_per_queue(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.age(queue, 60)
    await mq.data(queue, autoAck=True)
    await mq.push("idle", 1)
    await traffic.flush()

    lag = {one["queue"]: one for one in (await mq.call("GET", f"{ANALYTICS}/queue-lag", status=200))["queues"]}
    ops = {one["queue"]: one for one in (await mq.call("GET", f"{ANALYTICS}/queue-ops", status=200))["queues"]}

    assert 60_000 <= max(point["maxLagMs"] for point in lag[queue]["timeSeries"]) < 70_000
    assert lag["idle"]["pending"] == 1
    assert sum(point["popMessages"] for point in ops[queue]["timeSeries"]) == 1
    assert sum(point["ingested"] for point in ops["idle"]["timeSeries"]) == 1


async def test_parked_long_polls_are_counted(mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.data(queue, autoAck=True)
    waiting = asyncio.create_task(mq.data(queue, wait=True, timeout=20_000))

    async def parked() -> bool:
        said = await mq.call("GET", f"{ANALYTICS}/queue-parked-replicas", status=200)
        return said["queues"] == [{"queue": queue, "parked": 1}]

    await eventually(parked)
    await mq.push(queue, 2)
    assert await waiting == [2]


async def test_retention_shows_its_times_and_the_number_of_deleted_messages(mq: Mq, queue: str):
    await mq.configure(queue, retention_enabled=True, retention_seconds=60)
    await mq.push(queue, 1, 2)
    await mq.sql("UPDATE queueing_partition SET removed = 1 WHERE tenant_id = %s", mq.tenant_id)

    [one] = (await mq.call("GET", f"{ANALYTICS}/retention", status=200))["queues"]

    assert (one["retentionEnabled"], one["retentionSeconds"], one["messages"], one["messagesRemoved"]) == (
        True,
        60,
        1,
        1,
    )


# -- The machine ---------------------------------------------------------------------------------------------------

MACHINE = [
    f"{STATUS}/buffers", f"{ANALYTICS}/system-metrics", f"{ANALYTICS}/worker-metrics", f"{ANALYTICS}/postgres-stats",
]  # fmt: skip


@pytest.mark.parametrize("path", MACHINE)
async def test_figures_of_the_machine_require_the_read_scope(mq: Mq, server: str, tenant, path: str):
    async with Api(server) as nobody, nobody.get(path) as response:
        assert response.status == 401
    async with Api(server, await make_key(tenant, "read")) as reader, reader.get(path) as response:
        assert response.status == 200


async def test_buffers_show_the_records_that_wait_for_the_database(admin: Mq):
    said = await admin.call("GET", f"{STATUS}/buffers", status=200)

    assert (said["pending"], said["failed"], said["dbHealthy"]) == (0, 0, True)
    assert "payment" in {kind["kind"] for kind in said["kinds"]}


async def test_the_postgresql_figures_are_of_the_queues_tables(admin: Mq):
    said = await admin.call("GET", f"{ANALYTICS}/postgres-stats", status=200)

    assert said["database"]["bytes"] > 0
    assert "queueing_message" in {table["name"] for table in said["tables"]}


async def test_the_process_shows_its_own_figures(admin: Mq, worker):
    await eventually(lambda: worker.worker_id)

    [process] = (await admin.call("GET", f"{ANALYTICS}/system-metrics", status=200))["replicas"]
    [one] = (await admin.call("GET", f"{ANALYTICS}/worker-metrics", status=200))["workers"]

    assert process["memory"]["rssMb"] > 10
    assert one["queue"] == "payments"


# -- Health and metrics ----------------------------------------------------------------------------------------------


async def test_health_has_the_fields_that_clients_of_the_queue_read(api: Api, worker):
    await eventually(lambda: worker.worker_id)

    async with api.get("/health") as response:
        said = await response.json()

    assert (said["status"], said["database"], said["server"]) == ("healthy", "connected", "registry")
    assert said["version"]
    assert said["worker_id"].isdigit()
    assert said["checks"]["database"]["status"] == "ok"


async def test_health_says_disconnected_while_the_database_is_away(api: Api):
    async with unreachable(), api.get("/health") as response:
        said = await response.json()

    assert (said["status"], said["database"]) == ("unhealthy", "disconnected")


async def samples(api: Api) -> dict[str, float]:
    async with api.get("/metrics/prometheus") as response:
        assert response.status == 200
        text = await response.text()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


DASHBOARD = [
    "queen_uptime_seconds", "queen_process_resident_memory_bytes", "queen_dlq_depth", "queen_db_pool_size",
    "queen_db_pool_active", "queen_db_pool_idle", "queen_file_buffer_pending", "queen_file_buffer_failed",
    "queen_file_buffer_db_healthy", *(
        f"queen_cluster_{operation}_{what}_total"
        for operation in ("push", "pop", "ack") for what in ("requests", "messages")
    ),
]  # fmt: skip


async def test_prometheus_has_the_metrics_that_existing_dashboards_use(api: Api):
    found = await samples(api)

    assert [name for name in DASHBOARD if name not in found] == []
    assert "registry_database_pool_pool_size" in found


async def test_the_counters_of_the_service_increase(mq: Mq, queue: str):
    before = await samples(mq.api)
    await work(mq, queue)

    after = await samples(mq.api)

    grown = {name: after[name] - before.get(name, 0) for name in after if name.startswith("queen_cluster")}
    assert {name.removeprefix("queen_cluster_").removesuffix("_total"): count for name, count in grown.items()} == {
        "push_requests": 2,
        "push_messages": 5,
        "pop_requests": 3,
        "pop_messages": 4,
        "ack_requests": 2,
        "ack_messages": 1,
        "dlq": 1,
    } | {name.removeprefix("queen_cluster_").removesuffix("_total"): 0 for name in grown if "created" in name}
    assert (
        after['registry_queue_messages_total{operation="push"}']
        - before.get('registry_queue_messages_total{operation="push"}', 0)
        == 5
    )
    assert after["queen_dlq_depth"] == 1


async def test_a_tenants_key_gets_gauges_of_its_own_queues(mq: Mq, queue: str):
    await work(mq, queue)
    await mq.sql("UPDATE queueing_traffic SET minute = minute - interval '1 minute'")

    found = await samples(mq.api)

    label = f'{{queue="{queue}"}}'
    assert found[f"queen_queue_push_messages_per_minute{label}"] == 5
    assert found[f"queen_queue_messages_pending{label}"] == 1
    assert found[f"queen_dlq_depth_by_queue{label}"] == 1
    assert found[f"queen_queue_parked_consumers{label}"] == 0


async def test_without_a_key_no_queue_is_named_and_a_wrong_key_is_401(mq: Mq, server: str, queue: str, monkeypatch):
    await work(mq, "a-name-of-ours")
    monkeypatch.setattr(settings, "REGISTRY_OPEN_TENANT", "")

    async with Api(server) as nobody:
        found = await samples(nobody)
    async with Api(server, "rk_000000000000_wrong") as liar, liar.get("/metrics/prometheus") as response:
        refused = response.status

    assert not [name for name in found if name.startswith("queen_queue") or "a-name-of-ours" in name]
    assert "queen_uptime_seconds" in found
    assert refused == 401


async def test_prometheus_answers_while_the_database_is_away(mq: Mq):
    await samples(mq.api)

    async with unreachable():
        found = await samples(mq.api)

    assert "queen_uptime_seconds" in found
    assert "queen_dlq_depth" not in found


# -- Cost ------------------------------------------------------------------------------------------------------------


FIGURES = ("depths", "partitions", "newest", "traffic", "groups", "group_partitions")


async def test_no_figure_reads_a_table_from_end_to_end(mq: Mq, queue: str):
    """With a million messages the same pages would be read."""
    await mq.push(queue, *range(3000))
    await mq.pop(queue, consumerGroup="g")
    end = datetime.now(UTC)
    params = {
        "tenant": mq.tenant_id, "queue": queue, "namespace": "", "task": "", "limit": 10, "offset": 0, "group": "g",
        "from": end - timedelta(hours=1), "to": end, "minutes": 1, "apart": True,
    }  # fmt: skip
    await mq.sql("ANALYZE queueing_message")

    for file in ("statistics", "groups"):
        for name, sql in database.statements(Path(statistics.__file__).parent / "sql" / f"{file}.sql").items():
            if (file, name) != ("groups", "partitions") and name in FIGURES:
                plan = "\n".join(row[0] for row in await database.fetch(f"EXPLAIN (ANALYZE, TIMING off) {sql}", params))
                assert "Seq Scan on queueing_message" not in plan, plan
                assert "actual rows=3000" not in plan, plan


def test_buckets_begin_where_postgresql_puts_them():
    at = datetime(2026, 1, 2, 3, 47, 12, tzinfo=UTC)

    assert [statistics.floor(at, m).strftime("%d %H:%M") for m in (1, 5, 15, 60, 360, 1440)] == [
        "02 03:47", "02 03:45", "02 03:45", "02 03:00", "02 00:00", "02 00:00",
    ]  # fmt: skip
    assert len(Range(at, at + timedelta(minutes=10), 5).points) == 3
