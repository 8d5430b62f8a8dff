"""The page of one payment, for members of its tenant and for payers with its signed link."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from payments.books import queries
from payments.books.history import history_of
from payments.books.payer import payers_view
from payments.pages import operate
from payments.pages.explain.banner import DISCREPANCIES_PAGE, DISPUTE_PAGE, PAYERS_PAGE, PROCESSORS, REFUND_PAGE, Banner
from payments.pages.explain.before import is_scheduled
from payments.pages.explain.payer import explain_to_payer
from payments.pages.explain.reversed import refundable
from payments.pages.explain.rules import explain
from payments.pages.facts import PaymentFacts, facts_of
from payments.pages.payer import with_action
from payments.pages.timeline import payers_timeline, timeline
from payments.reconciliation.listing import OPEN as OPEN_ONES
from payments.refunds import disputes
from payments.settle import slow
from payments.states import FAILED, SUCCEEDED, TERMINAL
from payments.templatetags.payments import sentence
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import MAY_ACT, SUPERUSER, Visitor
from registry.models import Tenant
from registry.telemetry import traces
from registry.tenants import links
from registry.tenants.sampling import TracedObject, rate_of, sampled

# Seconds between refreshes of what changes without an event: look-ups, processors, discrepancies.
WHILE_OPEN, ONCE_FINAL = 3, 20


@page("GET", "HEAD")
async def payment_live(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    """One payment. A link's token shows what concerns the payer, to members of the tenant too."""
    if "token" in request.GET:
        tenant_id = links.tenant_of(correlation_id, request.GET["token"]) or 0  # 0 is no tenant's id
        context = await _for_payer(tenant_id, correlation_id)
    else:
        visitor = await known(request, guests=True)
        tenant_id = visitor.tenant.pk
        context = await _for_member(visitor, correlation_id)
    if request.htmx:
        return render(request, "payments/_payment.html", context)
    return await with_action(request, context)


