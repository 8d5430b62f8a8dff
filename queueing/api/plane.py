"""The hot routes of the message queue: push, pop, ack, transaction, lease (queue contract section 1.1)."""

import re
from datetime import datetime
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from queueing.api.edge import GROUP, NAME, answer, check_name, endpoint, read, refuse
from queueing.broker import ack as acks
from queueing.broker import buffer, leases
from queueing.broker import pop as pops
from queueing.broker import transaction as transactions
from queueing.broker.ack_request import COMPLETED, Ack
from queueing.broker.catalog import GroupSubscription
from queueing.broker.errors import BadRequest
from queueing.broker.ids import new_id
from queueing.broker.push_rows import NewMessage
from queueing.models.broker import QUEUE_MODE, Group
from registry.edge.handler import until_disconnect
from registry.edge.parameters import TIME, Parameter, Query, Values, choice, flag, parse_time, whole
from registry.edge.unique import check_unique
from registry.tenants.access import Principal

WAIT, LONGEST_WAIT = 30_000, 60_000  # milliseconds of a long poll: without `timeout`, and at most
BATCH_AT_MOST = 10_000  # messages of one pop
PARTITIONS_AT_MOST = 100  # of one pop
EXTEND_AT_MOST = 86_400  # seconds

_NULL = msgspec.Raw(b"null")


class ItemBody(msgspec.Struct, rename="camel"):
    """One message of a push. `payload` is any JSON; it is kept byte for byte."""

    queue: str
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)  # the schema cannot show a Raw default
    partition: str | None = None
    transaction_id: str | None = None
    trace_id: str | None = None


class PushBody(msgspec.Struct):
    """Messages in the order they are to have within their partitions."""

    items: list[ItemBody]


class AckBody(msgspec.Struct, rename="camel"):
    """The acknowledgement of one message."""

    transaction_id: str
    partition_id: str
    status: str = COMPLETED
    lease_id: str | None = None
    consumer_group: str | None = None
    error: str | None = None


class AckBatchBody(msgspec.Struct, rename="camel"):
    """Acknowledgements of several messages, for one consumer group."""

    acknowledgments: list[AckBody]
    consumer_group: str | None = None


class OperationBody(msgspec.Struct, rename="camel"):
    """One operation of a transaction: `type` is push (with `items`) or ack (with what an ack has)."""

    type: str
    items: list[ItemBody] = []
    transaction_id: str | None = None
    partition_id: str | None = None
    status: str = COMPLETED
    lease_id: str | None = None
    consumer_group: str | None = None
    error: str | None = None


class TransactionBody(msgspec.Struct, rename="camel"):
    """Pushes and acks that happen together or not at all."""

    operations: list[OperationBody]
    required_leases: list[str] = []


class ExtendBody(msgspec.Struct):
    """The new duration of a lease, from now."""

    seconds: int = 60


_push = msgspec.json.Decoder(PushBody)
_ack = msgspec.json.Decoder(AckBody)
_ack_batch = msgspec.json.Decoder(AckBatchBody)
_transaction = msgspec.json.Decoder(TransactionBody)
_extend = msgspec.json.Decoder(ExtendBody)

# The contract's texts for fields that are missing or of the wrong type, by the end of msgspec's message.
_WORDS = (
    (re.compile(r"`queue`|\.queue`"), "Queue must be a string"),
    (re.compile(r"\.partition`"), "Partition must be a string"),
    (re.compile(r"items\[\d+\]\.transactionId`"), "TransactionId must be a string"),
    (re.compile(r"\.traceId`"), "TraceId must be a string"),
    (re.compile(r"acknowledgments\[\d+\].*transactionId|transactionId.*acknowledgments\[\d+\]"), "Each acknowledgment must have a valid transactionId string"),
    (re.compile(r"acknowledgments\[\d+\].*partitionId|partitionId.*acknowledgments\[\d+\]"), "Each acknowledgment must have a valid partitionId string to ensure message uniqueness"),
    (re.compile(r"`acknowledgments`|\.acknowledgments`"), "acknowledgments array is required"),
    (re.compile(r"`operations`|\.operations`"), "operations array required"),
    (re.compile(r"`items`|\.items`"), "items array is required"),
    (re.compile(r"transactionId`"), "transactionId is required"),
    (re.compile(r"partitionId`"), "partitionId is required to ensure message uniqueness"),
)  # fmt: skip


