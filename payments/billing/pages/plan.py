"""The plan's page: plan, invoices, card, cancellation, and the checks before a tenant goes live."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from payments.billing import dunning, platform, readiness, subscriptions
from payments.billing.errors import BillingAway, NotReady
from payments.errors import PaymentError
from payments.models import Plan, Subscription
from payments.models.billing import Dunning, Paid
from registry.edge.pages import PageRequest, known, page
from registry.edge.viewer import Visitor
from registry.models import Membership, Tenant
from registry.tenants import audit

LONGEST_REASON = 500  # characters, as in the admin


async def banner(tenant: Tenant) -> dict[str, str] | None:
    """The billing banner of a tenant's pages; None if nothing is due or no plan was chosen."""
    found = await Subscription.async_objects.filter(pk=tenant.pk).exclude(dunning=Dunning.NONE).afirst()
    if found is None or (tenant.mode == Tenant.Mode.SANDBOX and found.status == Paid.UNPAID):
        return None
    consequence = dunning.CONSEQUENCES[Dunning(found.dunning)]
    return {"text": consequence.banner, "colour": consequence.colour}


@page("GET", "HEAD", "POST")
async def plan(request: PageRequest) -> HttpResponse:
    """Plan, invoices and readiness of a tenant; its owner may change them."""
    visitor = await known(request)
    if request.method == "POST":
        return await _act(request, visitor)
    return await _show(request, visitor)


async def _act(request: PageRequest, visitor: Visitor) -> HttpResponse:
    if not visitor.may_own:
        raise Http404
    found = await _subscription(visitor)
    here = f"{reverse('plan')}?{urlencode({'tenant': visitor.tenant.slug})}"
    back = request.build_absolute_uri(here)
    try:
        match request.POST.get("do"):
            case "card" if found and found.stripe_customer:
                return await _show(
                    request, visitor, portal=await platform.portal(customer=found.stripe_customer, back=back)
                )
            case "subscribe":
                return await _subscribe(request, visitor, found, back)
            case "cancel" | "go-on" as wanted if found:
                return await _end(request, visitor, found, wanted == "cancel", here)
            case "live":
                await readiness.go_live(tenant=visitor.tenant, actor=visitor.actor)
                messages.success(request, f"{visitor.tenant.name} is live: payments move money from now on.")
                return redirect(here)
    except NotReady:
        return await _show(request, visitor, wrong="Some checks fail; the list below shows what to do.", status=409)
    except PaymentError as error:
        return await _show(request, visitor, wrong=error.detail, status=error.status)
    raise Http404


async def _subscribe(request: PageRequest, visitor: Visitor, found: Subscription | None, back: str) -> HttpResponse:
    chosen = await Plan.async_objects.filter(slug=request.POST.get("plan", "")[:63], offered=True).afirst()
    if chosen is None:
        return await _show(request, visitor, wrong="Please choose one of these plans.", status=422)
    if found and found.stripe_subscription and found.status != "canceled":
        return await _show(
            request, visitor, wrong="There is a paid plan; end it before you choose another.", status=409
        )
    if refusal := why_not(chosen, found):
        return await _show(request, visitor, wrong=refusal, status=409)
    if chosen.price == 0:
        await subscriptions.begin(tenant=visitor.tenant, plan=chosen, actor=visitor.actor)
        return redirect(back)
    email = getattr(await request.auser(), "email", "")
    done = request.build_absolute_uri(reverse("plan_paid"))
    leads_to = await platform.checkout(tenant=visitor.tenant, plan=chosen, email=email, back=back, done=done)
    return await _show(request, visitor, leads_to=leads_to)


def why_not(plan: Plan, found: Subscription | None) -> str:
    """Why a tenant cannot subscribe to this plan now; empty if it can."""
    is_mine = found is not None and found.plan_id == plan.pk and found.status in subscriptions.HELD
    if is_mine and (not plan.price or not platform.is_on()):
        return "This is your plan."
    if plan.price and not platform.is_on():
        return "It has a price, and this service takes no cards."
    return ""


