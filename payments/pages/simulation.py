"""Controls of a sandbox on its home page: behaviours of sandbox processors, and test payments."""

import time
from urllib.parse import urlencode
from uuid import uuid4

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django_async_backend.db.transaction import async_atomic

from payments.intake.intake import submit
from payments.intake.payment import NewPayment
from payments.models import Processor
from payments.money import decimal_text, typed_amount
from payments.pages import home
from payments.processors.sandbox_behaviours import BEHAVIOURS, behaviour_of
from registry.edge.cards import CARD, holds_card
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import Visitor
from registry.errors import Invalid, Problem
from registry.models import Tenant
from registry.tenants import audit

LONGEST_DESCRIPTION = 200  # characters in the test payment's form


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
    home.presents.forget(visitor.tenant.pk)
    if request.htmx:
        return render(request, "payments/_overview.html", await home.overview_of(request, visitor))
    here = {"tenant": visitor.tenant.slug, **({"range": request.GET["range"]} if "range" in request.GET else {})}
    return redirect(f"/?{urlencode(here)}#test")


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
        return await home.shown(request, visitor, form={**entered, "errors": errors})
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
