"""Queues and partitions with their message counts, computed from numbers that pushes, pops and acks maintain; nothing is counted.

For a partition, and summed for a queue:
  total       messages that are stored
  completed   stored, and completed by every group (0 where the queue has no group)
  processing  not completed, and leased now; of several groups, of the one that leases most
  pending     the rest: total = completed + processing + pending
  failed      consumers (partition × group) whose next message failed and waits for another try; included in `pending`
  deadLetter  open dead letters, which exist independently of the messages
A message deleted by hand from among the waiting ones is not in `total`, but may count as pending until readers pass it.
"""

import statistics
from pathlib import Path
from typing import Any

from queueing.broker import catalog
from queueing.broker.errors import UnknownQueue
from queueing.broker.ids import public_partition_id
from queueing.models.broker import QUEUE_MODE
from registry.data import clock, database

SQL = database.statements(Path(__file__).parent / "sql" / "browse.sql")


def counts(total: int, waiting: int, leased: int) -> dict[str, int]:
    processing = min(waiting, leased)
    return {
        "total": total,
        "pending": waiting - processing,
        "processing": processing,
        "completed": total - waiting,
    }


async def queues(tenant_id: int, *, queue: str = "", namespace: str = "", task: str = "") -> list[dict[str, Any]]:
    params = {"tenant": tenant_id, "queue": queue, "namespace": namespace, "task": task}
    return [
        {
            "id": str(number),
            "name": name,
            "namespace": space,
            "task": job,
            "createdAt": created_at,
            "partitions": partitions,
            "messages": counts(total, waiting, leased) | {"failed": failed, "deadLetter": dead},
        }
        for number, name, space, job, created_at, partitions, total, waiting, leased, failed, dead in await database.fetch(
            SQL["queues"], params
        )
    ]


async def partitions(tenant_id: int, *, queue: str = "", namespace: str = "", task: str = "") -> list[dict[str, Any]]:
    params = {"tenant": tenant_id, "queue": queue, "namespace": namespace, "task": task}
    return [_partition(tenant_id, row) for row in await database.fetch(SQL["partitions"], params) if row[5] is not None]


def _partition(tenant_id: int, row: tuple[Any, ...]) -> dict[str, Any]:
    _, queue, _, _, _, number, name, created_at, last_at, total, waiting, leased, failed = row
    return {
        "id": public_partition_id(tenant_id, number),
        "name": name,
        "queue": queue,
        "createdAt": created_at,
        "lastPushAt": last_at,
        "stats": counts(total, waiting, leased) | {"failed": failed},
    }


async def queue(tenant_id: int, name: str) -> dict[str, Any]:
    """One queue with its partitions and totals. Raises UnknownQueue (404)."""
    rows = await database.fetch(SQL["partitions"], {"tenant": tenant_id, "queue": name, "namespace": "", "task": ""})
    if not rows:
        raise UnknownQueue
    number, _, namespace, task, created_at, *_ = rows[0]
    there = [row for row in rows if row[5] is not None]
    numbers = [row[5] for row in there]
    dead: dict[int, int] = dict(
        await database.fetch(SQL["dead_by_partition"], {"tenant": tenant_id, "queue": number})  # type: ignore[arg-type]
    )
    ages = {p: (o, n) for p, o, n in await database.fetch(SQL["ages"], {"tenant": tenant_id, "partitions": numbers})}
    found = []
    for row in there:
        one = _partition(tenant_id, row)
        one["stats"]["deadLetter"] = dead.pop(row[5], 0)
        one["oldestMessage"], one["newestMessage"] = ages[row[5]]
        found.append(one)
    names = ("total", "pending", "processing", "completed", "failed", "deadLetter")
    totals = {name: sum(one["stats"][name] for one in found) for name in names}
    totals["deadLetter"] += sum(dead.values())  # of partitions that are gone
    return {
        "id": str(number),
        "name": name,
        "namespace": namespace,
        "task": task,
        "createdAt": created_at,
        "partitions": found,
        "totals": totals,
    }


async def spaces(tenant_id: int, field: str) -> list[dict[str, Any]]:
    """Namespaces or tasks, each with its number of queues, partitions and messages."""
    found: dict[str, dict[str, Any]] = {}
    for one in await queues(tenant_id):
        space = found.setdefault(
            one[field],
            {
                field: one[field],
                "queues": 0,
                "partitions": 0,
                "messages": dict.fromkeys(("total", "pending", "processing"), 0),
            },
        )
        space["queues"] += 1
        space["partitions"] += one["partitions"]
        for name in space["messages"]:
            space["messages"][name] += one["messages"][name]
    return [found[name] for name in sorted(found)]


async def overview(tenant_id: int) -> dict[str, Any]:
    every = await queues(tenant_id)
    rates = (await database.fetch(SQL["throughput"], {"tenant": tenant_id}))[0]
    lags = await database.fetch(SQL["lags"], {"tenant": tenant_id})
    names = ("total", "pending", "processing", "completed", "failed", "deadLetter")
    return {
        "queues": len(every),
        "partitions": sum(one["partitions"] for one in every),
        "namespaces": len({one["namespace"] for one in every if one["namespace"]}),
        "tasks": len({one["task"] for one in every if one["task"]}),
        "messages": {name: sum(one["messages"][name] for one in every) for name in names},
        "lag": {
            "time": _spread([float(seconds) for seconds, _ in lags if seconds is not None]),
            "offset": _spread([float(waiting) for _, waiting in lags]),
        },
        "throughput": {"ingestedPerSecond": rates[0], "processedPerSecond": rates[1]},
        "timestamp": clock.now(),
        "statsAge": 0,
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"avg": 0, "median": 0, "min": 0, "max": 0}
    return {
        "avg": statistics.fmean(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
    }


async def depth(tenant_id: int, name: str, group: str = QUEUE_MODE) -> dict[str, Any]:
    """Number of messages that one group has not read. Raises UnknownQueue (404)."""
    found = await catalog.find(tenant_id, name, fresh=True)
    if found is None:
        raise UnknownQueue
    params = {"tenant": tenant_id, "queue": found.id, "group": group}
    partitions, partitions_pending, pending = (await database.fetch(SQL["depth"], params))[0]
    return {
        "queue": name,
        "group": group,
        "pending": pending,
        "partitionsPending": partitions_pending,
        "conflation": None,
        "effectivePending": pending,
        "partitions": partitions,
    }
