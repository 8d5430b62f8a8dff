"""`/job-secret`, which signs calls and callbacks of jobs, and `GET /jobs/{id}/callbacks`."""

from django.http import HttpRequest, HttpResponse
from django_async_backend.db.transaction import async_atomic

from queueing.jobs.api.jobs import TAG, job_id
from queueing.jobs.queries import job_of
from queueing.outbound import job_secret, queries
from queueing.outbound.api import record
from registry.edge.api import api, described, json_response
from registry.edge.parameters import Query, cursor_page
from registry.tenants.access import authorize

PAGE = Query(cursor_page(50, most=200))
TARGET = "job secret"  # in the audit trail


@api.get(
    "/job-secret",
    tags=TAG,
    summary="The secret that signs `http` jobs and callbacks of jobs; the first call makes it",
    openapi_extra=described("The secret", keyless=False),
)
async def show(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "admin")
    secrets = await job_secret.of(principal.tenant_id)
    await record(principal, "job_secret.show", TARGET)
    return json_response({"secret": secrets.newest}, headers=headers)


@api.post(
    "/job-secret/rotate",
    tags=TAG,
    summary="Replace the secret; the former one signs too for 24 hours",
    openapi_extra=described("The new secret", keyless=False),
)
async def rotate(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "admin")
    async with async_atomic():
        secret = await job_secret.rotate(tenant_id=principal.tenant_id)
        await record(principal, "job_secret.rotate", TARGET)
    return json_response({"secret": secret}, headers=headers)


@api.get(
    "/jobs/{id}/callbacks",
    tags=TAG,
    summary="The deliveries of a job's callback, the newest first",
    openapi_extra=described("A page", 404, 422, query=PAGE, keyless=False),
)
async def callbacks(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read")
    uuid, asked = job_id(id), PAGE.read(request)
    await job_of(principal.tenant_id, uuid)
    before = queries.number(asked["cursor"]) if asked["cursor"] else None
    found, following = await queries.callbacks(principal.tenant_id, limit=asked["limit"], before=before, job=uuid)
    items = [queries.delivery_shown(one, receiver) for one, receiver in found]
    return json_response({"items": items, "next": str(following) if following else None}, headers=headers)
