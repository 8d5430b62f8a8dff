"""Alerts about PostgreSQL and the host (disk, clock, Redis, requests), and the gauges that they read."""

import time

from prometheus_client.core import GaugeMetricFamily

from registry.data import database
from registry.edge import status
from registry.operators.alerts.rules import AlertRule, register
from registry.operators.attention import Severity
from registry.operators.database_attention import (
    SQL,
    connected_replicas,
    oldest_snapshot,
    room_on_disk,
    unread_slots,
    used_connections,
)

# -- Gauges ----------------------------------------------------------------------------------------------------


async def _connections() -> list[GaugeMetricFamily]:
    used, most = await used_connections()
    figures = (
        ("registry_database_connections", "Connections of clients to PostgreSQL", used),
        ("registry_database_connections_ratio", "The same, as a share of those that it allows", used / most),
    )
    return [GaugeMetricFamily(name, text, value=value) for name, text, value in figures]


async def _snapshot() -> list[GaugeMetricFamily]:
    oldest = await oldest_snapshot()
    text = "Age of the oldest snapshot that a session of PostgreSQL holds"
    return [GaugeMetricFamily("registry_database_snapshot_seconds", text, value=oldest[-1] if oldest else 0)]


async def _replication() -> list[GaugeMetricFamily]:
    replicas, slots = await connected_replicas(), await unread_slots()
    figures = (
        ("registry_database_replicas", "Connected replicas", len(replicas)),
        (
            "registry_database_replica_seconds",
            "How late the latest replica is",
            max([r[3] for r in replicas], default=0),
        ),
        ("registry_database_replica_bytes", "What it has not replayed", max([r[2] or 0 for r in replicas], default=0)),
        (
            "registry_database_slot_bytes",
            "WAL kept for a slot that nobody reads",
            max([s[1] for s in slots], default=0),
        ),
    )
    return [GaugeMetricFamily(name, text, value=value) for name, text, value in figures]


async def _disk() -> list[GaugeMetricFamily]:
    free, size = await room_on_disk()
    return [
        GaugeMetricFamily("registry_disk_free_bytes", "Free on the disk of the data folder", value=free),
        GaugeMetricFamily("registry_disk_free_ratio", "The same, as a share of the disk", value=free / size),
    ]


async def _clock() -> list[GaugeMetricFamily]:
    """Read twice around the database's answer, which belongs to the middle between both."""
    before = time.time()
    [(theirs,)] = await database.fetch(SQL["clock"], prepare=False)
    offset = abs((before + time.time()) / 2 - theirs)
    text = "How far the clock of this host and that of PostgreSQL are apart"
    return [GaugeMetricFamily("registry_clock_offset_seconds", text, value=offset)]


status.gauges += [_connections, _snapshot, _replication, _disk, _clock]

# -- PostgreSQL ------------------------------------------------------------------------------------------------

register(
    AlertRule(
        name="database.away",
        expression="max(registry_database_away) > 0",
        for_=15,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="PostgreSQL is unavailable or read-only for this host. Payments are accepted into the spill; nothing settles.",
    ),
    AlertRule(
        name="database.statements",
        expression="max(registry_database_statement_refused) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="PostgreSQL has refused a statement for a minute: a table, function or permission is missing.",
    ),
    AlertRule(
        name="database.pool",
        expression="max(registry_database_pool_requests_waiting) > 0",
        for_=30,
        severity=Severity.WARNING,
        scope="host",
        sentence="Requests wait for a database connection of their process. Those that wait too long are answered 503.",
    ),
    AlertRule(
        name="database.connections",
        expression="max(registry_database_connections_ratio) > 0.8",
        for_=60,
        severity=Severity.WARNING,
        scope="service",
        sentence="More than 80 % of the connections that PostgreSQL allows are in use. Without a free one, payments go to the spill.",
    ),
    AlertRule(
        name="database.snapshot",
        expression="max(registry_database_snapshot_seconds) > 600",
        for_=0,
        severity=Severity.WARNING,
        scope="service",
        sentence="A session of PostgreSQL holds a snapshot for more than ten minutes. Work slows down: VACUUM removes nothing newer.",
    ),
    AlertRule(
        name="database.replication",
        expression="max(registry_database_replica_seconds) > 60",
        for_=60,
        severity=Severity.WARNING,
        scope="service",
        sentence="A replica is more than a minute late. If the primary is lost, what the replica does not have is lost.",
    ),
    AlertRule(
        name="database.slots",
        expression="max(registry_database_slot_bytes) > 1073741824",
        for_=60,
        severity=Severity.WARNING,
        scope="service",
        sentence="A replication slot that nobody reads keeps more than 1 GiB of WAL: it fills the disk of PostgreSQL.",
        runbook="database.replication",
    ),
)

# -- The host, its Redis and its requests ------------------------------------------------------------------------

register(
    AlertRule(
        name="disk",
        expression="min(registry_disk_free_ratio) < 0.15",
        for_=30,
        severity=Severity.WARNING,
        scope="host",
        sentence="Less than 15 % of the data folder's disk is free. Without room, neither the spill nor an embedded database can write.",
    ),
    AlertRule(
        name="disk.full",
        expression="min(registry_disk_free_ratio) < 0.05",
        for_=0,
        severity=Severity.CRITICAL,
        scope="host",
        sentence="Less than 5 % of the data folder's disk is free. Without room, neither the spill nor an embedded database can write.",
        runbook="disk",
    ),
    AlertRule(
        name="clock",
        expression="max(registry_clock_offset_seconds) > 10",
        for_=30,
        severity=Severity.WARNING,
        scope="host",
        sentence="The clocks of this host and of PostgreSQL differ by more than ten seconds. Signatures and time limits are wrong.",
    ),
    AlertRule(
        name="redis",
        expression="min(registry_redis_takes_writes) < 1",
        for_=15,
        severity=Severity.WARNING,
        scope="host",
        sentence="Redis takes no writes. Payments go on without it; pages are slower, and rate limits are not enforced.",
    ),
    AlertRule(
        name="requests.failing",
        expression="increase(registry_http_server_errors_total[5m]) > 50",
        for_=0,
        severity=Severity.WARNING,
        scope="host",
        sentence="More than 50 requests were answered 5xx within five minutes.",
    ),
    AlertRule(
        name="books.check",
        expression="max(registry_book_differences) > 0",
        for_=0,
        severity=Severity.CRITICAL,
        scope="service",
        sentence="The nightly check of the books found stored values that differ from their events and ledger lines.",
    ),
)
