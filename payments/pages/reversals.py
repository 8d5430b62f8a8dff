"""Lists of a tenant's refunds and disputes, which take money back, with the actions on them."""

from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from payments.money import decimal_text
from payments.pages.codes import words
from payments.pages.filters import form_of, read_text, read_times, set_of
from payments.refunds import listing, operate
from payments.refunds.disputes import page_of
from payments.refunds.listing import DISPUTE_STATES, STOPPED, DisputeRow, RefundRow, ReversalFilters, ReversalPage
from payments.states import RefundStatus
from registry.edge.entered import parsed
from registry.edge.pages import PageRequest, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.models import Tenant

ROWS = 25  # of a page
FIELDS = ("q", "status", "from", "to", "period", "zone")
LONGEST_CURSOR = 18  # digits of an id
REFUND_WORDS = {STOPPED: "needs attention", **{status.value: status.label.lower() for status in RefundStatus}}
DISPUTE_WORDS = {state: state.replace("_", " ") for state in DISPUTE_STATES}


@page("GET", "HEAD")
async def refunds(request: PageRequest) -> HttpResponse:
    """A tenant's refunds, the newest first; for htmx the list alone, which is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    context, filters = read_list(request, visitor, "refund_list", REFUND_WORDS)
    found: ReversalPage[RefundRow] = ReversalPage()
    if filters:
        found = await listing.refunds(visitor.tenant.pk, filters, limit=ROWS, before=context["before"])
    context["items"] = [_refund(row, visitor) for row in found.rows]
    return answer_list(request, context, found, "refunds", made="Created")


@page("GET", "HEAD", "POST")
async def refund_act(request: PageRequest, refund_id: UUID) -> HttpResponse:
    """Confirm the retry or the end of a refund that workers gave up, and carry it out."""
    visitor = await known(request)
    back = f"{reverse('refund_list')}?{urlencode({'tenant': visitor.tenant.slug})}"
    return await operate.of_refund(request, visitor, refund_id, back)


@page("GET", "HEAD")
async def disputes(request: PageRequest) -> HttpResponse:
    """A tenant's disputes, the newest first; for htmx the list alone, which is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    context, filters = read_list(request, visitor, "dispute_list", DISPUTE_WORDS)
    found: ReversalPage[DisputeRow] = ReversalPage()
    if filters:
        found = await listing.disputes(visitor.tenant.pk, filters, limit=ROWS, before=context["before"])
    context["items"] = [_dispute(row, visitor) for row in found.rows]
    return answer_list(request, context, found, "disputes", made="Opened")


# -- All lists ------------------------------------------------------------------------------------------------------


def read_list(
    request: PageRequest, visitor: Visitor, name: str, states: dict[str, str]
) -> tuple[dict[str, Any], ReversalFilters | None]:
    """What every such page shows, and its filters; None if one is invalid. Raises Http404 for a cursor that is none."""
    entered = {field: request.GET.get(field, "").strip() for field in FIELDS}
    errors: dict[str, str] = {}
    times = read_times(entered, errors, visitor.tenant)
    text = read_text(entered["q"], errors)
    state = parsed(partial(_known, states), entered["status"], "status", "is not a state", errors) or ""
    cursor = request.GET.get("cursor", "")
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= LONGEST_CURSOR):
        raise Http404
    here = f"{reverse(name)}?{urlencode({'tenant': visitor.tenant.slug, **set_of(entered)})}"
    context = {
        **form_of(name, entered, errors, times, states),
        "visitor": visitor,
        "before": int(cursor) if cursor else None,
        "newest": here,
        "here": f"{here}&{urlencode({'cursor': cursor})}" if cursor else here,
    }
    filters = ReversalFilters(text=text, state=state, since=times.since, until=times.until)
    return context, None if errors else filters


def _known(states: dict[str, str], text: str) -> str:
    if text not in states:
        raise ValueError(text)
    return text


def answer_list(
    request: PageRequest, context: dict[str, Any], found: ReversalPage[Any], name: str, *, made: str
) -> HttpResponse:
    """The page, or for htmx the list alone. `made`: what the times of the rows are."""
    older = f"{context['newest']}&{urlencode({'cursor': found.next})}" if found.next else None
    part = f"payments/_{name}.html"
    context |= {"page": found, "older": older, "name": name, "made": made, "part": part}
    return render(request, part if request.htmx else "payments/reversals.html", context)


def _refund(row: RefundRow, visitor: Visitor) -> dict[str, Any]:
    return {
        "row": row,
        "amount": decimal_text(row.amount, row.currency),
        "code": words(row.code),
        "act": reverse("refund_act", args=[row.public_id]) if row.stopped and visitor.may_act else None,
    }


def _dispute(row: DisputeRow, visitor: Visitor) -> dict[str, Any]:
    return {
        "row": row,
        "amount": decimal_text(row.amount, row.currency),
        "withdrawn": decimal_text(row.withdrawn, row.currency),
        "page": page_of(
            kind=row.kind, url=row.url, reference=row.reference, live=visitor.tenant.mode == Tenant.Mode.LIVE
        ),
    }
