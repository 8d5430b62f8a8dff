"""Queues as resources: configure, list, inspect, clear, drop (queue contract sections 1.2 and 1.6)."""

from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from queueing.api.edge import GROUP, LISTED, NAME, PARTITION, answer, check_name, endpoint, read
from queueing.broker import browse, manage
from queueing.models.broker import QUEUE_MODE
from registry.edge.parameters import Query
from registry.tenants.access import Principal

LIST, CLEAR, DEPTH = Query(LISTED), Query(PARTITION), Query({"group": NAME, **GROUP})


class ConfigureBody(msgspec.Struct):
    """The options of a queue. `mode`: merge (options that are not named stay) or replace (they get their defaults)."""

    queue: str
    namespace: str | None = None
    task: str | None = None
    options: dict[str, Any] | None = None
    mode: str | None = None


_configure = msgspec.json.Decoder(ConfigureBody)


@endpoint("write")
async def configure(request: HttpRequest, principal: Principal) -> HttpResponse:
    """200 with all options as they are now."""
    body = read(request, _configure)
    names = {
        what: check_name(what, name) if name else name
        for what, name in (("namespace", body.namespace), ("task", body.task))
    }
    done = await manage.configure(
        principal.tenant_id,
        check_name("queue", body.queue),
        body.options or {},
        namespace=names["namespace"],
        task=names["task"],
        replace=manage.mode(body.mode),
    )
    return answer(done)


def _filters(request: HttpRequest) -> dict[str, str]:
    asked = LIST.read(request)
    return {"namespace": asked["namespace"] or asked["ns"], "task": asked["task"], "queue": asked["queue"]}


@endpoint("read")
async def queues(request: HttpRequest, principal: Principal) -> HttpResponse:
    return answer({"queues": await browse.queues(principal.tenant_id, **_filters(request))})


@endpoint("read")
async def queue(_request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    return answer(await browse.queue(principal.tenant_id, check_name("queue", queue)))


@endpoint("admin")
async def drop(_request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    existed = await manage.drop(principal.tenant_id, check_name("queue", queue))
    return answer({"deleted": True, "queue": queue, "existed": existed})


@endpoint("admin")
async def clear(request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    partition = CLEAR.read(request)["partition"]
    count = await manage.clear(principal.tenant_id, check_name("queue", queue), partition)
    return answer({"cleared": True, "queue": queue, "partition": partition or None, "deleted": count})


@endpoint("read")
async def depth(request: HttpRequest, principal: Principal, queue: str) -> HttpResponse:
    check_name("queue", queue)
    asked = DEPTH.read(request)
    group = asked["group"] or asked["consumerGroup"] or QUEUE_MODE
    found = await browse.depth(principal.tenant_id, queue, group)
    return answer(found)


@endpoint("read")
async def partitions(request: HttpRequest, principal: Principal) -> HttpResponse:
    return answer({"partitions": await browse.partitions(principal.tenant_id, **_filters(request))})


@endpoint("read")
async def namespaces(_request: HttpRequest, principal: Principal) -> HttpResponse:
    return answer({"namespaces": await browse.spaces(principal.tenant_id, "namespace")})


@endpoint("read")
async def tasks(_request: HttpRequest, principal: Principal) -> HttpResponse:
    return answer({"tasks": await browse.spaces(principal.tenant_id, "task")})


@endpoint("read")
async def overview(_request: HttpRequest, principal: Principal) -> HttpResponse:
    return answer(await browse.overview(principal.tenant_id))
