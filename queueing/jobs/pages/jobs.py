"""The console's list of jobs and its page of one job. Actions are in queueing/jobs/operate.py."""

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from queueing.jobs import events, operate, queries
from queueing.jobs.api.jobs import EVENTS, events_after, events_response
from queueing.jobs.errors import UnknownJob
from queueing.jobs.figures import snapshots
from queueing.jobs.kinds import KINDS
from queueing.jobs.queries import JobFilters
from queueing.models import Job, JobStatus
from queueing.templatetags.queues import address
from registry.data import database
from registry.data.reading import elsewhere
from registry.edge.entered import as_entered, moment, parsed
from registry.edge.pages import KEY_HEADER, PageRequest, address_of, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Invalid, Problem
from registry.operators.confirm import asked

ROWS = 25  # jobs of a page

# -- The list ------------------------------------------------------------------------------------------------


@page("GET", "HEAD")
async def jobs(request: PageRequest) -> HttpResponse:
    """A tenant's jobs, updated live; for htmx only the figures, which are refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    if request.htmx:
        return render(request, "queueing/jobs/_figures.html", await _figures(visitor))
    context = {
        **await _figures(visitor),
        **await _list(request, visitor),
        "blank": BLANK,
        "submit_command": _submit_command(request),
        "kinds": sorted(KINDS),
        "statuses": list(JobStatus),
    }
    return render(request, "queueing/jobs/jobs.html", context)


# The row that the browser fills in for new jobs.
BLANK = {
    "id": "",
    "kind": "",
    "status": "queued",
    "attempts": 0,
    "createdAt": "1970-01-01T00:00:00Z",
    "updatedAt": "1970-01-01T00:00:00Z",
    "sequence": 0,
}


async def _figures(visitor: Visitor) -> dict[str, Any]:
    await database.release()  # while waiting for the cached snapshot, whose queries need connections
    found = await snapshots.get(visitor.tenant.pk)
    counts = [{"status": s, "count": n, "more": s in found.capped} for s, n in found.counts.items()]
    series = json.dumps(found.series, separators=(",", ":"))
    return {"visitor": visitor, "counts": counts, "oldest": found.oldest, "series": series}


@elsewhere("jobs.list", confirm=lambda found: not found["page"]["items"])
async def _list(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    """The table and the number of the event that it is at, both from one server. The number is read first: events that arrive
    meanwhile are then sent again, which is harmless."""
    position = (await events.positions([visitor.tenant.pk])).get(visitor.tenant.pk, 0)
    return {**await _table(request, visitor), "position": position}


async def _table(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    chosen = {name: request.GET.get(name, "").strip() for name in ("status", "kind", "from", "to")}
    cursor = request.GET.get("cursor") or None
    errors: dict[str, str] = {}
    found = await _found(visitor.tenant.pk, chosen, cursor, errors)
    for name in ("from", "to"):  # in the format of the browser's field; a value it cannot show is in the error
        chosen[name] = "" if name in errors else as_entered(chosen[name])
    wanted = {name: value for name, value in chosen.items() if value}
    here = {"tenant": visitor.tenant.slug, **wanted}
    return {
        "page": found,
        "chosen": chosen,
        "errors": errors,
        "filtered": bool(wanted or errors),
        "filter_json": json.dumps(wanted),
        "page_is_first": not cursor,
        "newest": f"{request.path}?{urlencode(here)}",
        "older": f"{request.path}?{urlencode({**here, 'cursor': found['next']})}" if found["next"] else "",
    }


async def _found(tenant_id: int, chosen: dict[str, str], cursor: str | None, errors: dict[str, str]) -> dict[str, Any]:
    """The requested page of jobs. Invalid filters are put into `errors` and match nothing."""
    since = parsed(moment, chosen["from"], "from", "is not a date and time", errors)
    until = parsed(moment, chosen["to"], "to", "is not a date and time", errors)
    status = parsed(JobStatus, chosen["status"], "status", "is not a state", errors)
    if "\0" in chosen["kind"]:
        errors["kind"] = "There is no such kind."
    if errors:
        return {"items": [], "next": None, "total": 0}
    filters = JobFilters(status=status, kind=chosen["kind"] or None, from_=since, to=until)
    try:
        return await queries.page_of(tenant_id, filters, limit=ROWS, cursor=cursor)
    except Invalid:
        raise Http404 from None


def _submit_command(request: HttpRequest) -> str:
    body = json.dumps({"kind": "http", "input": {"url": "https://shop.example/nightly", "body": {"order": 1}}})
    return f"curl {address_of(request)}/jobs{KEY_HEADER} -H 'Content-Type: application/json' -d '{body}'"


# -- One job -------------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def job(request: PageRequest, uuid: UUID) -> HttpResponse:
    """One job: its state, progress, timeline, input and result; for htmx the part that changes."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    found = await _job(visitor, uuid)
    if "do" in asked(request):
        if not visitor.may_act:
            raise Http404
        return await operate.of_job(request, visitor, found)
    context = await _context(visitor, found)
    return render(request, "queueing/jobs/_job.html" if request.htmx else "queueing/jobs/job.html", context)


async def _job(visitor: Visitor, uuid: UUID) -> Job:
    try:
        return await queries.job_of(visitor.tenant.pk, uuid)
    except UnknownJob:
        raise Http404 from None


async def _context(visitor: Visitor, job: Job) -> dict[str, Any]:
    kind = KINDS.get(job.kind)
    tenant = {"tenant": visitor.tenant.slug}
    return {
        "visitor": visitor,
        "job": {
            **await queries.described(job, privileged=visitor.may_act),
            "handedBack": job.handed_back,
            "lostAttempts": job.lost_attempts,
            "counted": job.attempt - job.tries_from,  # attempts since the latest retry that failed, or are under way
        },
        "title": kind.title if kind else "",
        "input": job.input,
        "result": await queries.result_of(job),
        "traceback": job.traceback if visitor.may_act else "",
        "may_cancel": visitor.may_act and operate.may_cancel(job),
        "may_retry": visitor.may_act and operate.may_retry(job),
        "statuses": list(JobStatus),
        "socket": f"/ws/jobs?{urlencode({**tenant, 'job': job.uuid})}",
        "events": f"{reverse('job_events', args=[job.uuid])}?{urlencode(tenant)}",
        "here": address("job", job.uuid, **tenant),
    }


@page("GET")
async def job_events(request: PageRequest, uuid: UUID) -> HttpResponse:
    """Long poll of the job's page, where websockets are blocked: by session, otherwise as `GET /jobs/{id}/events`."""
    visitor = await known(request)
    try:
        wanted = EVENTS.read(request)
        await database.release()  # it waits without a connection
        found = await events_after(visitor.tenant.pk, uuid, wanted["after"], within=wanted["wait"])
    except Problem as problem:
        if problem.status not in (404, 422):
            raise
        raise Http404 from None
    return events_response(found, wanted["after"])
