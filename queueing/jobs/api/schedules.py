"""`/schedules…`: a tenant's schedules. Reading requires the scope read; changes require write, and the scope of the job's kind."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from queueing.jobs.api.submit import MAX_BODY, accepted
from queueing.jobs.schedules import queries, schedules
from queueing.jobs.schedules.requests import SCHEDULE, ScheduleRequest, check_name
from registry.edge.api import PROBLEMS, api, described, json_response
from registry.edge.bodies import read
from registry.edge.handler import lean
from registry.edge.parameters import WORD, Query, whole
from registry.tenants import access
from registry.tenants.access import authorize

TAG = ["schedules"]
LIST_LIMIT, PAGE_AT_MOST = 100, 500  # items of a page
LIST = Query({"limit": whole(LIST_LIMIT, least=1, most=PAGE_AT_MOST), "cursor": WORD.saying("`next` of a page")})


@api.get(
    "/schedules",
    tags=TAG,
    summary="A page of schedules by name, with the total",
    openapi_extra=described("A page", 422, query=LIST, keyless=False),
)
async def browse(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    asked = LIST.read(request)
    page = await queries.page_of(principal.tenant_id, limit=asked["limit"], cursor=asked["cursor"])
    return json_response(page, headers=headers)


@lean(max_body=MAX_BODY, admit=access.require_key)
async def put(request: HttpRequest, name: str) -> HttpResponse:
    """201 for a new schedule, 200 for one that is replaced."""
    principal, headers = await authorize(request, "write")
    check_name(name)
    created = await schedules.save(principal=principal, name=name, request=read(request, SCHEDULE))
    body = await queries.detail(principal.tenant_id, name)
    return json_response(body, status=201 if created else 200, headers=headers)


@lean
async def one(request: HttpRequest, name: str) -> HttpResponse:
    """The schedule with its next due times and its latest job."""
    principal, headers = await authorize(request, "read")
    return json_response(await queries.detail(principal.tenant_id, name), headers=headers)


@lean
async def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Delete the schedule; its jobs stay."""
    principal, headers = await authorize(request, "write")
    await schedules.delete(principal=principal, name=name)
    return HttpResponse(status=204, headers=headers)


@api.post(
    "/schedules/{name}/run",
    tags=TAG,
    summary="Submit a job of the schedule now",
    openapi_extra=described("", 404, 409, accepted="The job, queued", keyless=False),
)
async def run(request: HttpRequest, name: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    key = request.META.get("HTTP_IDEMPOTENCY_KEY", "")
    job, receipt = await schedules.run(principal=principal, name=name, idempotency_key=key)
    if receipt.replayed:
        headers = {**headers, "Idempotent-Replayed": "true"}
    answer = accepted(job, receipt)
    return json_response(answer, status=202, headers={**headers, "Location": answer["statusUrl"]})


@api.post(
    "/schedules/{name}/pause",
    tags=TAG,
    summary="Submit no more jobs",
    openapi_extra=described("The schedule", 404, keyless=False),
)
async def pause(request: HttpRequest, name: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    await schedules.pause(principal=principal, name=name)
    return json_response(await queries.detail(principal.tenant_id, name), headers=headers)


@api.post(
    "/schedules/{name}/resume",
    tags=TAG,
    summary="Go on with the next due time",
    openapi_extra=described("The schedule", 404, keyless=False),
)
async def resume(request: HttpRequest, name: str) -> HttpResponse:
    principal, headers = await authorize(request, "write")
    await schedules.resume(principal=principal, name=name)
    return json_response(await queries.detail(principal.tenant_id, name), headers=headers)


# -- Descriptions of the plain views -------------------------------------------------------------------------

_JSON: dict[str, Any] = {"application/json": {}}
_NAME = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/ScheduleRequest"}}}


def _operation(id: str, summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tags": TAG, "operationId": id, "summary": summary, "parameters": _NAME, "responses": responses, **more}


_PROBLEMS = {str(status): answer for status, answer in described("", 404, keyless=False)["responses"].items()}

api.describe(
    "/schedules/{name}",
    "put",
    _operation(
        "save_schedule",
        "Create a schedule or replace it",
        {
            "201": {"description": "Created", "content": _JSON},
            "200": {"description": "Replaced", "content": _JSON},
            **PROBLEMS,
        },
        requestBody={"required": True, "content": _BODY},
    ),
    ScheduleRequest,
)
api.describe(
    "/schedules/{name}",
    "get",
    _operation(
        "get_schedule",
        "A schedule with its next due times and its latest job",
        {"200": {"description": "The schedule", "content": _JSON}, **_PROBLEMS},
    ),
)
api.describe(
    "/schedules/{name}",
    "delete",
    _operation("delete_schedule", "Delete a schedule; its jobs stay", {"204": {"description": "Deleted"}, **_PROBLEMS}),
)
