"""Status and analytics of a tenant's queues (queue contract section 1.5). Figures of the process are in machine.py."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse

from queueing.api.edge import WHICH, answer, check_name, endpoint
from queueing.broker import long_polls, statistics
from queueing.broker.errors import UnknownQueue
from queueing.broker.statistics import About, QueueDepth, Range, TrafficCounts
from queueing.models import Worker
from registry.data import clock
from registry.edge.parameters import WHEN, Query, Values, choice, invalid, offset_page, whole
from registry.tenants.access import Principal

HOUR = timedelta(hours=1)
PAGE = 1000  # queues or partitions in one answer at most
INTERVALS = {"minute": 1, "hour": 60, "day": 1440}  # minutes

SERIES, ABOUT = Query({**WHEN, **WHICH}), Query(WHICH)
_PAGE = offset_page(100, most=PAGE, furthest=10**9)
QUEUES, QUEUE = Query({**_PAGE, **WHICH}), Query({**_PAGE, **WHEN})
MESSAGES = Query({"limit": whole(50, least=1, capped=PAGE)})
ANALYTICS = Query({"interval": choice(*INTERVALS, default="hour"), **WHEN, **WHICH})


# -- Query parameters ---------------------------------------------------------------------------------------------


def _about(asked: Values) -> About:
    return About(queue=asked["queue"], namespace=asked["namespace"], task=asked["task"])


def _range(asked: Values, minutes: int = 0) -> Range:
    """The range from `from` to `to`; by default the last hour. Raises Invalid (422)."""
    end = asked["to"] or clock.now()
    start = asked["from"] or max(end, datetime.min.replace(tzinfo=UTC) + HOUR) - HOUR
    if not timedelta() < end - start <= statistics.LONGEST:
        raise invalid("from", f"wants to be before to, by {statistics.LONGEST.days} days at most")
    if minutes and end - start > timedelta(minutes=minutes) * PAGE:
        raise invalid("from", f"wants to be within {PAGE} intervals of to")
    return Range(start, end, minutes or statistics.bucket_of(end - start))


def _series(request: HttpRequest) -> tuple[About, Range]:
    asked = SERIES.read(request)
    return _about(asked), _range(asked)


def _range_fields(when: Range) -> dict[str, Any]:
    return {
        "timeRange": {"from": when.start, "to": when.end},
        "bucketMinutes": when.minutes,
        "pointCount": len(when.points),
    }


# -- Status ----------------------------------------------------------------------------------------------------


@endpoint("read")
async def status(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Throughput by bucket, and messages, leases and dead letters as they are now."""
    about, when = _series(request)
    series = await statistics.traffic(principal.tenant_id, about, when)
    found = await statistics.depths(principal.tenant_id, about)
    total = sum(series.values(), TrafficCounts())
    dead = sorted((one for one in found if one.dead), key=lambda one: -one.dead)
    return answer(
        {
            **_range_fields(when),
            "throughput": [_point(at, one, when) for at, one in series.items()],
            "queues": [_summary(one) for one in found[:PAGE]],
            "messages": _messages(found, total),
            "leases": {
                "active": sum(one.leases for one in found),
                "partitionsWithLeases": sum(one.leased_partitions for one in found),
                "totalBatchSize": sum(one.handed_out for one in found),
                "totalAcked": total.completed,
            },
            "deadLetterQueue": {
                "totalMessages": sum(one.dead for one in found),
                "affectedQueues": len(dead),
                "byQueue": [{"queue": one.name, "count": one.dead} for one in dead[:PAGE]],
            },
            "workers": {"alive": await Worker.async_objects.all().alive().acount()},
            "errors": {"ackFailed": total.failed, "dlqMessages": total.buried},
            "statsAge": 0,
        }
    )