def _read[S](request: HttpRequest, decoder: msgspec.json.Decoder[S], *, empty: S | None = None) -> S:
    try:
        return read(request, decoder, empty=empty)
    except BadRequest as error:
        words = next((words for pattern, words in _WORDS if pattern.search(error.detail)), None)
        if words is None or error.detail.startswith("Invalid JSON"):
            raise
        raise BadRequest(words) from None


# -- Push --------------------------------------------------------------------------------------------------


@endpoint("write", max_body=settings.MAX_PUSH_BODY)
async def push(request: HttpRequest, principal: Principal) -> HttpResponse:
    """201 with one verdict per item, in order; `buffered` while the database is away or the tenant in maintenance."""
    items = [item_of(item) for item in _read(request, _push).items]
    return answer(await buffer.push_or_buffer(principal.tenant_id, principal.key, items), status=201)


def item_of(body: ItemBody) -> NewMessage:
    """A checked item. Raises BadRequest (400), Invalid (422) for a transaction id that cannot be unique."""
    transaction_id = body.transaction_id
    if transaction_id is not None:
        check_unique("transactionId", transaction_id)
    return NewMessage(
        queue=check_name("Queue", body.queue),
        payload=bytes(body.payload),
        partition="Default" if body.partition is None else check_name("Partition", body.partition),
        transaction_id="" if transaction_id is None else check_name("TransactionId", transaction_id),
        trace_id=None if body.trace_id is None else _trace(body.trace_id),
    )


