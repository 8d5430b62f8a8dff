"""The page of a tenant's members: roles, removal. Invitations are a part of it that another app adds."""

from typing import Any

from django.http import Http404, HttpResponse
from django.shortcuts import render

from registry.edge.pages import PageRequest, page
from registry.edge.viewer import Visitor
from registry.models import Membership
from registry.operators import operate, parts
from registry.operators.confirm import asked
from registry.tenants import members


@page("GET", "HEAD", "POST")
async def team(request: PageRequest) -> HttpResponse:
    """The members; owners change them."""
    return await parts.answer(parts.TEAM, request, show=_show, act=_change)


async def _change(request: PageRequest, visitor: Visitor, verb: str) -> HttpResponse:
    member = await _member(visitor, asked(request).get("member", ""))
    role = asked(request).get("role", "")
    if verb == "role" and role in Membership.Role.values:
        return await operate.change_role(request, visitor, member, role)
    if verb == "remove":
        return await operate.remove_member(request, visitor, member)
    raise Http404


async def _member(visitor: Visitor, number: str) -> Membership:
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise Http404
    mine = Membership.async_objects.filter(tenant=visitor.tenant, pk=int(number)).select_related("user")
    if (found := await mine.afirst()) is None:
        raise Http404
    return found


async def _show(
    request: PageRequest, visitor: Visitor, *, status: int = 200, more: dict[str, dict[str, Any]] | None = None
) -> HttpResponse:
    context = {
        "visitor": visitor,
        "members": await members.of_tenant(visitor.tenant.pk),
        "roles": Membership.Role.choices,
        "rights": operate.RIGHTS,
        "parts": await parts.shown(parts.TEAM, request, visitor, more or {}),
    }
    response = render(request, "registry/account/team.html", context, status=status)
    if visitor.may_own:
        response["Cache-Control"] = "no-store"  # links of invitations
    return response
