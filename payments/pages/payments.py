"""A tenant's payments: the live list with its filters. One payment is in payment.py."""

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from payments.books import events, queries
from payments.models import Processor
from payments.states import QUEUED, Status
from registry.edge.entered import as_entered, moment, parsed
from registry.edge.pages import PageRequest, address_of, key_header, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Invalid
from registry.models import Tenant

ROWS = 25  # per page of the table: the first view stays below 100 KB


@page("GET", "HEAD")
async def payments(request: PageRequest) -> HttpResponse:
    """A tenant's payments, newest first, updated live."""
    visitor = await visitor_of(request, guests=True)
    if visitor is None:
        return await nowhere(request)
    # Read the event number first: events that arrive while the page is rendered are then sent again, which is harmless.
    position = (await events.positions([visitor.tenant.pk])).get(visitor.tenant.pk, 0)
    names = Processor.async_objects.filter(tenant_id=visitor.tenant.pk).values_list("name", flat=True)
    context = {
        "visitor": visitor,
        **await _table(request, visitor),
        "processors": [name async for name in names],
        "position": position,
        "blank": BLANK,
        "send_command": _send_command(request, visitor.tenant),
    }
    return render(request, "payments/payments.html", context)


# Template row that the browser fills in for new payments.
BLANK = {
    "correlationId": "",
    "status": QUEUED.value,
    "amount": "0",
    "currency": "XXX",
    "processor": "",
    "attempts": 0,
    "updatedAt": "1970-01-01T00:00:00Z",
    "sequence": 0,
}


async def _table(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    chosen = {name: request.GET.get(name, "").strip() for name in ("status", "processor", "from", "to", "id")}
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
        "newest": f"{reverse('payment_list')}?{urlencode(here)}",
        "older": f"{reverse('payment_list')}?{urlencode({**here, 'cursor': found['next']})}" if found["next"] else None,
    }


async def _found(tenant_id: int, chosen: dict[str, str], cursor: str | None, errors: dict[str, str]) -> dict[str, Any]:
    """The requested page of payments. Invalid filters are put into `errors` and match nothing."""
    nothing: dict[str, Any] = {"items": [], "next": None, "total": 0}
    identifier = parsed(UUID, chosen["id"], "id", "is not a whole payment id", errors)
    since = parsed(moment, chosen["from"], "from", "is not a date and time", errors)
    until = parsed(moment, chosen["to"], "to", "is not a date and time", errors)
    status = parsed(Status, chosen["status"], "status", "is not a state", errors)
    if errors:
        return nothing
    if identifier:
        payment = await queries.status_of(tenant_id, identifier)
        return {"items": [payment], "next": None, "total": 1} if payment else nothing
    filters = queries.PaymentFilters(status=status, processor=chosen["processor"] or None, from_=since, to=until)
    try:
        return await queries.page_of(tenant_id, filters, limit=ROWS, cursor=cursor)
    except Invalid:
        raise Http404 from None


def _send_command(request: HttpRequest, tenant: Tenant) -> str:
    where = f"{address_of(request)}/payments{key_header(tenant)}"
    return f"curl {where} -H 'Content-Type: application/json' -d '{{\"amount\": 19.90}}'"
