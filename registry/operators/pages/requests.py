"""Pages of the request log: the API requests of the last 7 days, and what is known of one."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from registry.edge.entered import parsed
from registry.edge.pages import PageRequest, console_address, known, nowhere, page
from registry.edge.request_log import KEPT_DAYS, SUCCESSES
from registry.edge.viewer import Visitor, visitor_of
from registry.models import ApiKey
from registry.operators.pages.keys import names
from registry.tenants import api_requests
from registry.tenants.api_requests import STATUSES, RequestFilters
from registry.tenants.time_zones import as_entered, moment_in, zone_of

ROWS = 50  # entries of a page
LABELS = {"errors": "Errors", "2xx": "2xx success", "3xx": "3xx", "4xx": "4xx refused", "5xx": "5xx failed here"}
LARGEST = 2**63 - 1


@page("GET", "HEAD")
async def request_log(request: PageRequest) -> HttpResponse:
    """The newest requests, filtered by key, status, path and time; for htmx only the list, which is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    chosen = {name: request.GET.get(name, "").strip()[:300] for name in ("key", "status", "path", "from", "to")}
    errors: dict[str, str] = {}
    filters = _filters(visitor, chosen, errors)
    found = api_requests.RequestPage([], None, complete=True)
    if not errors:
        found = await api_requests.page_of(visitor.tenant.pk, filters, limit=ROWS, before=_number(request))
    zone = zone_of(visitor.tenant)
    for name, moment in (("from", filters.since), ("to", filters.until)):
        chosen[name] = as_entered(moment, zone)
    given = {name: value for name, value in chosen.items() if value}
    key_names = await names(visitor)
    context = {
        "visitor": visitor,
        "entries": [{"request": one, "name": key_names.get(one.key, "")} for one in found.entries],
        "keys": key_names,
        "statuses": LABELS,
        "chosen": chosen,
        "errors": errors,
        "filtered": bool(given or errors),
        "zone": visitor.tenant.time_zone,
        "complete": found.complete,
        "searched": api_requests.SEARCHED,
        "days": KEPT_DAYS,
        "successes": SUCCESSES,
        "here": request.get_full_path(),
        "newest": console_address("requests", tenant=visitor.tenant.slug, **given) if "before" in request.GET else "",
        "older": console_address("requests", tenant=visitor.tenant.slug, **given, before=found.before)
        if found.before
        else "",
    }
    return render(request, f"registry/developers/{'_requests' if request.htmx else 'requests'}.html", context)


def _filters(visitor: Visitor, chosen: dict[str, str], errors: dict[str, str]) -> RequestFilters:
    """The filters. Those that cannot be read are put into `errors`."""
    if chosen["status"] and chosen["status"] not in STATUSES:
        errors["status"] = "There is no such group of statuses."
    for name in ("key", "path"):
        if "\0" in chosen[name]:
            errors[name] = "This character occurs in no request."
    read = moment_in(zone_of(visitor.tenant))
    since, until = (parsed(read, chosen[name], name, "is not a date and time", errors) for name in ("from", "to"))
    return RequestFilters(key=chosen["key"], status=chosen["status"], path=chosen["path"], since=since, until=until)


def _number(request: HttpRequest) -> int | None:
    text = request.GET.get("before", "")
    return min(int(text), LARGEST) if text.isascii() and text.isdigit() and len(text) < 20 else None


@page("GET", "HEAD")
async def api_request(request: PageRequest, id: int) -> HttpResponse:
    """One request."""
    visitor = await known(request)
    found = await api_requests.one(visitor.tenant.pk, id) if id <= LARGEST else None
    if found is None:
        raise Http404
    key = await ApiKey.async_objects.filter(tenant=visitor.tenant, prefix=found.key).afirst()
    context: dict[str, Any] = {
        "visitor": visitor,
        "request_of": found,
        "key": key,
        "milliseconds": f"{found.duration / 1000:,.1f}",
        "local": f"{found.at.astimezone(zone_of(visitor.tenant)):%Y-%m-%d %H:%M:%S %Z}",
    }
    return render(request, "registry/developers/request.html", context)
