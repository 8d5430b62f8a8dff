"""`POST /payments/{id}/cancel`, `…/capture` and `/purge-payments`: changes to payments that are accepted."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from payments.api.payments import payment_id
from payments.books import purge as purging
from payments.errors import LiveTenant
from payments.settle import lifecycle
from payments.states import CANCELED
from queueing.jobs import lifecycle as jobs
from queueing.jobs import queries, store, waiting
from queueing.jobs.requests import of_service
from queueing.models import JobStatus
from registry.data import database
from registry.edge.api import api, described, json_response
from registry.errors import Unavailable
from registry.tenants.access import Principal, authorize

PURGE = "payments.purge"  # the kind of job that empties a large sandbox, and its unique key: there is one at a time
LEFT = "Some payments are left: call again."


@api.post(
    "/payments/{id}/cancel",
    tags=["payments"],
    summary="Cancel a payment that is queued, or that waits at its processor",
    openapi_extra=described("Canceled", 404, 409, accepted="It is being canceled at its processor"),
)
async def cancel(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    found = await lifecycle.cancel(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=200 if found["status"] == CANCELED else 202, headers=headers)


@api.post(
    "/payments/{id}/capture",
    tags=["payments"],
    summary="Capture an authorized payment",
    openapi_extra=described("", 404, 409, accepted="It is being captured"),
)
async def capture(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    found = await lifecycle.capture(tenant_id=principal.tenant_id, correlation_id=payment_id(id))
    return json_response(found, status=202, headers=headers)


@api.post(
    "/purge-payments",
    tags=["payments"],
    summary="Empty a sandbox tenant",
    openapi_extra=described("Purged", accepted="Some are left: a job removes them, or call again"),
)
async def purge(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "write", keyless=True)
    if principal.mode != "sandbox":
        raise LiveTenant
    if await purging.count(principal.tenant_id) > purging.AT_ONCE and (await waiting.taken_kinds())(PURGE):
        return await _purge_by_job(principal, headers)
    removed, left = await purging.purge(tenant_id=principal.tenant_id)
    if left:
        return json_response({"message": LEFT, "payments": removed, "left": left}, status=202, headers=headers)
    return json_response({"message": "All payments purged.", "payments": removed}, headers=headers)


async def _purge_by_job(principal: Principal, headers: dict[str, str]) -> HttpResponse:
    """Empty a large sandbox by a job, which leaves payments that are accepted from now on. Wait for it for a while.

    The answer names the job to callers with a key, who can read it. One that is at work already leaves what was accepted since it began.
    Raises Unavailable (503) if the job ends otherwise than by success.
    """
    asked = {"before": await purging.clock()}
    job = await store.submit(of_service(PURGE, asked, tenant_id=principal.tenant_id, unique_key=PURGE))
    await database.release()  # for as long as it waits
    done = await jobs.finished(tenant_id=principal.tenant_id, uuid=job.id, within=purging.WITHIN)
    about = {"id": str(job.id), "statusUrl": f"{settings.REGISTRY_URL}/jobs/{job.id}"}
    said: dict[str, Any] = {"job": about} if principal.key else {}
    if done:
        ended = await queries.job_of(principal.tenant_id, job.id)
        if ended.status != JobStatus.SUCCEEDED:
            raise Unavailable(f"the job that removes the payments is {ended.status}: {ended.error or 'call again'}")
        if job.at_work and (left := await purging.count(principal.tenant_id)):
            return json_response({"message": LEFT, "left": left, **said}, status=202, headers=headers)
        return json_response({"message": "All payments purged.", **said}, headers=headers)
    return json_response({"message": "A job removes the payments.", **said}, status=202, headers=headers)
