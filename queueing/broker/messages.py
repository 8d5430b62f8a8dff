"""Messages for the API: list them, their status by consumer group, and one message with its payload."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from queueing.broker import crypto, options
from queueing.broker.errors import UnknownMessage
from queueing.broker.ids import partition_number, public_partition_id
from queueing.models.broker import QUEUE_MODE
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "messages.sql")

STATUSES = ("pending", "processing", "completed", "dead_letter")


async def listed(tenant_id: int, filters: dict[str, Any], *, limit: int, offset: int) -> list[dict[str, Any]]:
    """Messages, newest first, of the thousand partitions that were pushed to last.

    `filters`: queue, partition, namespace, task, status ("" means any), from, to. Status dead_letter: some group has an open
    dead letter of it; completed: every group completed it; processing: some group leases it.
    """
    params = {"tenant": tenant_id, **filters, "limit": limit, "offset": offset}
    return [_entry(tenant_id, row) for row in await database.fetch(SQL["messages"], params)]


def _entry(tenant_id: int, row: tuple[Any, ...]) -> dict[str, Any]:
    id, transaction_id, partition_id, queue, partition, namespace, task, status, own, consumed_by, groups, *more = row
    trace_id, producer, priority, created_at, lease_ends = more
    return {
        "id": id,
        "transactionId": transaction_id,
        "partitionId": public_partition_id(tenant_id, partition_id),
        "queuePath": f"{queue}/{partition}",
        "queue": queue,
        "partition": partition,
        "namespace": namespace,
        "task": task,
        "status": status,
        "queueStatus": None if own is None else "completed" if own else "pending",
        "busStatus": {"consumedBy": consumed_by, "totalGroups": groups},
        "traceId": trace_id,
        "producerSub": producer,
        "queuePriority": priority,
        "createdAt": created_at,
        "leaseExpiresAt": lease_ends,
    }


async def mode(tenant_id: int, queue: str = "") -> dict[str, Any]:
    """How a queue is read: by the group without a name (queue), by named groups (bus), or both (hybrid)."""
    own, groups = (await database.fetch(SQL["modes"], {"tenant": tenant_id, "queue": queue}))[0]
    kind = "hybrid" if own and groups else "queue" if own else "bus" if groups else "none"
    return {"hasQueueMode": own, "busGroupsCount": groups, "type": kind}


async def detail(tenant_id: int, partition_id: str, transaction_id: str) -> dict[str, Any]:
    """One message with its decrypted payload. Raises UnknownMessage (404), crypto.Undecipherable (500)."""
    number = partition_number(tenant_id, partition_id)
    params: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    rows = await database.fetch(SQL["message"], params) if number is not None else []
    if not rows:
        raise UnknownMessage
    seq, id, payload, key_id, trace_id, producer, created_at, partition, columns, queue = rows[0]
    if key_id is not None:
        payload = crypto.decrypt(payload, key_id=key_id, place=(tenant_id, queue, partition, transaction_id))
    about = json.loads(columns)
    groups = [_group(seq, row) for row in await database.fetch(SQL["groups_of_message"], {**params, "seq": seq})]
    dead = [one for one in groups if one["status"] == "dead_letter"]
    return {
        "id": id,
        "transactionId": transaction_id,
        "partitionId": partition_id,
        "queuePath": f"{queue}/{partition}",
        "queue": queue,
        "partition": partition,
        "namespace": about["namespace"],
        "task": about["task"],
        "status": _status(groups),
        "payload": msgspec.Raw(payload),
        "data": msgspec.Raw(payload),
        "isEncrypted": key_id is not None,
        "traceId": trace_id,
        "producerSub": producer,
        "createdAt": created_at,
        "leaseExpiresAt": max((one["leaseExpiresAt"] for one in groups if one["leaseExpiresAt"]), default=None),
        "errorMessage": dead[0]["errorMessage"] if dead else None,
        "retryCount": max((one["retryCount"] for one in groups), default=0),
        "queueConfig": options.named(about),
        "mode": await mode(tenant_id, queue),
        "consumerGroups": groups,
    }


def _group(seq: int, row: tuple[Any, ...]) -> dict[str, Any]:
    _, name, cursor, delivered, leased, lease_ends, attempt, consumed_at, dead_id, error, attempts, is_open = row
    is_leased = leased and cursor < seq <= delivered
    dead = dead_id is not None and is_open
    status = "dead_letter" if dead else "completed" if cursor >= seq else "processing" if is_leased else "pending"
    done: datetime | None = consumed_at if cursor >= seq else None
    return {
        "name": name,
        "mode": "queue" if name == QUEUE_MODE else "bus",
        "status": status,
        "consumed": cursor >= seq,
        "consumedAt": done,
        "leaseExpiresAt": lease_ends if is_leased else None,
        "retryCount": attempts if dead else attempt if cursor < seq else 0,
        "errorMessage": error if dead else None,
        "deadLetterId": str(dead_id) if dead else None,
    }


def _status(groups: list[dict[str, Any]]) -> str:
    found = {one["status"] for one in groups}
    if "dead_letter" in found:
        return "dead_letter"
    if found == {"completed"}:
        return "completed"
    return "processing" if "processing" in found else "pending"
