"""The bodies of requests that submit jobs, and their checks."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec
from msgspec import Meta

from queueing.jobs import addresses, kinds, secrets
from queueing.jobs.errors import JobInputTooLarge
from queueing.jobs.job import NewJob
from queueing.jobs.kinds import LONGEST_TIMEOUT, MOST_ATTEMPTS, Kind
from registry.data import clock
from registry.edge import nulls
from registry.edge.bodies import field_faults
from registry.edge.unique import check_key, is_empty, is_no_value
from registry.errors import Invalid
from registry.tenants.access import Principal

LARGEST_INPUT = 64 * 1024  # bytes
LATEST_RUN = timedelta(days=3653)  # from now
EARLIEST_RUN = datetime(2000, 1, 1, tzinfo=UTC)  # an earlier time means this one: some have no equivalent in UTC
SHORTEST_TIMEOUT = 0.001  # seconds: time-outs are stored in milliseconds
RESULT_TTL = 7 * 24 * 3600  # seconds
LONGEST_TTL = 366 * 24 * 3600  # seconds
BATCH_ITEMS = 1000

type Faults = list[dict[str, str]]


class JobOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What a job is to do, and how: the fields that requests and schedules have."""

    kind: Annotated[str, Meta(max_length=100, description="see `GET /job-kinds`")]
    input: Annotated[dict[str, Any], Meta(description="of the kind's schema; at most 64 KiB")] = msgspec.field(
        default_factory=dict
    )
    priority: Annotated[int, Meta(ge=0, le=9, description="9 is the highest")] = 0
    max_attempts: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS)] | None = None
    timeout: (
        Annotated[float, Meta(ge=SHORTEST_TIMEOUT, le=LONGEST_TIMEOUT, description="seconds of one attempt")] | None
    ) = None
    result_ttl: Annotated[int, Meta(ge=0, le=LONGEST_TTL, description="seconds that the result is kept")] = RESULT_TTL
    callback_url: Annotated[str, Meta(max_length=2000, description="gets a signed webhook once the job is over")] = ""


class JobRequest(JobOptions, frozen=True):
    """The body of `POST /jobs`."""

    run_at: Annotated[datetime, Meta(tz=True, description="a time in the past means now")] | None = None
    unique_key: (
        Annotated[str, Meta(min_length=1, max_length=200, description="one open job of the kind at a time")] | None
    ) = None


class JobBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /jobs/batch`. Items are decoded one by one, so that an invalid one does not reject the others."""

    items: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_ITEMS)]


JOB = msgspec.json.Decoder(JobRequest)
BATCH = msgspec.json.Decoder(JobBatch)


async def checked(request: JobRequest, principal: Principal, idempotency_key: str = "") -> NewJob:
    """The requested job. Raises Invalid (422) with all faults, JobInputTooLarge (413), Forbidden (403)."""
    job = await prepared(request, principal, id=new_id(principal, idempotency_key), faults=_faults_of(request))
    run_at = request.run_at and max(request.run_at, EARLIEST_RUN)
    return msgspec.structs.replace(job, run_at=run_at, unique_key=request.unique_key)


async def prepared(options: JobOptions, principal: Principal, *, id: UUID, faults: Faults) -> NewJob:
    """A job with these options and this id. Raises as `checked` does; `faults` are those found before."""
    kind = kinds.named(options.kind, public=True)
    principal.require(kind.scope)
    content = msgspec.json.encode(options.input)
    if len(content) > LARGEST_INPUT:
        raise JobInputTooLarge(f"the input has {len(content):,} bytes; at most {LARGEST_INPUT:,} are allowed")
    faults = [
        *await all_input_faults(kind, content, principal),
        *faults,
        *await _callback_faults(options, principal),
    ]
    if faults:
        raise Invalid("some fields are not acceptable", errors=faults)
    shown, sealed = secrets.divided(kind, content, place=secrets.place(principal.tenant_id, id))
    return NewJob(
        tenant_id=principal.tenant_id,
        id=id,
        kind=kind.name,
        input=shown,
        content=content,
        sealed=sealed,
        priority=options.priority,
        max_attempts=options.max_attempts or kind.attempts,
        timeout=options.timeout or kind.timeout,
        result_ttl=options.result_ttl,
        callback_url=options.callback_url,
    )


def addresses_in(request: JobRequest) -> list[str]:
    """The URLs in a request whose hosts `checked` looks up."""
    kind = kinds.KINDS.get(request.kind)
    named = [request.input.get(name) for name in kind.addresses] if kind else []
    return [url for url in (*named, request.callback_url) if url and isinstance(url, str)]


def of_service(
    name: str, input: msgspec.Struct | dict[str, Any], *, tenant_id: int, unique_key: str | None = None
) -> NewJob:
    """A job that the product itself submits. Its input is one that the kind has, without secrets."""
    kind = kinds.named(name)
    content = msgspec.json.encode(input)
    return NewJob(
        tenant_id=tenant_id,
        id=uuid4(),
        kind=name,
        input=content,
        content=content,
        unique_key=unique_key,
        max_attempts=kind.attempts,
        timeout=kind.timeout,
        result_ttl=RESULT_TTL,
    )


def new_id(principal: Principal, idempotency_key: str) -> UUID:
    """A new id; the same `Idempotency-Key` of a tenant always gives the same one."""
    if not idempotency_key:
        return uuid4()
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:{principal.tenant_id}:job:{idempotency_key}")


async def all_input_faults(kind: Kind, content: bytes, principal: Principal) -> Faults:
    """`input_faults`, and for an input of the right shape what the kind's own check finds."""
    if (faults := input_faults(kind, content)) or kind.check is None:
        return faults
    found = await kind.check(principal, nulls.decode(kind.decoder, content))
    return [fault | {"field": f"input.{fault['field']}"} for fault in found]


def input_faults(kind: Kind, content: bytes) -> Faults:
    """What is wrong with the input of a job of this kind, by field: `input.url`."""
    try:
        nulls.decode(kind.decoder, content)
    except (msgspec.ValidationError, RecursionError) as error:
        faults = field_faults(json.loads(content), kind.decoder) or [{"field": "body", "message": str(error)}]
        return [fault | {"field": _inside(fault["field"])} for fault in faults]
    return []


def _inside(field: str) -> str:
    return "input" if field == "body" else f"input.{field}"


def _faults_of(request: JobRequest) -> Faults:
    faults: Faults = []
    if request.run_at is not None and request.run_at > clock.now() + LATEST_RUN:
        faults.append({"field": "runAt", "message": "is more than ten years from now"})
    if request.unique_key is not None and (is_empty(request.unique_key) or is_no_value(request.unique_key)):
        faults.append({"field": "uniqueKey", "message": "stands for no value"})
    return faults


async def _callback_faults(options: JobOptions, principal: Principal) -> Faults:
    if not options.callback_url:
        return []
    return await addresses.faults_of(options.callback_url, mode=principal.mode, field="callbackUrl")
