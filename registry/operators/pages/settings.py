"""The page of a tenant's settings: name, time zone, limits, how its payments are sent. Other apps add parts."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django_async_backend.db.transaction import async_atomic

from registry.edge.pages import PageRequest, console_address, page
from registry.edge.viewer import SUPERUSER, Visitor
from registry.models import Flag, Tenant, known_time_zone
from registry.operators import parts
from registry.tenants import audit
from registry.tenants.time_zones import choices

LONGEST_NAME = 200  # characters
LARGEST_AMOUNT = 2**63 - 1
SWITCHES = {"inline.payment": "Payments", "inline.refund": "Refunds"}


@page("GET", "HEAD", "POST")
async def settings(request: PageRequest) -> HttpResponse:
    """The settings; owners change them."""
    return await parts.answer(parts.SETTINGS, request, show=_show, act=_save)


async def _save(request: PageRequest, visitor: Visitor, verb: str) -> HttpResponse:
    if verb != "save" or request.method != "POST":
        raise Http404
    form = {name: request.POST.get(name, "").strip() for name in ("name", "time_zone", "max_amount")}
    wanted, errors = _read(form, visitor.tenant)
    if errors:
        return await _show(request, visitor, status=422, form=form, errors=errors)
    tenant = visitor.tenant
    changed = {name: [getattr(tenant, name), value] for name, value in wanted.items() if getattr(tenant, name) != value}
    if changed:
        async with async_atomic():
            await Tenant.async_objects.filter(pk=tenant.pk).aupdate(**{name: pair[1] for name, pair in changed.items()})
            await audit.record(
                actor=visitor.actor,
                action="tenant.change",
                target=f"tenant {tenant.slug}",
                tenant_id=tenant.pk,
                detail=changed,
            )
    messages.success(request, "Saved." if changed else "Nothing was changed.")
    return redirect(console_address("settings", tenant=tenant.slug))


def _read(form: dict[str, str], tenant: Tenant) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of the fields, and what is wrong with them."""
    errors: dict[str, str] = {}
    if not form["name"] or len(form["name"]) > LONGEST_NAME or not form["name"].isprintable():
        errors["name"] = f"Say what your business is called, in at most {LONGEST_NAME} characters."
    try:
        known_time_zone(form["time_zone"])
    except ValidationError:
        errors["time_zone"] = "Choose a time zone of the list."
    most = _most(form["max_amount"], tenant, errors)
    return {"name": form["name"], "time_zone": form["time_zone"], "max_amount": most}, errors


def _most(text: str, tenant: Tenant, errors: dict[str, str]) -> int | None:
    """The largest amount of a payment. In live mode owners only lower it: a higher limit is the operator's risk."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= LARGEST_AMOUNT):
        errors["max_amount"] = "Enter a whole number of minor units, such as 10000; leave it empty for no limit."
        return None
    most = int(text) if text else None
    limit = tenant.max_amount if tenant.mode == Tenant.Mode.LIVE else None
    if limit is not None and (most is None or most > limit):
        errors["max_amount"] = f"In live mode only an operator of the service raises this limit above {limit:,}."
    return most


async def _show(
    request: PageRequest,
    visitor: Visitor,
    *,
    status: int = 200,
    more: dict[str, dict[str, Any]] | None = None,
    **given: Any,
) -> HttpResponse:
    tenant = visitor.tenant
    context = {
        "visitor": visitor,
        "form": {
            "name": tenant.name,
            "time_zone": tenant.time_zone,
            "max_amount": "" if tenant.max_amount is None else str(tenant.max_amount),
        },
        "zones": choices(),
        "switches": await _switches(tenant),
        "may_switch": visitor.role == SUPERUSER,
        "parts": await parts.shown(parts.SETTINGS, request, visitor, more or {}),
        **given,
    }
    return render(request, "registry/account/settings.html", context, status=status)


async def _switches(tenant: Tenant) -> list[dict[str, str]]:
    """How the tenant's payments and refunds are sent, and who has decided so."""
    named = {name async for name in Flag.async_objects.filter(tenants=tenant).values_list("name", flat=True)}
    everyone = {flag.name: flag.everyone async for flag in Flag.async_objects.filter(name__in=SWITCHES)}
    found = []
    for name, label in SWITCHES.items():
        for_all = everyone.get(name)
        inline = (name in named) if for_all is None else for_all
        scope = "for all tenants" if for_all is not None else "for this tenant" if inline else "the default"
        found.append({"label": label, "setting": "Inline" if inline else "Queued", "scope": scope})
    return found
