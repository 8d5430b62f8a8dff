"""Consumer groups: positions and lag, deletion, subscription, seek (queue contract section 1.4)."""

from datetime import datetime

import msgspec
from django.http import HttpRequest, HttpResponse

from queueing.api.edge import answer, check_name, endpoint, read
from queueing.broker import groups, traffic
from queueing.broker.errors import BadRequest
from queueing.models.broker import QUEUE_MODE
from registry.edge.parameters import Query, flag, offset_page, parse_time, whole
from registry.tenants.access import Principal

PAGE = 10_000  # partitions of a group in one answer
YEARS = 10 * 366 * 86_400  # seconds; nothing lags longer

LAGGING = Query({"minLagSeconds": whole(3600, capped=YEARS)})
DETAIL = Query(offset_page(PAGE, most=PAGE, furthest=10**9))
DELETE = Query({"deleteMetadata": flag("false: the subscription stays, and the group starts again", default=True)})


class SubscriptionBody(msgspec.Struct, rename="camel"):
    """The start of a group's subscription, ISO 8601."""

    subscription_timestamp: str


class SeekBody(msgspec.Struct, rename="camel"):
    """The new position of a group: the end, or the first message from an ISO 8601 time on."""

    to_end: bool = False
    timestamp: str | None = None


_subscription = msgspec.json.Decoder(SubscriptionBody)
_seek = msgspec.json.Decoder(SeekBody)


@endpoint("read")
async def all_groups(_request: HttpRequest, principal: Principal) -> HttpResponse:
    """One entry per group and queue, with its lag in messages and in seconds."""
    return answer(await groups.standings(principal.tenant_id))


@endpoint("read")
async def lagging(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Groups whose oldest message has waited for `minLagSeconds` or longer."""
    least = LAGGING.read(request)["minLagSeconds"]
    return answer(await groups.standings(principal.tenant_id, least_lag=max(least, 0.001)))


@endpoint("read")
async def detail(request: HttpRequest, principal: Principal, group: str) -> HttpResponse:
    """The group's position in each partition, by queue."""
    check_name("consumerGroup", group)
    asked = DETAIL.read(request)
    found = await groups.progress(principal.tenant_id, group, limit=asked["limit"], offset=asked["offset"])
    return answer({queue: {"partitions": places} for queue, places in found.items()})


@endpoint("admin")
async def delete(request: HttpRequest, principal: Principal, group: str, queue: str | None = None) -> HttpResponse:
    """Delete the group in one queue or in all; `deleteMetadata=false` keeps its subscription, so that it starts again."""
    check_name("consumerGroup", group)
    if queue is not None:
        check_name("Queue", queue)
    metadata = DELETE.read(request)["deleteMetadata"]
    found = await groups.delete(principal.tenant_id, group, queue=queue, subscription=metadata)
    return answer(
        {
            "success": True,
            "consumerGroup": group,
            **({} if queue is None else {"queueName": queue}),
            "existed": bool(found),
            "deletedMetadata": metadata and bool(found),
            "queues": sorted(found),
            "partitionsDeleted": sum(found.values()),
        }
    )


@endpoint("write")
async def subscribe(request: HttpRequest, principal: Principal, group: str) -> HttpResponse:
    """Set the start of the group's subscription; its position does not change."""
    check_name("consumerGroup", group)
    since = _time(read(request, _subscription).subscription_timestamp, "subscriptionTimestamp")
    if group == QUEUE_MODE:
        raise BadRequest("readers without a group have no subscription")
    updated = await groups.subscribe(principal.tenant_id, group, since)
    return answer({"success": True, "consumerGroup": group, "newTimestamp": since, "rowsUpdated": updated})


@endpoint("write")
async def seek(request: HttpRequest, principal: Principal, group: str, queue: str) -> HttpResponse:
    """Move the group to the end of the queue or to a time; its leases end."""
    return await _sought(request, principal, group, queue, None, read(request, _seek))


@endpoint("write")
async def seek_partition(
    request: HttpRequest, principal: Principal, group: str, queue: str, partition: str
) -> HttpResponse:
    """Move the group in one partition; without a body, to its end."""
    body = read(request, _seek, empty=SeekBody(to_end=True))
    if not body.timestamp:
        body.to_end = True
    return await _sought(request, principal, group, queue, check_name("Partition", partition), body)


async def _sought(
    _request: HttpRequest, principal: Principal, group: str, queue: str, partition: str | None, body: SeekBody
) -> HttpResponse:
    check_name("consumerGroup", group)
    check_name("Queue", queue)
    if body.to_end == bool(body.timestamp):
        raise BadRequest("wants either toEnd or timestamp")
    since = _time(body.timestamp, "timestamp") if body.timestamp else None
    updated = await groups.seek(principal.tenant_id, group, queue, since=since, partition=partition)
    return answer(
        {
            "success": True,
            "consumerGroup": group,
            "queueName": queue,
            **({} if partition is None else {"partitionName": partition}),
            "seekToEnd": body.to_end,
            "targetTimestamp": since,
            "partitionsUpdated": updated,
        }
    )


def _time(text: str, what: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        raise BadRequest(f"{what} wants an ISO 8601 time such as 2026-01-02T03:04:05Z") from None


@endpoint("admin")
async def refresh(_request: HttpRequest, _principal: Principal) -> HttpResponse:
    """Write this process's counts to the statistics now. All other figures are read when they are asked for."""
    await traffic.flush()
    return answer({"success": True, "message": "statistics are up to date"})
