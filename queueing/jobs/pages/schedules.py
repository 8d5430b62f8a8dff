"""The console's page of a tenant's schedules. Actions are in queueing/jobs/schedules/operate.py."""

import json
from typing import Any
from zoneinfo import ZoneInfo

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from queueing.jobs.errors import UnknownSchedule
from queueing.jobs.schedules import operate, queries
from queueing.jobs.schedules.schedules import schedule_of
from queueing.jobs.schedules.timing import NotATime, zone_of
from queueing.models import JobSchedule
from queueing.templatetags.queues import address
from registry.edge.pages import KEY_HEADER, PageRequest, address_of, known, nowhere, page
from registry.edge.viewer import visitor_of
from registry.operators.confirm import asked

ROWS = 50  # schedules of a page
UTC = ZoneInfo("UTC")


@page("GET", "HEAD")
async def schedules(request: PageRequest) -> HttpResponse:
    """The tenant's schedules by name, with their next due times and latest jobs."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    tenant_id, after = visitor.tenant.pk, request.GET.get("after", "").replace("\0", "")
    found = await queries.rows(tenant_id, ROWS + 1, after)
    shown = found[:ROWS]
    latest = await queries.last_jobs(tenant_id, shown)
    context = {
        "visitor": visitor,
        "schedules": [{"schedule": one, "due": _due(one), "job": latest.get(one.last_job)} for one in shown],
        "more": address("job_schedules", tenant=visitor.tenant.slug, after=shown[-1].name) if len(found) > ROWS else "",
        "first": address("job_schedules", tenant=visitor.tenant.slug) if after else "",
        "put_command": _put_command(request),
    }
    return render(request, "queueing/jobs/schedules.html", context)


def _due(schedule: JobSchedule) -> dict[str, Any] | None:
    """The next due time, for the viewer's clock, and as text by the schedule's own."""
    if schedule.next_at is None:
        return None
    try:
        local = schedule.next_at.astimezone(zone_of(schedule.timezone))
    except NotATime:  # the time zone database of this machine has lost it
        local = schedule.next_at.astimezone(UTC)
    return {"at": schedule.next_at, "local": f"{local:%a %Y-%m-%d %H:%M}"}


def _put_command(request: HttpRequest) -> str:
    job = {"kind": "http", "input": {"url": "https://shop.example/nightly"}}
    body = json.dumps({"cron": "0 6 * * *", "timezone": "Europe/Berlin", **job})
    where = f"{address_of(request)}/schedules/nightly{KEY_HEADER}"
    return f"curl -X PUT {where} -H 'Content-Type: application/json' -d '{body}'"


@page("GET", "HEAD", "POST")
async def schedule(request: PageRequest, name: str) -> HttpResponse:
    """The confirmation page of an action on one schedule."""
    visitor = await known(request)
    try:
        found = await schedule_of(visitor.tenant.pk, name)
    except UnknownSchedule:
        raise Http404 from None
    if "do" not in asked(request) or not visitor.may_act:
        raise Http404
    return await operate.of_schedule(request, visitor, found)
