"""Pages of API keys: list, make, rotate, revoke, and first programs that use one. A key's plain text is shown once."""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.db import IntegrityError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render

from registry.data import clock
from registry.edge.entered import parsed
from registry.edge.pages import PageRequest, address_of, console_address, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.models import ApiKey
from registry.operators import operate
from registry.operators.confirm import asked
from registry.operators.snippets import snippets
from registry.tenants import access, keys
from registry.tenants.limits import parse_limit
from registry.tenants.time_zones import zone_of

PREFIX = re.compile(r"[0-9a-f]{12}")
LONGEST_NAME = 100  # characters
SCOPES = (
    ("read", "Read", "read payments, refunds, jobs, queues, and their live events"),
    ("write", "Write", "create and change payments, refunds, jobs and messages"),
    ("admin", "Admin", "all of these; also webhook endpoints, queue options, exports of all data, audit verification"),
)
MINE = {"revoke": "may_act", "rotate": "may_own", "create": "may_own"}  # a leaked key cannot wait for the owner


@page("GET", "HEAD", "POST")
async def api_keys(request: PageRequest) -> HttpResponse:
    """The tenant's keys; owners make and rotate them, operators may revoke one too."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    verb = asked(request).get("do")
    if verb is None and request.method != "POST":
        return await _show(request, visitor)
    if verb not in MINE or not getattr(visitor, MINE[verb]):
        raise Http404
    if verb == "create":
        if request.method != "POST":
            raise Http404
        return await _create(request, visitor)
    key = await _key(visitor, asked(request).get("key", ""))
    if verb == "revoke":
        return await operate.revoke_key(request, visitor, key)
    return await operate.rotate_key(
        request,
        visitor,
        key,
        successor=_prefix(request.POST.get("successor", "")),
        usable=_state(key)["word"] == "usable",
        shown=lambda made, plain: _show(request, visitor, made=made, plain=plain),
    )


async def _key(visitor: Visitor, prefix: str) -> ApiKey:
    found = await ApiKey.async_objects.filter(tenant=visitor.tenant, prefix=prefix.replace("\0", "")[:16]).afirst()
    if found is None:
        raise Http404
    return found


def _prefix(text: str) -> str:
    """The prefix that a form was given for the key that it makes; a new one for a new form."""
    return text if PREFIX.fullmatch(text) else access.new_prefix()


async def _show(
    request: PageRequest, visitor: Visitor, *, status: int = 200, plain: str = "", **more: Any
) -> HttpResponse:
    found = await keys.of_tenant(visitor.tenant.pk)
    context = {
        "visitor": visitor,
        "keys": [{"key": key, "state": _state(key)} for key in found],
        "most": keys.SHOWN,
        "scopes": SCOPES,
        "form": {"scopes": ["read", "write"]},
        "prefix": access.new_prefix(),
        "zone": visitor.tenant.time_zone,
        "today": clock.now().astimezone(zone_of(visitor.tenant)).date().isoformat(),
        "snippets": snippets(address_of(request)),
        "plain": plain,
        **more,
    }
    response = render(request, "registry/developers/keys.html", context, status=status)
    if plain:
        response["Cache-Control"] = "no-store"  # also not for the way back in the browser
    return response


def _state(key: ApiKey) -> dict[str, str]:
    if key.revoked_at:
        return {"shape": "✕", "colour": "red", "word": "revoked"}
    if key.expires_at and key.expires_at <= clock.now():
        return {"shape": "–", "colour": "grey", "word": "expired"}
    return {"shape": "●", "colour": "green", "word": "usable"}


# -- Make a key ------------------------------------------------------------------------------------------------


async def _create(request: PageRequest, visitor: Visitor) -> HttpResponse:
    form: dict[str, Any] = {name: request.POST.get(name, "").strip() for name in ("name", "expires", "rate_limit")}
    form["scopes"] = [scope for scope, *_ in SCOPES if scope in request.POST.getlist("scopes")]
    prefix = _prefix(request.POST.get("prefix", ""))
    errors = _faults(form)
    expires_at = _end_of(form["expires"], visitor, errors)
    if errors:
        return await _show(request, visitor, status=422, form=form, errors=errors, prefix=prefix)
    try:
        made, plain = await keys.issue(
            tenant=visitor.tenant,
            actor=visitor.actor,
            scopes=form["scopes"],
            name=form["name"],
            expires_at=expires_at,
            rate_limit=form["rate_limit"],
            prefix=prefix,
        )
    except IntegrityError:  # the form was sent twice, such as by a reload
        operate.made_already(request)
        return redirect(console_address("keys", tenant=visitor.tenant.slug))
    return await _show(request, visitor, made=made, plain=plain)


def _faults(form: dict[str, Any]) -> dict[str, str]:
    errors = {}
    if len(form["name"]) > LONGEST_NAME or not form["name"].isprintable():
        errors["name"] = f"Use at most {LONGEST_NAME} characters."
    if not form["scopes"]:
        errors["scopes"] = "Choose at least one scope."
    try:
        if len(form["rate_limit"]) > 50:
            raise ValueError
        if form["rate_limit"]:
            parse_limit(form["rate_limit"])
    except ValueError:
        errors["rate_limit"] = "Enter a number per unit of time, such as 100/second or 5000/hour."
    return errors


def _end_of(text: str, visitor: Visitor, errors: dict[str, str]) -> datetime | None:
    """The end of that day in the tenant's time zone."""
    day = parsed(datetime.fromisoformat, text, "expires", "is not a date", errors)
    if day is None:
        return None
    try:
        end = datetime.combine(day.date() + timedelta(days=1), time(), zone_of(visitor.tenant)).astimezone(UTC)
    except OverflowError:
        errors["expires"] = "This date is too far away."
        return None
    if end <= clock.now():
        errors["expires"] = "This day is over."
    return end


# -- For other pages -------------------------------------------------------------------------------------------


async def names(visitor: Visitor) -> dict[str, str]:
    """Prefixes of the tenant's keys with their names."""
    return {key.prefix: key.name for key in await keys.of_tenant(visitor.tenant.pk)}
