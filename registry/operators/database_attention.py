"""Sources of attention about PostgreSQL and this host's disk: connections, oldest snapshot, replication, room. For operators only."""

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings

from registry.data import database
from registry.operators.attention import Item, Severity, source
from registry.operators.cells import ago

SQL = database.statements(Path(__file__).parent / "sql" / "database.sql")

CONNECTIONS_WARN, CONNECTIONS_FULL = 0.8, 0.95  # shares of max_connections
SNAPSHOT_WARN = timedelta(minutes=10)  # dead rows of the work tables begin to slow claims down
SNAPSHOT_LONG = timedelta(hours=1)
BEHIND_SECONDS = 60.0  # of a replica
BEHIND_BYTES = 1 << 30  # of a replica, or kept for a slot that nobody reads
ROOM_WARN, ROOM_LOW = 0.15, 0.05  # free shares of the disk
GIB = 1 << 30


@source("database.connections")
async def connections(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    used, most = await used_connections()
    said = f"PostgreSQL: {used} of {most} connections are in use."
    if used < CONNECTIONS_WARN * most:
        return [Item(severity=Severity.WELL, sentence=said, count=used)]
    severity = Severity.CRITICAL if used >= CONNECTIONS_FULL * most else Severity.WARNING
    return [Item(severity=severity, sentence=f"{said} Without a free one, payments go to the spill.", count=used)]


@source("database.snapshot")
async def snapshot(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    oldest = await oldest_snapshot()
    if oldest is None:
        return [Item(severity=Severity.WELL, sentence="PostgreSQL: no session holds an old snapshot.")]
    pid, since, state, program, seconds = oldest
    age = timedelta(seconds=seconds)
    who = f"process {pid}{f' of {program}' if program else ''}, {state or 'active'}"
    said = f"PostgreSQL: the oldest snapshot is {ago(age.total_seconds())} old ({who})."
    if age < SNAPSHOT_WARN:
        return [Item(severity=Severity.WELL, sentence=said)]
    severity = Severity.CRITICAL if age >= SNAPSHOT_LONG else Severity.WARNING
    return [
        Item(
            severity=severity,
            sentence=f"{said} VACUUM removes nothing that was deleted since; work slows down.",
            since=since,
        )
    ]


@source("database.replication")
async def replication(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    replicas, slots = await connected_replicas(), await unread_slots()
    kept = [f"slot {name} keeps {size / GIB:.1f} GiB" for name, size in slots if size >= BEHIND_BYTES]
    late = [
        f"{name} is {ago(seconds)} and {(size or 0) / GIB:.1f} GiB behind"
        for name, _, size, seconds in replicas
        if seconds >= BEHIND_SECONDS or (size or 0) >= BEHIND_BYTES
    ]
    if late or kept:
        said = f"PostgreSQL's replication: {', '.join([*late, *kept])}. What was written since is on one server only."
        return [Item(severity=Severity.WARNING, sentence=said, count=len(late) + len(kept))]
    said = f"{len(replicas)} connected, none late" if replicas else "no replica is connected"
    return [Item(severity=Severity.WELL, sentence=f"PostgreSQL's replication: {said}.", count=len(replicas))]


@source("disk")
async def disk(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    room, size = await room_on_disk()
    free = room / size
    said = f"The disk of {settings.REGISTRY_DATA} has {room / GIB:.1f} GiB free of {size / GIB:.0f} GiB ({free:.0%})."
    if free >= ROOM_WARN:
        return [Item(severity=Severity.WELL, sentence=said)]
    severity = Severity.CRITICAL if free < ROOM_LOW else Severity.WARNING
    return [
        Item(severity=severity, sentence=f"{said} Without room neither the spill nor an embedded database can write.")
    ]


# -- What is asked, here and by the gauges of service_alerts.py ---------------------------------------------------


async def used_connections() -> tuple[int, int]:
    """Connections of clients, and the most that ordinary roles may open."""
    [(used, most)] = await database.fetch(SQL["connections"], prepare=False)
    return used, most


async def oldest_snapshot() -> tuple[int, datetime, str, str, float] | None:
    """The session's process, the beginning of its transaction, its state, its program, and the age in seconds."""
    found = await database.fetch(SQL["snapshot"], prepare=False)
    return found[0] if found else None


async def connected_replicas() -> list[database.Row]:
    """Name, state, bytes behind (may be None) and seconds behind."""
    return await database.fetch(SQL["replicas"], prepare=False)


async def unread_slots() -> list[database.Row]:
    """Name and bytes of WAL kept."""
    return await database.fetch(SQL["slots"], prepare=False)


async def room_on_disk() -> tuple[int, int]:
    """Bytes that the service may still write to the disk of its data folder, and the disk's size for it."""
    disk = await asyncio.to_thread(os.statvfs, settings.REGISTRY_DATA)
    free, used = disk.f_bavail * disk.f_frsize, (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    return free, used + free