def _trace(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest("TraceId must be a UUID") from None


# -- Pop ---------------------------------------------------------------------------------------------------

# The values that clients send, and their meaning. `timestamp` has one only with subscriptionFrom.
SUBSCRIPTION_MODES = {
    "all": Group.Mode.ALL,
    "from_beginning": Group.Mode.ALL,
    "timestamp": Group.Mode.ALL,
    "new": Group.Mode.NEW,
    "new-only": Group.Mode.NEW,
}


def _since(_name: str, text: str) -> datetime | str:
    """`now`, or a time."""
    try:
        return text if text == "now" else parse_time(text)
    except ValueError:
        raise BadRequest("subscriptionFrom wants now or an ISO 8601 time") from None


_SINCE = Parameter[datetime | str | None](
    {"anyOf": [{"const": "now"}, *TIME.schema["anyOf"]], "description": "now or an ISO 8601 time"}, _since, None
)
_POP = {
    "batch": whole(1, least=1, capped=BATCH_AT_MOST),
    "wait": flag(),
    "timeout": whole(WAIT, capped=LONGEST_WAIT).saying(
        f"milliseconds of a long poll; more than {LONGEST_WAIT} count as {LONGEST_WAIT}"
    ),
    **GROUP,
    "autoAck": flag(),
    "subscriptionMode": choice(*SUBSCRIPTION_MODES, error=refuse),
    "subscriptionFrom": _SINCE,
}
_PARTITIONS = {"partitions": whole(1, least=1, capped=PARTITIONS_AT_MOST)}
POP_PARTITION = Query(_POP)
POP_QUEUE = Query({**_POP, **_PARTITIONS})
POP_ANY = Query({**_POP, **_PARTITIONS, "namespace": NAME, "task": NAME}, one_of=("namespace", "task"))


@endpoint("write")
async def pop(request: HttpRequest, principal: Principal, queue: str = "", partition: str = "") -> HttpResponse:
    """200 with messages and their lease, 204 when nothing is due (within `timeout` milliseconds, with `wait`)."""
    asked = (POP_PARTITION if partition else POP_QUEUE if queue else POP_ANY).read(request)
    target = _target(asked, queue, partition)
    auto_ack, within = asked["autoAck"], asked["timeout"] / 1000
    wait = within if asked["wait"] else 0
    popping = pops.pop(
        principal.tenant_id,
        target,
        size=asked["batch"],
        partitions=1 if partition else asked["partitions"],
        auto_ack=auto_ack,
        wait=wait,
    )
    found = await (until_disconnect(request.receive, popping) if wait else popping)  # type: ignore[attr-defined]
    if found is None or not found.messages:
        return HttpResponse(status=204)
    first = found.messages[0]
    return answer(
        {
            "success": True,
            "queue": first.queue,
            "partition": first.partition,
            "partitionId": first.partition_id,
            "leaseId": first.lease_id,
            "consumerGroup": target.group,
            "partitionsClaimed": found.partitions,
            "messages": found.messages,
        }
    )


def _target(asked: Values, queue: str, partition: str) -> pops.Target:
    namespace = task = ""
    if queue:
        check_name("Queue", queue)
    else:
        namespace, task = asked["namespace"], asked["task"]
        if not namespace and not task:
            raise BadRequest("namespace or task is required where no queue is named")
    if partition:
        check_name("Partition", partition)
    return pops.Target(
        queue=queue,
        partition=partition,
        namespace=namespace,
        task=task,
        group=asked["consumerGroup"] or QUEUE_MODE,
        subscription=_subscription(asked["subscriptionMode"], asked["subscriptionFrom"]),
    )


def _subscription(mode: str | None, since: datetime | str | None) -> GroupSubscription:
    """The start of a new group: a time takes precedence over a mode."""
    if since == "now":
        return GroupSubscription(Group.Mode.NEW)
    if isinstance(since, datetime):
        return GroupSubscription(Group.Mode.TIMESTAMP, since)
    return GroupSubscription(SUBSCRIPTION_MODES[mode or settings.DEFAULT_SUBSCRIPTION_MODE])


# -- Ack ---------------------------------------------------------------------------------------------------


@endpoint("write")
async def ack(request: HttpRequest, principal: Principal) -> HttpResponse:
    """200 with an array of one verdict."""
    body = _read(request, _ack)
    return answer(await acks.ack(principal.tenant_id, [ack_of(body, body.consumer_group)]))


@endpoint("write", max_body=settings.MAX_PUSH_BODY)
async def ack_batch(request: HttpRequest, principal: Principal) -> HttpResponse:
    """200 with one verdict per ack, in order."""
    body = _read(request, _ack_batch)
    wanted = [ack_of(one, one.consumer_group or body.consumer_group) for one in body.acknowledgments]
    return answer(await acks.ack(principal.tenant_id, wanted))


def ack_of(body: AckBody, group: str | None) -> Ack:
    return Ack(
        transaction_id=check_name("transactionId", body.transaction_id),
        partition_id=body.partition_id,
        status=body.status,
        lease_id=body.lease_id or "",
        group=check_name("consumerGroup", group or QUEUE_MODE),
        error=None if body.error is None else body.error.replace("\0", "")[:10_000],
    )


# -- Transaction ---------------------------------------------------------------------------------------------


@endpoint("write", max_body=settings.MAX_PUSH_BODY)
async def transaction(request: HttpRequest, principal: Principal) -> HttpResponse:
    """200 with one result per item and ack; if one fails nothing is done, `success` is false and `error` says why."""
    body = _read(request, _transaction)
    if not body.operations:
        raise BadRequest("operations array cannot be empty")
    operations = [_operation(one) for one in body.operations]
    name = str(new_id())
    try:
        results = await transactions.commit(principal.tenant_id, principal.key, operations, body.required_leases)
    except transactions.OperationRefused as error:
        return answer({"transactionId": name, "success": False, "results": [], "error": str(error)})
    return answer({"transactionId": name, "success": True, "results": results})


def _operation(body: OperationBody) -> transactions.Operation:
    if body.type == "push":
        return transactions.Operation(items=tuple(item_of(item) for item in body.items))
    if body.type != "ack":
        raise BadRequest("type wants push or ack")
    if body.transaction_id is None:
        raise BadRequest("transactionId is required")
    if body.partition_id is None:
        raise BadRequest("partitionId is required to ensure message uniqueness")
    one = AckBody(body.transaction_id, body.partition_id, body.status, body.lease_id, body.consumer_group, body.error)
    return transactions.Operation(ack=ack_of(one, body.consumer_group))


# -- Lease ---------------------------------------------------------------------------------------------------


@endpoint("write")
async def extend(request: HttpRequest, principal: Principal, lease: str) -> HttpResponse:
    """200 with an array of one verdict; a lease never gets shorter."""
    seconds = _read(request, _extend, empty=ExtendBody()).seconds
    if not 1 <= seconds <= EXTEND_AT_MOST:
        raise BadRequest(f"seconds wants 1 to {EXTEND_AT_MOST}")
    return answer([await leases.extend(principal.tenant_id, lease, seconds)])