def _point(at: datetime, one: TrafficCounts, when: Range) -> dict[str, Any]:
    """A bucket in the contract's form. Figures of one machine are null: a tenant's traffic is spread over several."""
    seconds = when.minutes * 60
    return {
        "timestamp": at,
        "ingested": one.pushed,
        "processed": one.completed,
        "popMessages": one.popped,
        "pushRequests": one.push_requests,
        "popRequests": one.pop_requests,
        "popEmpty": one.empty_pops,
        "ackRequests": one.ack_requests,
        "ingestedPerSecond": round(one.pushed / seconds, 3),
        "processedPerSecond": round(one.completed / seconds, 3),
        "popMessagesPerSecond": round(one.popped / seconds, 3),
        "avgLagMs": one.average_lag_ms,
        "maxLagMs": one.max_lag_ms,
        "ackFailed": one.failed,
        "dlqCount": one.buried,
        **dict.fromkeys(_MACHINE),
    }


_MACHINE = (
    "avgEventLoopLagMs", "maxEventLoopLagMs", "minFreeSlots", "dbErrors", "queenCpuUserPct", "queenCpuSysPct", "queenRssMb",
    "dbPoolActive", "dbPoolIdle", "dbPoolSize",
)  # fmt: skip


def _messages(found: list[QueueDepth], total: TrafficCounts) -> dict[str, Any]:
    return {
        "total": sum(one.total for one in found),
        "pending": sum(one.pending for one in found),
        "processing": sum(one.processing for one in found),
        "completed": total.completed,
        "failed": total.failed,
        "deadLetter": sum(one.dead for one in found),
        "ingested": total.pushed,
        "processed": total.completed,
        "requests": {"push": total.push_requests, "pop": total.pop_requests, "ack": total.ack_requests},
        "batchEfficiency": {
            "push": _per(total.pushed, total.push_requests),
            "pop": _per(total.popped, total.pop_requests - total.empty_pops),
            "ack": _per(total.completed + total.failed, total.ack_requests),
        },
    }


def _per(messages: int, requests: int) -> float:
    return round(messages / requests, 2) if requests > 0 else 0.0


def _summary(one: QueueDepth) -> dict[str, Any]:
    return {
        "id": str(one.id),
        "name": one.name,
        "namespace": one.namespace,
        "task": one.task,
        "createdAt": one.created_at,
        "lastActivity": one.last_at,
        "partitions": one.partitions,
        "consumerGroups": one.groups,
        "messages": {
            "total": one.total,
            "pending": one.pending,
            "processing": one.processing,
            "deadLetter": one.dead,
        },
        "lag": _lag(one),
    }


def _lag(one: QueueDepth) -> dict[str, Any]:
    return {
        "seconds": round(one.oldest_seconds, 3),
        "averageSeconds": round(one.average_seconds, 3),
        "partitions": one.lagging_partitions,
    }


