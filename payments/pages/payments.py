"""Pages of payments: a tenant's live list and one payment, with what a visitor may do there."""

import json
import time
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django_async_backend.db.transaction import async_atomic

from payments.billing.pages.plan import banner
from payments.books import events, queries
from payments.intake.intake import submit
from payments.intake.payment import NewPayment
from payments.models import Processor
from payments.money import decimal_text, typed_amount
from payments.pages.payer import with_action
from payments.processors.sandbox_behaviours import BEHAVIOURS, behaviour_of
from payments.refunds.pages import refund_link
from payments.states import QUEUED, Status
from registry.data import database
from registry.data.cache import Cached
from registry.edge.cards import CARD, holds_card
from registry.edge.entered import as_entered, moment, parsed
from registry.edge.pages import PageRequest, address_of, key_header, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Invalid, Problem
from registry.models import Tenant
from registry.tenants import audit, links

ROWS = 25  # per page of the table: the first view stays below 100 KB
LINES = ("blue", "amber", "violet", "green", "grey")  # colours of the processors' lines, in the cards' order
OVERVIEW_FRESH = 1.0  # seconds; each open page asks every 2 s, and all pages of a process share one answer
OVERVIEWS_KEPT = 1_000  # tenants
LONGEST_DESCRIPTION = 200  # characters in the test payment's form


async def _figures(tenant_id: int) -> dict[str, Any]:
    return await queries.dashboard(tenant_id)


overviews: Cached[int, dict[str, Any]] = Cached(_figures, fresh=OVERVIEW_FRESH, kept=OVERVIEWS_KEPT)


# -- The list --------------------------------------------------------------------------------------------


@page("GET", "HEAD")
async def dashboard(request: PageRequest) -> HttpResponse:
    """A tenant's payments, updated live."""
    visitor = await visitor_of(request, guests=True)
    if visitor is None:
        return await nowhere(request)
    return await _dashboard(request, visitor)


@page("GET", "HEAD")
async def overview(request: PageRequest) -> HttpResponse:
    """The figures above the table: numbers, chart data, processors. Refreshed by the page."""
    return render(request, "payments/_overview.html", await _overview(await known(request, guests=True)))


async def _dashboard(request: HttpRequest, visitor: Visitor, **more: Any) -> HttpResponse:
    # Read the event number first: events that arrive while the page is rendered are then sent again, which is harmless.
    position = (await events.positions([visitor.tenant.pk])).get(visitor.tenant.pk, 0)
    context = {
        **await _overview(visitor),
        **await _table(request, visitor),
        "position": position,
        "blank": BLANK,
        "send_command": _send_command(request, visitor.tenant),
        "banner": await banner(visitor.tenant),
        **more,
    }
    return render(request, "payments/dashboard.html", context, status=422 if more else 200)


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


