"""`POST /jobs` and `POST /jobs/batch`: submit jobs. A batch has one result per item; an invalid one does not affect the others."""

import asyncio
import json
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from queueing.jobs import addresses, queries, store
from queueing.jobs.job import JobReceipt, NewJob
from queueing.jobs.requests import BATCH, BATCH_ITEMS, JOB, LARGEST_INPUT, JobRequest, addresses_in, checked
from registry.edge import nulls
from registry.edge.api import PROBLEMS, api, iso, json_response
from registry.edge.bodies import invalid, read, refuse_nul
from registry.edge.handler import lean
from registry.errors import Problem, Unavailable
from registry.telemetry import traces
from registry.tenants import access
from registry.tenants.access import Principal, authorize
from registry.tenants.limits import count_requests
from registry.tenants.sampling import TracedObject, enter

MAX_BODY = LARGEST_INPUT + 16 * 1024  # bytes: the largest input, and the other fields
LARGE_ITEM = 1024  # bytes; other requests run before an item that is larger


@lean(max_body=MAX_BODY, admit=access.require_key)
async def submit(request: HttpRequest) -> HttpResponse:
    """202 once the job is durable; the same content under the same `Idempotency-Key` gets the same answer. 200 with the job
    that has the same unique key and is at work."""
    principal, headers = await authorize(request, "write")
    job = await checked(read(request, JOB), principal, request.META.get("HTTP_IDEMPOTENCY_KEY", ""))
    receipt = await store.submit(job)
    if traces.on:
        enter([_traced(job, receipt)])
    if receipt.at_work:
        return json_response(await queries.detail(principal, receipt.id), headers=headers)
    if receipt.replayed:
        headers = {**headers, "Idempotent-Replayed": "true"}
    answer = accepted(job, receipt)
    return json_response(answer, status=202, headers={**headers, "Location": answer["statusUrl"]})


def _traced(job: NewJob, receipt: JobReceipt) -> tuple[TracedObject, bool]:
    return TracedObject("job", job.tenant_id, receipt.id), not (receipt.replayed or receipt.at_work)


def accepted(job: NewJob, receipt: JobReceipt) -> dict[str, Any]:
    return {
        "id": str(receipt.id),
        "kind": job.kind,
        "status": "queued",
        "createdAt": iso(receipt.created_at),
        "statusUrl": f"{settings.REGISTRY_URL}/jobs/{receipt.id}",
    }


# -- Batches -------------------------------------------------------------------------------------------------


@lean(max_body=settings.MAX_BATCH_BODY, admit=access.require_key)
async def submit_batch(request: HttpRequest) -> HttpResponse:
    """200 with one result per item, in order."""
    principal = await access.identify(request, "write")
    try:
        batch = read(request, BATCH, nul=True)
    except Problem:
        await count_requests(principal.rate_limit, principal.key)  # a batch that cannot be read counts as one request
        raise
    headers = await count_requests(principal.rate_limit, principal.key, cost=len(batch.items))
    requests = [await _decoded(raw) for raw in batch.items]
    urls = [url for one in requests if isinstance(one, JobRequest) for url in addresses_in(one)]
    async with addresses.looked_up(urls, mode=principal.mode):
        verdicts = [await _checked(one, principal) for one in requests]
    stored = iter(await store.submit_many([one for one in verdicts if isinstance(one, NewJob)]))
    results = [next(stored) if isinstance(one, NewJob) else one for one in verdicts]
    if traces.on:
        given = zip(verdicts, results, strict=True)
        enter([_traced(job, one) for job, one in given if isinstance(job, NewJob) and isinstance(one, JobReceipt)])
    refused = [one for one in results if isinstance(one, Unavailable)]
    if refused and not any(isinstance(one, JobReceipt) for one in results):
        raise refused[0]
    return json_response({"results": [_result(one) for one in results]}, headers=headers)


async def _decoded(raw: msgspec.Raw) -> JobRequest | Problem:
    body = bytes(raw)
    if len(body) > LARGE_ITEM:
        await asyncio.sleep(0)
    try:
        refuse_nul(body)
        return nulls.decode(JOB, body)
    except Problem as error:
        return error
    except (msgspec.ValidationError, RecursionError) as error:
        return invalid(json.loads(body), JOB, msgspec.ValidationError(str(error)))


async def _checked(request: JobRequest | Problem, principal: Principal) -> NewJob | Problem:
    if isinstance(request, Problem):
        return request
    try:
        return await checked(request, principal)
    except Problem as error:
        return error


def _result(one: JobReceipt | Problem) -> dict[str, Any]:
    if isinstance(one, JobReceipt):
        status = "at_work" if one.at_work else "replayed" if one.replayed else "queued"
        return {"id": str(one.id), "status": status}
    status = {409: "conflict", 503: "unavailable"}.get(one.status, "invalid")
    return {"id": None, "status": status, "error": {"detail": one.detail, "errors": one.errors}}


_ITEMS = {"type": "array", "maxItems": BATCH_ITEMS, "items": {"$ref": "#/components/schemas/JobRequest"}}
_BODY = {"type": "object", "required": ["items"], "properties": {"items": _ITEMS}}

api.describe(
    "/jobs",
    "post",
    {
        "tags": ["jobs"],
        "operationId": "submit_job",
        "summary": "Submit a job: 202 once it is durable",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}}},
        },
        "responses": {
            "202": {"description": "Durable"},
            "200": {"description": "The job with the same unique key, which is at work"},
            **PROBLEMS,
        },
    },
    JobRequest,
)
api.describe(
    "/jobs/batch",
    "post",
    {
        "tags": ["jobs"],
        "operationId": "submit_jobs",
        "summary": "Submit up to 1,000 jobs, one result per item",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        "responses": {"200": {"description": "One result per item, in order"}, **PROBLEMS},
    },
)
