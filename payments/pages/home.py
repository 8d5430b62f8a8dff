"""The home page of a tenant: figures, processors, and in a sandbox the controls of test payments."""

import json
import time
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django_async_backend.db.transaction import async_atomic

from payments.billing.pages.plan import banner
from payments.books import queries
from payments.intake.intake import submit
from payments.intake.payment import NewPayment
from payments.models import Processor
from payments.money import decimal_text, typed_amount
from payments.processors.sandbox_behaviours import BEHAVIOURS, behaviour_of
from registry.data import database
from registry.data.cache import Cached
from registry.edge.cards import CARD, holds_card
from registry.edge.pages import PageRequest, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Invalid, Problem
from registry.models import Tenant
from registry.tenants import audit

LINES = ("blue", "amber", "violet", "green", "grey")  # colours of the processors' lines, in the cards' order
OVERVIEW_FRESH = 1.0  # seconds; each open page asks every 2 s, and all pages of a process share one answer
OVERVIEWS_KEPT = 1_000  # tenants
LONGEST_DESCRIPTION = 200  # characters in the test payment's form


async def _figures(tenant_id: int) -> dict[str, Any]:
    return await queries.dashboard(tenant_id)


overviews: Cached[int, dict[str, Any]] = Cached(_figures, fresh=OVERVIEW_FRESH, kept=OVERVIEWS_KEPT)


@page("GET", "HEAD")
async def home(request: PageRequest) -> HttpResponse:
    """A tenant's figures and processors, updated live."""
    visitor = await visitor_of(request, guests=True)
    if visitor is None:
        return await nowhere(request)
    return await _home(request, visitor)


@page("GET", "HEAD")
async def overview(request: PageRequest) -> HttpResponse:
    """The figures: numbers, chart data, processors. Refreshed by the page."""
    return render(request, "payments/_overview.html", await _overview(await known(request, guests=True)))


async def _home(request: HttpRequest, visitor: Visitor, **more: Any) -> HttpResponse:
    context = {**await _overview(visitor), "banner": await banner(visitor.tenant), **more}
    return render(request, "payments/home.html", context, status=422 if more else 200)


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
        return await _home(request, visitor, form={**entered, "errors": errors})
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
