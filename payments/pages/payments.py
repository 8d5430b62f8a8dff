"""A tenant's payments: the live list with its search and filters, and its export. One payment is in payment.py."""

from typing import Any

import msgspec
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from psycopg import AsyncConnection

from payments.books import events, search
from payments.jobs.export import NAME as EXPORT
from payments.jobs.export import MatchingInput
from payments.models import Processor
from payments.pages import filters
from payments.pages.filters import ListFilters
from queueing.jobs import store
from queueing.jobs.requests import of_service
from queueing.templatetags.queues import address
from registry.data.reading import elsewhere
from registry.edge.api import ENCODER
from registry.edge.pages import PageRequest, address_of, key_header, known, nowhere, page
from registry.edge.viewer import visitor_of
from registry.errors import Invalid
from registry.models import Tenant
from registry.operators.decide import Moved, decide

ROWS = 25  # per page of the table: the first view stays below 100 KB
ROWS_ASKED = 50  # that a page asks for at once


@page("GET", "HEAD")
async def payments(request: PageRequest) -> HttpResponse:
    """A tenant's payments, newest first, updated live."""
    visitor = await visitor_of(request, guests=True)
    if visitor is None:
        return await nowhere(request)
    chosen = filters.read(request.GET, visitor.tenant)
    names = Processor.async_objects.filter(tenant_id=visitor.tenant.pk).order_by("name").values_list("name", flat=True)
    context = {
        "visitor": visitor,
        **await _list(chosen, request.GET.get("cursor") or None),
        "processors": [name async for name in names],
        "send_command": _send_command(request, visitor.tenant),
    }
    return render(request, "payments/payments.html", context)


def _is_empty(found: dict[str, Any]) -> bool:
    return not found["page"].found


@elsewhere("payments.search", confirm=_is_empty)
async def _list(chosen: ListFilters, cursor: str | None) -> dict[str, Any]:
    """The table and the number of the event that it is at, both from one server. The number is read first: events that arrive
    meanwhile are then sent again, which is harmless."""
    position = (await events.positions([chosen.tenant.pk])).get(chosen.tenant.pk, 0)
    return {**await _table(chosen, cursor), "position": position}


async def _table(chosen: ListFilters, cursor: str | None) -> dict[str, Any]:
    found = await _found(chosen, cursor)
    return {
        "page": found,
        **chosen.form,
        "views": chosen.views,
        "filter_json": ENCODER.encode(chosen.for_browser).decode(),
        "page_is_first": not cursor,
        "rows_address": chosen.address("payment_rows"),
        "export_address": chosen.address("payment_export"),
        "newest": chosen.address(),
        "older": chosen.address(cursor=found.next) if found.next else None,
        "further": chosen.address(cursor=found.further) if found.further else None,
    }


async def _found(chosen: ListFilters, cursor: str | None) -> search.SearchPage:
    """The requested page. Invalid filters match nothing."""
    if chosen.search is None:
        return search.SearchPage()
    try:
        return await search.page_of(chosen.tenant.pk, chosen.search, limit=ROWS, cursor=cursor)
    except Invalid:
        raise Http404 from None


@page("GET")
async def payment_rows(request: PageRequest) -> HttpResponse:
    """Those of the payments of `id` that match the filters, as rows: the list asks for what is new or has changed."""
    visitor = await known(request, guests=True)
    asked = request.GET.copy()
    ids = asked.pop("id", [])
    chosen = filters.read(asked, visitor.tenant)
    try:
        wanted = filters.ids(ids, ROWS_ASKED)
    except ValueError:
        raise Http404 from None
    found = await search.items_of(visitor.tenant.pk, chosen.search, wanted) if chosen.search and wanted else []
    return render(request, "payments/_rows.html", {"visitor": visitor, "items": found})


@page("POST")
async def export_payments(request: PageRequest) -> HttpResponse:
    """A file of all payments that match, written by a job whose page shows its progress. For members: they may read them all."""
    visitor = await known(request)
    chosen = filters.read(request.GET, visitor.tenant)
    if chosen.search is None:
        return redirect(chosen.address())
    matching = msgspec.to_builtins(MatchingInput.of(chosen.search))
    job = of_service(EXPORT, {"matching": matching}, tenant_id=visitor.tenant.pk)
    told: list[Any] = []

    async def move(conn: AsyncConnection) -> list[Moved]:
        told[:] = await store.insert(conn, [job])
        return [Moved(target=f"job {job.id}", tenant_id=visitor.tenant.pk, detail=matching)]

    await decide(action=EXPORT, actor=visitor.actor, reason="", move=move)
    store.announce(told)
    return redirect(address("job", job.id, tenant=visitor.tenant.slug))


def _send_command(request: HttpRequest, tenant: Tenant) -> str:
    where = f"{address_of(request)}/payments{key_header(tenant)}"
    return f"curl {where} -H 'Content-Type: application/json' -d '{{\"amount\": 19.90}}'"
