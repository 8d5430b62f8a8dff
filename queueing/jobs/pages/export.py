"""Export of all data of a tenant, on the page of its settings."""

from typing import Any

from django.http import HttpResponse

from queueing.jobs import operate
from queueing.models import Job
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators import parts

SHOWN = 3  # exports


async def _context(request: PageRequest, visitor: Visitor) -> dict[str, Any] | None:
    if not visitor.may_own:
        return None
    mine = Job.async_objects.filter(tenant=visitor.tenant, kind=operate.EXPORT).order_by("-created_at", "-id")
    slug = visitor.tenant.slug
    return {
        "jobs": [{"job": job, "page": address("job", job.uuid, tenant=slug)} async for job in mine[:SHOWN]],
        "action": address("settings", tenant=slug, do="export"),
    }


async def _act(request: PageRequest, visitor: Visitor, show: parts.Show) -> HttpResponse:
    return await operate.export_tenant(request, visitor)


parts.register(
    parts.PagePart(
        page=parts.SETTINGS,
        name="export",
        order=20,
        template="queueing/jobs/_export.html",
        context=_context,
        verbs=frozenset({"export"}),
        act=_act,
    )
)