async def _overview(visitor: Visitor) -> dict[str, Any]:
    await (
        database.release()
    )  # a hundred waiting requests that hold connections would leave none for the one they wait for
    shared = await overviews.get(visitor.tenant.pk)
    figures = {**shared, "processors": [dict(processor) for processor in shared["processors"]]}
    for number, processor in enumerate(figures["processors"]):
        processor["colour"] = LINES[number % len(LINES)]
        if processor["kind"] == "sandbox":
            chosen = behaviour_of(processor["options"])
            processor["effect"] = BEHAVIOURS[chosen].effect
            processor["switches"] = [
                {"value": v, "word": b.word, "bad": b.bad, "on": v == chosen} for v, b in BEHAVIOURS.items()
            ]
    response = {p["name"]: p["trendMs"] for p in figures["processors"]}
    return {
        "visitor": visitor,
        "figures": figures,
        "series": json.dumps({**figures["series"], "response": response}, separators=(",", ":")),
        "any_sandbox": any("switches" in p for p in figures["processors"]),
        "any_card": any(p["kind"] == "stripe" and p["enabled"] for p in figures["processors"]),
        "add_processor": f".venv/bin/python manage.py processor add {visitor.tenant.slug} default --kind sandbox --fee 0.05",
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
        "newest": f"/?{urlencode(here)}",
        "older": f"/?{urlencode({**here, 'cursor': found['next']})}" if found["next"] else None,
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


# -- One payment ---------------------------------------------------------------------------------------------


@page("GET", "HEAD")
async def payment_live(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    """One payment, for holders of its signed link and for members of its tenant."""
    visitor = None
    if "token" in request.GET:
        tenant_id = links.tenant_of(correlation_id, request.GET["token"]) or 0  # 0 is no tenant's id
    else:
        visitor = await known(request, guests=True)
        tenant_id = visitor.tenant.pk
    payment = await queries.detail_of(tenant_id, correlation_id)
    if payment is None:
        raise Http404
    refund = await refund_link(visitor, correlation_id)
    if request.htmx:
        return render(request, "payments/_payment.html", {"payment": payment, "refund": refund})
    context = {
        "payment": payment,
        "refund": refund,
        "tenant": visitor.tenant if visitor else await Tenant.async_objects.aget(pk=tenant_id),
        "token": links.token_of(tenant_id, correlation_id),
        "back": f"/?{urlencode({'tenant': visitor.tenant.slug})}" if visitor else None,
    }
    return await with_action(request, context)


# -- The demo's controls ------------------------------------------------------------------------------------


async def _player(request: HttpRequest) -> Visitor:
    visitor = await known(request, guests=True)
    if not visitor.may_play:
        raise Http404
    return visitor


@page("POST")
async def set_behaviour(request: PageRequest, name: str) -> HttpResponse:
    """Make a sandbox processor work, slow down, fail or hang."""
    visitor = await _player(request)
    chosen = BEHAVIOURS.get(request.POST.get("behaviour", ""))
    mine = Processor.async_objects.filter(tenant_id=visitor.tenant.pk, name=name, kind="sandbox")
    processor = await mine.afirst()
    if chosen is None or processor is None:
        raise Http404
    before = behaviour_of(processor.options)
    async with async_atomic():
        await mine.aupdate(options={**processor.options, **chosen.options})
        await audit.record(
            actor=visitor.actor,
            action="processor.behave",
            target=f"processor {name}",
            tenant_id=visitor.tenant.pk,
            detail={"behaviour": [before, request.POST["behaviour"]]},
        )
    overviews.forget(visitor.tenant.pk)
    if request.htmx:
        return render(request, "payments/_overview.html", await _overview(visitor))
    return redirect(f"/?{urlencode({'tenant': visitor.tenant.slug})}#processor-{name}")


@page("POST")
async def send_test_payment(request: PageRequest) -> HttpResponse:
    """Accept a payment from the form, as the API does. A card payment continues on the payment's page."""
    visitor = await _player(request)
    entered = {name: request.POST.get(name, "").strip() for name in ("amount", "description")}
    by_card = request.POST.get("by") == "card"
    try:
        payment = _payment(
            visitor.tenant, **entered, processor=await _card_processor(visitor.tenant) if by_card else ""
        )
        started = time.perf_counter()
        await submit(payment)
    except Invalid as error:
        errors = {e["field"]: e["message"] for e in error.errors}
        if request.htmx:
            return render(request, "payments/_sent.html", {"errors": errors})
        return await _dashboard(request, visitor, form={**entered, "errors": errors})
    link = f"{reverse('payment_live', args=[payment.correlation_id])}?{urlencode({'tenant': visitor.tenant.slug})}"
    if request.htmx and by_card:
        return HttpResponse(headers={"HX-Redirect": link})
    if request.htmx:
        return render(request, "payments/_sent.html", {"took": time.perf_counter() - started, "link": link})
    return redirect(link)


async def _card_processor(tenant: Tenant) -> str:
    """The name of a processor that takes cards. Raises Http404 if there is none: the form has no button for it then."""
    takes = Processor.async_objects.filter(tenant=tenant, kind="stripe", enabled=True)
    if (name := await takes.order_by("fee").values_list("name", flat=True).afirst()) is None:
        raise Http404
    return str(name)


def _payment(tenant: Tenant, *, amount: str, description: str, processor: str = "") -> NewPayment:
    """Validate the form. Raises Invalid (422) naming the fields."""
    wrong = {}
    units = 0
    try:
        units = typed_amount(amount, tenant.currency)
        if tenant.max_amount is not None and units > tenant.max_amount:
            wrong["amount"] = f"must be at most {decimal_text(tenant.max_amount, tenant.currency)}"
    except Problem as error:
        wrong["amount"] = error.detail
    if len(description) > LONGEST_DESCRIPTION or "\0" in description:
        wrong["description"] = f"must be at most {LONGEST_DESCRIPTION} ordinary characters"
    elif holds_card(description):
        wrong["description"] = CARD
    if wrong:
        raise Invalid(errors=[{"field": field, "message": message} for field, message in wrong.items()])
    return NewPayment(
        tenant_id=tenant.pk,
        correlation_id=uuid4(),
        amount=units,
        currency=tenant.currency,
        description=description,
        processor=processor,
    )
