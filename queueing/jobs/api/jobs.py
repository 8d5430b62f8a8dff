"""`GET /jobs…`, and the routes that cancel and retry a job."""

from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from queueing.jobs import events, files, lifecycle, queries
from queueing.jobs.errors import JobResultExpired, UnknownJob
from queueing.jobs.kinds import KINDS, scope_of
from queueing.jobs.queries import JobFilters
from queueing.models import JobStatus
from registry.data import live
from registry.data.reading import elsewhere
from registry.edge.api import api, described, json_response
from registry.edge.handler import lean, until_disconnect
from registry.edge.parameters import EXTENDED_WHEN, LONG_POLL, TEXT, WORD, Query, choice, cursor_page
from registry.tenants.access import authorize

TAG = ["jobs"]
LIST_LIMIT, PAGE_AT_MOST = 50, 500  # items of a page
LIST = Query(
    {
        "status": choice(*JobStatus.values),
        "kind": WORD,
        **EXTENDED_WHEN,
        **cursor_page(LIST_LIMIT, most=PAGE_AT_MOST),
    },
    strict=True,
)
EVENTS = Query(LONG_POLL)
read_page = elsewhere("jobs.list")(queries.page_of)
FILE = Query({"token": TEXT.saying("of the signed link")})


def job_id(text: str) -> UUID:
    """The id in a path. Raises UnknownJob (404) for a text that is no UUID."""
    try:
        return UUID(text)
    except ValueError:
        raise UnknownJob from None


@lean
async def browse(request: HttpRequest) -> HttpResponse:
    """A page of jobs, newest first."""
    principal, headers = await authorize(request, "read")
    asked = LIST.read(request)
    filters = JobFilters(asked["status"], asked["kind"], asked["from"], asked["to"])
    page = await read_page(principal.tenant_id, filters, limit=asked["limit"], cursor=asked["cursor"])
    return json_response(page, headers=headers)


@api.get(
    "/jobs/{id}", tags=TAG, summary="A job with its timeline", openapi_extra=described("The job", 404, keyless=False)
)
async def detail(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    return json_response(await queries.detail(principal, job_id(id)), headers=headers)


@api.get(
    "/jobs/{id}/result",
    tags=TAG,
    summary="What a job returned",
    openapi_extra=described("The result: any JSON", 404, 409, 410, keyless=False),
)
async def result(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    body = await queries.result(principal.tenant_id, job_id(id))
    return HttpResponse(body.encode(), content_type="application/json", headers=headers)


@api.get(
    "/jobs/{id}/file",
    tags=TAG,
    summary="The file that a job wrote, for whoever has the signed link that the job shows",
    openapi_extra={**described("The file", 403, 404, 410, query=FILE), "security": [{}]},
)
async def file(request: HttpRequest, id: str) -> StreamingHttpResponse:
    uuid = job_id(id)
    tenant_id = files.tenant_of(uuid, FILE.read(request)["token"] or "")
    found = await files.file_of(await queries.job_of(tenant_id, uuid))
    if found is None:
        raise JobResultExpired
    headers = {"Content-Disposition": f'attachment; filename="{found.name}"', "Content-Length": str(found.size)}
    return StreamingHttpResponse(files.chunks(found), content_type=found.content_type, headers=headers)


@api.post(
    "/jobs/{id}/cancel",
    tags=TAG,
    summary="Cancel a job",
    openapi_extra=described("Canceled", 404, 409, accepted="It runs, and ends at its next checkpoint", keyless=False),
)
async def cancel(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    uuid = job_id(id)
    status = await lifecycle.cancel(tenant_id=principal.tenant_id, uuid=uuid)
    body = await queries.detail(principal, uuid)
    return json_response(body, status=202 if status == JobStatus.RUNNING else 200, headers=headers)


@api.post(
    "/jobs/{id}/retry",
    tags=TAG,
    summary="Queue a failed job again",
    openapi_extra=described("", 404, 409, accepted="Queued", keyless=False),
)
async def retry(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    uuid = job_id(id)
    principal.require(scope_of((await queries.job_of(principal.tenant_id, uuid)).kind))
    await lifecycle.retry(tenant_id=principal.tenant_id, uuid=uuid)
    return json_response(await queries.detail(principal, uuid), status=202, headers=headers)


@api.get(
    "/jobs/{id}/events",
    tags=["live"],
    summary="Long poll: a job's events after a sequence, or none after `wait` seconds",
    openapi_extra=described("Events, and the sequence to ask after next", 404, 422, query=EVENTS, keyless=False),
)
async def poll(request: HttpRequest, id: str) -> HttpResponse:
    principal, _ = await authorize(request, "read")
    asked = EVENTS.read(request)
    later = events_after(principal.tenant_id, job_id(id), asked["after"], within=asked["wait"])
    found = await until_disconnect(request.receive, later)  # type: ignore[attr-defined]
    return events_response(found or [], asked["after"])


async def events_after(tenant_id: int, uuid: UUID, after: int, *, within: float) -> list[live.Event]:
    """The job's events above a sequence, as soon as there are any. Raises UnknownJob (404)."""

    async def check() -> None:
        await queries.job_of(tenant_id, uuid)

    return await events.STREAM.after(tenant_id, uuid, after, within=within, check=check)


def events_response(found: list[live.Event], after: int) -> HttpResponse:
    """The answer of a long poll."""
    messages = [_message(event) for event in found]
    return json_response({"events": messages, "next": found[-1].sequence if found else after})


def _message(event: live.Event) -> dict[str, object]:
    return {"type": "job", "sequence": event.sequence, "job": msgspec.Raw(event.body)}


@api.get(
    "/job-kinds",
    tags=TAG,
    summary="The kinds of jobs",
    openapi_extra=described("Kinds, with schema and limits", keyless=False),
)
async def kinds(request: HttpRequest) -> HttpResponse:
    _, headers = await authorize(request, "read")
    shown = [
        {
            "name": kind.name,
            "title": kind.title,
            "scope": kind.scope,
            "maxAttempts": kind.attempts,
            "timeout": kind.timeout,
            "concurrency": kind.concurrency,
            "input": msgspec.json.schema(kind.input, schema_hook=_choices),
        }
        for _, kind in sorted(KINDS.items())
        if kind.public
    ]
    return json_response({"items": shown}, headers=headers)


def _choices(kind: type) -> dict[str, Any]:
    """The schema of a Django choices class, which msgspec reads but cannot describe."""
    if issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    raise NotImplementedError


api.describe(
    "/jobs",
    "get",
    {
        "tags": TAG,
        "operationId": "browse_jobs",
        "summary": "A page of jobs with the total",
        "parameters": LIST.describe(),
        "responses": described("A page", 422, keyless=False)["responses"],
    },
)


api.add_examples(__file__)
