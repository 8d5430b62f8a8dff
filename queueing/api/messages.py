"""Messages, dead letters and traces: lists, details and changes (queue contract section 1.3)."""

from datetime import timedelta
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from queueing.api.edge import GROUP, LISTED, NAME, PARTITION, answer, check_name, endpoint, read, refuse
from queueing.broker import dead_letters, manage, messages, traces
from queueing.broker.errors import BadRequest
from queueing.models.broker import QUEUE_MODE
from registry.data import clock
from registry.edge.parameters import WHEN, Parameters, Query, Values, choice, offset_page
from registry.tenants.access import Principal

LOOK_BACK = timedelta(hours=1)  # of a list without `from`
FURTHEST = 100_000  # items before a page


def _paging(limit: int) -> Parameters:
    return offset_page(limit, most=1000, furthest=FURTHEST)


BROWSE = Query({**LISTED, **PARTITION, "status": choice(*messages.STATUSES, error=refuse), **WHEN, **_paging(200)})
DEAD_LETTERS = Query({"queue": NAME, **GROUP, **PARTITION, **WHEN, **_paging(100)})
PURGE = Query({"queue": NAME, **GROUP}, needed=("queue",))
MAKE_DEAD_LETTER = Query(GROUP)
TRACES_NAMED, TRACE_NAMES = Query(_paging(100)), Query(_paging(50))


class TraceBody(msgspec.Struct, rename="camel"):
    """A trace that a consumer writes about a message. `data` is any JSON."""

    transaction_id: str
    partition_id: str
    data: msgspec.Raw
    consumer_group: str | None = None
    event_type: str = "info"
    trace_names: str | list[str] | None = None


class DeadBody(msgspec.Struct, rename="camel"):
    """The consumer group for which a message becomes a dead letter, and the error."""

    consumer_group: str | None = None
    error: str | None = None


_trace = msgspec.json.Decoder(TraceBody)
_dead = msgspec.json.Decoder(DeadBody)


def _page(asked: Values) -> dict[str, int]:
    return {"limit": asked["limit"], "offset": asked["offset"]}


# -- Messages ------------------------------------------------------------------------------------------------


@endpoint("read")
async def browse(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A page of messages without their payloads, newest first; by default of the last hour."""
    asked, now = BROWSE.read(request), clock.now()
    status = asked["status"] or ""
    filters: dict[str, Any] = {
        "queue": asked["queue"],
        "partition": asked["partition"],
        "namespace": asked["namespace"] or asked["ns"],
        "task": asked["task"],
        "status": status,
        "from": asked["from"] or now - LOOK_BACK,
        "to": asked["to"] or now + LOOK_BACK,  # the database's clock may be ahead of ours
    }
    found = await messages.listed(principal.tenant_id, filters, **_page(asked))
    return answer({"messages": found, "mode": await messages.mode(principal.tenant_id, filters["queue"])})


@endpoint("read")
async def detail(_request: HttpRequest, principal: Principal, partition: str, transaction: str) -> HttpResponse:
    return answer(await messages.detail(principal.tenant_id, partition, check_name("transactionId", transaction)))


@endpoint("write")
async def delete(_request: HttpRequest, principal: Principal, partition: str, transaction: str) -> HttpResponse:
    await manage.delete(principal.tenant_id, partition, check_name("transactionId", transaction))
    return answer({"success": True, "deleted": True, "partitionId": partition, "transactionId": transaction})


@endpoint("admin")
async def retry(_request: HttpRequest, principal: Principal, partition: str, transaction: str) -> HttpResponse:
    return answer(await dead_letters.retry(principal.tenant_id, partition, check_name("transactionId", transaction)))


@endpoint("admin")
async def make_dead_letter(
    request: HttpRequest, principal: Principal, partition: str, transaction: str
) -> HttpResponse:
    body = read(request, _dead, empty=DeadBody())
    named = body.consumer_group
    group = check_name("consumerGroup", named) if named else MAKE_DEAD_LETTER.read(request)["consumerGroup"]
    error = (body.error or "").replace("\0", "")[:10_000]
    name = check_name("transactionId", transaction)
    groups = await dead_letters.make(principal.tenant_id, partition, name, group=group, error=error)
    return answer({"success": True, "partitionId": partition, "transactionId": transaction, "consumerGroups": groups})


# -- Dead letters ----------------------------------------------------------------------------------------------


@endpoint("read")
async def list_dead_letters(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A page of open dead letters with their payloads, latest first, and how many there are."""
    asked = DEAD_LETTERS.read(request)
    filters = {
        "queue": asked["queue"],
        "group": asked["consumerGroup"],
        "partition": asked["partition"],
        "from": asked["from"],
        "to": asked["to"],
    }
    page = _page(asked)
    found, total = await dead_letters.listed(principal.tenant_id, filters, **page)
    return answer({"messages": found, "total": total, "pagination": {**page, "total": total}})


@endpoint("admin")
async def replay(_request: HttpRequest, principal: Principal, dead_letter: str) -> HttpResponse:
    return answer(await dead_letters.replay(principal.tenant_id, dead_letter))


@endpoint("admin")
async def purge(request: HttpRequest, principal: Principal) -> HttpResponse:
    asked = PURGE.read(request)
    queue = asked["queue"]
    if not queue:
        raise BadRequest("queue is required: a purge is of one queue")
    count = await dead_letters.purge(principal.tenant_id, queue, asked["consumerGroup"])
    return answer({"success": True, "queue": queue, "purged": count})


# -- Traces --------------------------------------------------------------------------------------------------


@endpoint("write")
async def trace(request: HttpRequest, principal: Principal) -> HttpResponse:
    """201 with the trace's id."""
    body = read(request, _trace)
    names = [body.trace_names] if isinstance(body.trace_names, str) else body.trace_names or []
    if len(names) > 20:
        raise BadRequest(f"traceNames has {len(names)} names; at most 20")
    id = await traces.write(
        principal.tenant_id,
        body.partition_id,
        check_name("transactionId", body.transaction_id),
        bytes(body.data),
        group=check_name("consumerGroup", body.consumer_group or QUEUE_MODE),
        event_type=check_name("eventType", body.event_type)[:100],
        names=tuple(dict.fromkeys(check_name("traceNames", name) for name in names)),
    )
    return answer({"success": True, "traceId": id}, status=201)


@endpoint("read")
async def traces_of(_request: HttpRequest, principal: Principal, partition: str, transaction: str) -> HttpResponse:
    return answer({"traces": await traces.of_message(principal.tenant_id, partition, transaction)})


@endpoint("read")
async def traces_named(request: HttpRequest, principal: Principal, name: str) -> HttpResponse:
    page = _page(TRACES_NAMED.read(request))
    found, total = await traces.named(principal.tenant_id, check_name("name", name), **page)
    return answer(_with_total({"traces": found}, page, total))


@endpoint("read")
async def trace_names(request: HttpRequest, principal: Principal) -> HttpResponse:
    page = _page(TRACE_NAMES.read(request))
    found, total = await traces.names(principal.tenant_id, **page)
    return answer(_with_total({"traceNames": found}, page, total))


def _with_total(body: dict[str, Any], page: dict[str, int], total: int) -> dict[str, Any]:
    return {**body, **page, "total": total}