@page("GET", "HEAD", "POST")
async def payment_act(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    """Confirm an action that a banner of the payment offers, and carry it out."""
    visitor = await known(request)
    facts = await facts_of(visitor.tenant.pk, correlation_id)
    if facts is None:
        raise Http404
    return await operate.of_payment(
        request, visitor, correlation_id, facts, _address("payment_live", visitor, correlation_id)
    )


# -- For payers --------------------------------------------------------------------------------------------


async def _for_payer(tenant_id: int, correlation_id: UUID) -> dict[str, Any]:
    """What the link's page shows: the payer's fields, two sentences, states and times."""
    found, facts = await _read(tenant_id, correlation_id)
    events, _ = await history_of(tenant_id, facts.id)
    tenant = await Tenant.async_objects.aget(pk=tenant_id)
    note = explain_to_payer(facts, tenant.name)
    token = links.token_of(tenant_id, correlation_id)
    link = urlencode({"token": token})
    return {
        "payment": payers_view(found),
        "shown": facts.shown_to_payers,
        "sentence": note.what,
        "note": note,
        "steps": payers_timeline(events),
        "tenant": tenant,
        "token": token,
        "action": facts.action,
        "final": facts.status in TERMINAL,
        "refresh": ONCE_FINAL,  # all else that concerns a payer comes with an event
        "socket": f"/ws/payments/{correlation_id}?{link}",
        "events": f"/payments/{correlation_id}/events?{link}",
    }


# -- For members of the tenant -------------------------------------------------------------------------------


async def _for_member(visitor: Visitor, correlation_id: UUID) -> dict[str, Any]:
    """What members see: all of the payment, its banners, and the actions that this visitor may take."""
    found, facts = await _read(visitor.tenant.pk, correlation_id)
    events, attempts = await history_of(visitor.tenant.pk, facts.id)
    may_act = visitor.role in MAY_ACT
    banners = explain(facts, may_act=may_act)
    tenant = urlencode({"tenant": visitor.tenant.slug})
    return {
        "visitor": visitor,
        "payment": found,
        "shown": facts.shown,
        # A banner says what happened; what was booked is said beside it.
        "sentence": sentence(found) if not banners or facts.status == "succeeded" else "",
        "banners": [_with_links(banner, visitor, correlation_id, facts) for banner in banners],
        "facts": facts,
        "steps": timeline(events, attempts),
        "scheduled": is_scheduled(facts),
        "refund": _address("payment_refund", visitor, correlation_id) if may_act and refundable(facts) else None,
        "payers_page": _payers_page(visitor.tenant.pk, correlation_id),
        "tenant": visitor.tenant,
        # Test payments are paid here; real ones on the payer's page.
        "token": links.token_of(visitor.tenant.pk, correlation_id),
        "action": facts.action if visitor.may_play else None,
        "final": facts.status in TERMINAL,
        "refresh": ONCE_FINAL if facts.status in TERMINAL else WHILE_OPEN,
        "socket": f"/ws/payments/{correlation_id}?{tenant}",
        "back": f"{reverse('payment_list')}?{tenant}",
        "trace": _trace(visitor, correlation_id, facts),
    }


def _trace(visitor: Visitor, correlation_id: UUID, facts: PaymentFacts) -> str:
    """The address of the payment's trace, for superusers, because a viewer shows all tenants; empty if it has none, or there is no viewer."""
    if not (settings.TRACE_VIEWER_URL and traces.on and visitor.role == SUPERUSER):
        return ""
    one = TracedObject("payment", visitor.tenant.pk, correlation_id)
    ended_slowly = (
        facts.changed_at - max(facts.created_at, facts.scheduled_for or facts.created_at)
    ).total_seconds() > slow.LIMIT
    traced_afterwards = facts.status is FAILED or facts.open_letter or (facts.status is SUCCEEDED and ended_slowly)
    if sampled(one) or (traced_afterwards and rate_of(one.tenant_id)):
        return settings.TRACE_VIEWER_URL.replace("{trace_id}", one.first.shown_id)
    return ""


async def _read(tenant_id: int, correlation_id: UUID) -> tuple[dict[str, Any], PaymentFacts]:
    """The payment's object without its history, and its facts. Raises Http404."""
    found = await queries.item_of(tenant_id, correlation_id)
    facts = await facts_of(tenant_id, correlation_id) if found else None
    if found is None or facts is None:
        raise Http404
    return found, facts


def _with_links(banner: Banner, visitor: Visitor, correlation_id: UUID, facts: PaymentFacts) -> dict[str, Any]:
    """The banner with the address of each action. What has no address is left out."""
    offers = [(offer, _link(offer.verb, visitor, correlation_id, facts)) for offer in banner.offers]
    return {"banner": banner, "offers": [(offer, link) for offer, link in offers if link]}


def _link(verb: str, visitor: Visitor, correlation_id: UUID, facts: PaymentFacts) -> str:
    match verb:
        case _ if verb in operate.GUARDS:
            return f"{_address('payment_act', visitor, correlation_id)}&{urlencode({'do': verb})}"
        case x if x == REFUND_PAGE:
            return _address("payment_refund", visitor, correlation_id)
        case x if x == PROCESSORS:
            tenant = urlencode({"tenant": visitor.tenant.slug})
            return f"{reverse('processors')}?{tenant}" if visitor.role else f"/?{tenant}#processors"
        case x if x == DISCREPANCIES_PAGE:
            return f"{reverse('discrepancy_list')}?{urlencode({'tenant': visitor.tenant.slug, 'status': OPEN_ONES})}"
        case x if x == PAYERS_PAGE:
            return _payers_page(visitor.tenant.pk, correlation_id)
        case x if x == DISPUTE_PAGE and facts.dispute:
            return disputes.page_of(
                kind=facts.kind, url=facts.url, reference=facts.dispute.reference, live=facts.mode == Tenant.Mode.LIVE
            )
    return ""


def _payers_page(tenant_id: int, correlation_id: UUID) -> str:
    token = links.token_of(tenant_id, correlation_id)
    return f"{reverse('payment_live', args=[correlation_id])}?{urlencode({'token': token})}"


def _address(name: str, visitor: Visitor, correlation_id: UUID) -> str:
    return f"{reverse(name, args=[correlation_id])}?{urlencode({'tenant': visitor.tenant.slug})}"