async def _end(request: PageRequest, visitor: Visitor, found: Subscription, wanted: bool, here: str) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    if wanted and (not reason or len(reason) > LONGEST_REASON or "\0" in reason):
        return await _show(request, visitor, wrong=f"Say why, in at most {LONGEST_REASON} characters.", status=422)
    if found.stripe_subscription:
        await platform.end(found, wanted=wanted)
    else:
        await subscriptions.end(found, wanted=wanted)
    await audit.record(
        actor=visitor.actor,
        action="subscription.cancel" if wanted else "subscription.resume",
        target="subscription",
        tenant_id=visitor.tenant.pk,
        reason=reason,
    )
    messages.success(request, "The plan ends with the time that is paid for." if wanted else "The plan continues.")
    return redirect(here)


@page("GET", "HEAD")
async def paid(request: PageRequest) -> HttpResponse:
    """Return address of Stripe's checkout page. Stripe is asked whose checkout it was."""
    user = await request.auser()
    session = request.GET.get("session", "")[:255]
    if not user.is_authenticated or not session:
        raise Http404
    mine = Membership.async_objects.filter(user_id=user.pk, role=Membership.Role.OWNER).select_related("tenant")
    owned = {m.tenant_id: m.tenant.slug async for m in mine}
    try:
        tenant_id = await platform.copy_checkout_of_any(session_id=session, tenants=set(owned))
    except PaymentError as error:  # Stripe is away, or billing is off
        messages.warning(request, f"{error.detail} If you have paid, this page will show it once Stripe confirms it.")
        return redirect(reverse("plan"))
    if tenant_id is None:
        raise Http404
    return redirect(f"{reverse('plan')}?{urlencode({'tenant': owned[tenant_id]})}")


# -- What the page shows --------------------------------------------------------------------------------------------------


def checks_of(found: list[readiness.ReadinessCheck]) -> dict[str, Any]:
    """What `_checks.html` shows: the checks before going live, and the number of those that fail."""
    return {"checks": found, "missing": sum(not check.ok for check in found)}


async def _subscription(visitor: Visitor) -> Subscription | None:
    return await Subscription.async_objects.select_related("plan").filter(pk=visitor.tenant.pk).afirst()


async def _show(request: HttpRequest, visitor: Visitor, *, status: int = 200, **more: Any) -> HttpResponse:
    found = await _subscription(visitor)
    invoices, unread = await _invoices(found)
    plans = [{"plan": one, "why": why_not(one, found)} async for one in Plan.async_objects.filter(offered=True)]
    context = {
        "visitor": visitor,
        "may_own": visitor.may_own,
        "subscription": found,
        "look": LOOKS[found.status] if found else None,
        "banner": await banner(visitor.tenant),
        "invoices": invoices,
        "invoices_unread": unread,
        "plans": plans,
        "choosable": any(not one["why"] for one in plans),
        "billing": platform.is_on(),
        **checks_of(await readiness.look(visitor.tenant)),
        **more,
    }
    return render(request, "payments/billing/plan.html", context, status=status)


async def _invoices(found: Subscription | None) -> tuple[list[dict[str, Any]], bool]:
    """The invoices, and whether reading them failed: the page says so instead of showing an empty list."""
    if found is None or not found.stripe_customer or not platform.is_on():
        return [], False
    try:
        return await platform.invoices(found.stripe_customer), False
    except BillingAway:
        return [], True


LOOKS = {
    "trialing": {"shape": "◔", "colour": "blue", "word": "on trial"},
    "active": {"shape": "●", "colour": "green", "word": "active"},
    "past_due": {"shape": "◑", "colour": "amber", "word": "past due"},
    "unpaid": {"shape": "✕", "colour": "red", "word": "unpaid"},
    "canceled": {"shape": "–", "colour": "grey", "word": "canceled"},
}
