"""The page of a tenant's audit log, and its verification."""

import json
from typing import Any

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from registry.edge.entered import parsed
from registry.edge.pages import PageRequest, console_address, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.models import AuditEntry
from registry.operators.scope import require_act
from registry.tenants import audit_chain
from registry.tenants.time_zones import as_entered, moment_in, zone_of

ROWS = 50  # entries of a page


@page("GET", "HEAD", "POST")
async def audit_log(request: PageRequest) -> HttpResponse:
    """The entries, the newest first; after a POST with the result of the verification."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    require_act(visitor)
    verdict = None
    if request.method == "POST":
        if request.POST.get("do") != "verify":
            raise Http404
        verdict = await audit_chain.verify(visitor.tenant.pk)
    return render(request, "registry/account/audit.html", {**await _entries(request, visitor), "verdict": verdict})


async def _entries(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    chosen = {name: request.GET.get(name, "").strip()[:150] for name in ("actor", "action", "from", "to")}
    errors: dict[str, str] = {}
    zone = zone_of(visitor.tenant)
    since, until = (
        parsed(moment_in(zone), chosen[name], name, "is not a date and time", errors) for name in ("from", "to")
    )
    for name in ("actor", "action"):
        if "\0" in chosen[name]:
            errors[name] = "This character occurs in no entry."
    mine = AuditEntry.async_objects.filter(tenant=visitor.tenant)
    mine = mine.filter(at__gte=since) if since else mine
    mine = mine.filter(at__lt=until) if until else mine
    if not errors:
        mine = mine.filter(actor=chosen["actor"]) if chosen["actor"] else mine
        mine = mine.filter(action__startswith=chosen["action"]) if chosen["action"] else mine
    if last := await _last_seen(request, visitor):
        mine = mine.filter(Q(at__lt=last.at) | Q(at=last.at, pk__lt=last.pk))
    found = [] if errors else [one async for one in mine.order_by("-at", "-pk")[: ROWS + 1]]
    chosen |= {"from": as_entered(since, zone), "to": as_entered(until, zone)}
    given = {name: value for name, value in chosen.items() if value}
    slug = visitor.tenant.slug
    return {
        "visitor": visitor,
        "entries": [{"entry": one, "detail": _detail(one)} for one in found[:ROWS]],
        "chosen": chosen,
        "errors": errors,
        "filtered": bool(given or errors),
        "zone": visitor.tenant.time_zone,
        "newest": console_address("audit", tenant=slug, **given) if last else "",
        "older": console_address("audit", tenant=slug, **given, before=found[ROWS - 1].pk) if len(found) > ROWS else "",
    }


async def _last_seen(request: HttpRequest, visitor: Visitor) -> AuditEntry | None:
    text = request.GET.get("before", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return None
    return await AuditEntry.async_objects.filter(tenant=visitor.tenant, pk=int(text)).afirst()


def _detail(entry: AuditEntry) -> str:
    return json.dumps(entry.detail, ensure_ascii=False) if entry.detail else ""
