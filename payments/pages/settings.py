"""The sandbox's payments, on the page of a tenant's settings."""

from typing import Any

from django.http import Http404, HttpResponse

from payments.books import purge
from payments.errors import LiveTenant
from payments.jobs import operate
from registry.edge.pages import PageRequest, console_address
from registry.edge.viewer import Visitor
from registry.models import Tenant
from registry.operators import parts


async def _context(request: PageRequest, visitor: Visitor) -> dict[str, Any] | None:
    if not visitor.may_own or visitor.tenant.mode != Tenant.Mode.SANDBOX:
        return None
    return {
        "count": await purge.count(visitor.tenant.pk),
        "most": purge.COUNTED,
        "action": console_address("settings", tenant=visitor.tenant.slug, do="purge"),
    }


async def _act(request: PageRequest, visitor: Visitor, show: parts.Show) -> HttpResponse:
    try:
        return await operate.empty_sandbox(request, visitor)
    except LiveTenant:
        raise Http404 from None


parts.register(
    parts.PagePart(
        page=parts.SETTINGS,
        name="sandbox",
        order=30,
        template="payments/_sandbox.html",
        context=_context,
        verbs=frozenset({"purge"}),
        act=_act,
    )
)