@endpoint("read")
async def queues(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A page of queues with their depths."""
    asked = QUEUES.read(request)
    about, limit, offset = _about(asked), asked["limit"], asked["offset"]
    found = await statistics.depths(principal.tenant_id, about, limit=limit, offset=offset)
    total = len(found) if about.queue else await statistics.count_queues(principal.tenant_id, about)
    page = {"limit": limit, "offset": offset, "total": total}
    return answer({"queues": [_summary(one) for one in found], "pagination": page})


async def _one(principal: Principal, queue: str) -> QueueDepth:
    found = await statistics.depths(principal.tenant_id, About(queue=check_name("Queue", queue)))
    if not found:
        raise UnknownQueue
    return found[0]


@endpoint("read")
async def queue(request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    """One queue with its partitions and its traffic."""
    asked = QUEUE.read(request)
    when, limit, offset = _range(asked), asked["limit"], asked["offset"]
    one = await _one(principal, queue)
    series = await statistics.traffic(principal.tenant_id, About(queue=queue), when)
    summary = _summary(one)
    return answer(
        {
            **_range_fields(when),
            "queue": {key: summary[key] for key in ("id", "name", "namespace", "task", "createdAt", "lastActivity")},
            "totals": summary["messages"],
            "lag": summary["lag"],
            "messages": _messages([one], sum(series.values(), TrafficCounts())),
            "throughput": [_point(at, bucket, when) for at, bucket in series.items()],
            "partitions": await statistics.partitions(principal.tenant_id, queue, limit=limit, offset=offset),
            "pagination": {"limit": limit, "offset": offset, "total": one.partitions},
        }
    )


@endpoint("read")
async def messages(request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    """The latest messages of a queue, without their payloads."""
    limit = MESSAGES.read(request)["limit"]
    await _one(principal, queue)
    return answer({"queue": queue, "messages": await statistics.newest(principal.tenant_id, queue, limit)})


# -- Analytics -------------------------------------------------------------------------------------------------


@endpoint("read")
async def analytics(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Throughput by minute, hour or day, and the queues with the most of it."""
    asked = ANALYTICS.read(request)
    interval = asked["interval"]
    about, when = _about(asked), _range(asked, INTERVALS[interval])
    by_queue = await statistics.traffic_by_queue(principal.tenant_id, about, when)
    sums = {name: sum(series.values(), TrafficCounts()) for name, series in by_queue.items()}
    series = {at: sum((one[at] for one in by_queue.values()), TrafficCounts()) for at in when.points}
    total = sum(sums.values(), TrafficCounts())
    top = sorted(sums.items(), key=lambda item: (-item[1].pushed - item[1].completed, item[0]))[:10]
    return answer(
        {
            **_range_fields(when),
            "interval": interval,
            "throughput": {
                "totalIngested": total.pushed,
                "totalProcessed": total.completed,
                "timeSeries": [_point(at, one, when) for at, one in series.items()],
            },
            "latency": {"avgLagMs": total.average_lag_ms, "maxLagMs": total.max_lag_ms},
            "errors": {"ackFailed": total.failed, "dlqMessages": total.buried},
            "topQueues": [{"name": name, "ingested": one.pushed, "processed": one.completed} for name, one in top],
        }
    )


@endpoint("read")
async def queue_lag(request: HttpRequest, principal: Principal) -> HttpResponse:
    """By queue, how long messages waited to be popped, and how long the oldest one waits now."""
    about, when = _series(request)
    by_queue = await statistics.traffic_by_queue(principal.tenant_id, about, when)
    return answer(
        {
            **_range_fields(when),
            "queues": [
                {
                    "queue": one.name,
                    "lag": _lag(one),
                    "pending": one.pending,
                    "timeSeries": [
                        {
                            "timestamp": at,
                            "popMessages": t.popped,
                            "avgLagMs": t.average_lag_ms,
                            "maxLagMs": t.max_lag_ms,
                        }
                        for at, t in by_queue.get(one.name, {}).items()
                    ],
                }
                for one in (await statistics.depths(principal.tenant_id, about))[:PAGE]
            ],
        }
    )


@endpoint("read")
async def queue_ops(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Pushes, pops and acks by queue. Queues without traffic are left out."""
    about, when = _series(request)
    by_queue = await statistics.traffic_by_queue(principal.tenant_id, about, when)
    return answer(
        {
            **_range_fields(when),
            "queues": [
                {"queue": name, "timeSeries": [_point(at, one, when) for at, one in series.items()]}
                for name, series in by_queue.items()
            ],
        }
    )


@endpoint("read")
async def parked(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Long polls that wait in the process that answers, by queue."""
    found = await statistics.depths(principal.tenant_id, _about(ABOUT.read(request)))
    waiting = long_polls.parked().count_by_queue([one.id for one in found])
    return answer({"queues": [{"queue": one.name, "parked": waiting[one.id]} for one in found if one.id in waiting]})


@endpoint("read")
async def retention(request: HttpRequest, principal: Principal) -> HttpResponse:
    """By queue, how long messages are kept, and how many were removed since the queue was created."""
    found = await statistics.depths(principal.tenant_id, _about(ABOUT.read(request)))
    return answer(
        {
            "queues": [
                {
                    "queue": one.name,
                    "retentionEnabled": one.retention_enabled,
                    "retentionSeconds": one.retention_seconds,
                    "completedRetentionSeconds": one.completed_retention_seconds,
                    "maxWaitTimeSeconds": one.max_wait_seconds,
                    "messages": one.total,
                    "messagesRemoved": one.removed,
                }
                for one in found[:PAGE]
            ]
        }
    )
