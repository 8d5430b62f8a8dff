"""The bodies of requests that submit jobs, and their checks."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec
from msgspec import Meta

from queueing.jobs import kinds, secrets
from queueing.jobs.errors import JobInputTooLarge
from queueing.jobs.job import NewJob
from queueing.jobs.kinds import LONGEST_TIMEOUT, Kind
from registry.edge import nulls
from registry.edge.bodies import field_faults
from registry.edge.unique import check_key, is_empty, is_no_value
from registry.errors import Invalid
from registry.http import ssrf
from registry.tenants.access import Principal

LARGEST_INPUT = 64 * 1024  # bytes
LATEST_RUN = timedelta(days=3653)  # from now
RESULT_TTL = 7 * 24 * 3600  # seconds
LONGEST_TTL = 366 * 24 * 3600  # seconds
MOST_ATTEMPTS = 100
BATCH_ITEMS = 1000

type Faults = list[dict[str, str]]


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The body of `POST /jobs`."""

    kind: Annotated[str, Meta(max_length=100, description="see `GET /job-kinds`")]
    input: Annotated[dict[str, Any], Meta(description="of the kind's schema; at most 64 KiB")] = msgspec.field(
        default_factory=dict
    )
    priority: Annotated[int, Meta(ge=0, le=9, description="9 is the highest")] = 0
    run_at: Annotated[datetime, Meta(tz=True, description="a time in the past means now")] | None = None
    unique_key: (
        Annotated[str, Meta(min_length=1, max_length=200, description="one open job of the kind at a time")] | None
    ) = None
    max_attempts: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=LONGEST_TIMEOUT, description="seconds of one attempt")] | None = None
    result_ttl: Annotated[int, Meta(ge=0, le=LONGEST_TTL, description="seconds that the result is kept")] = RESULT_TTL
    callback_url: Annotated[str, Meta(max_length=2000, description="gets a signed webhook once the job is over")] = ""


class JobBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /jobs/batch`. Items are decoded one by one, so that an invalid one does not reject the others."""

    items: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_ITEMS)]


JOB = msgspec.json.Decoder(JobRequest)
BATCH = msgspec.json.Decoder(JobBatch)


async def checked(request: JobRequest, principal: Principal, idempotency_key: str = "") -> NewJob:
    """The requested job. Raises Invalid (422) with all faults, JobInputTooLarge (413), Forbidden (403)."""
    kind = kinds.named(request.kind)
    principal.require(kind.scope)
    content = msgspec.json.encode(request.input)
    if len(content) > LARGEST_INPUT:
        raise JobInputTooLarge(f"the input has {len(content):,} bytes; at most {LARGEST_INPUT:,} are allowed")
    id = _id(principal, idempotency_key)
    faults = [*input_faults(kind, content), *_faults_of(request, kind), *await _callback_faults(request, principal)]
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
        priority=request.priority,
        run_at=request.run_at,
        unique_key=request.unique_key,
        max_attempts=request.max_attempts or kind.attempts,
        timeout=request.timeout or kind.timeout,
        result_ttl=request.result_ttl,
        callback_url=request.callback_url,
    )


def _id(principal: Principal, idempotency_key: str) -> UUID:
    """A new id; the same `Idempotency-Key` of a tenant always gives the same one."""
    if not idempotency_key:
        return uuid4()
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:{principal.tenant_id}:job:{idempotency_key}")


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


def _faults_of(request: JobRequest, kind: Kind) -> Faults:
    faults: Faults = []
    if request.run_at is not None and request.run_at > datetime.now(UTC) + LATEST_RUN:
        faults.append({"field": "runAt", "message": "is more than ten years from now"})
    if request.unique_key is not None and (is_empty(request.unique_key) or is_no_value(request.unique_key)):
        faults.append({"field": "uniqueKey", "message": "stands for no value"})
    if request.timeout is not None and request.timeout > max(kind.timeout, LONGEST_TIMEOUT):
        faults.append({"field": "timeout", "message": f"is longer than {LONGEST_TIMEOUT:g} s"})
    return faults


async def _callback_faults(request: JobRequest, principal: Principal) -> Faults:
    if not request.callback_url:
        return []
    try:
        await ssrf.checked(request.callback_url, tls_only=principal.mode == "live")
    except Invalid as error:
        return [fault | {"field": "callbackUrl"} for fault in error.errors]
    return []
