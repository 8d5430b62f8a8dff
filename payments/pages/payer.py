"""A payer's actions on a payment's page: enter a card, authenticate, return from the processor. The page is in payments.py.

Stripe.js is loaded from Stripe's own host, as its terms demand, and only if the payment's action needs it. All other pages
allow scripts from our own host only.
"""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csp import csp_override
from django.views.decorators.csrf import csrf_exempt

from payments.books import queries
from payments.settle import lifecycle
from registry.edge.pages import PageRequest, address_of, page
from registry.tenants import links

LOOKS = 100  # attempts of a payment, after which a payer's return starts no more look-ups
STRIPE_JS = "https://js.stripe.com"
# https://docs.stripe.com/security/guide#content-security-policy
WITH_STRIPE = {
    **settings.SECURE_CSP,
    "script-src": ["'self'", STRIPE_JS, "https://*.js.stripe.com"],
    "frame-src": [STRIPE_JS, "https://*.js.stripe.com", "https://hooks.stripe.com"],
    "connect-src": ["'self'", "https://api.stripe.com"],
}


async def with_action(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """The payment's page, with the payer's action and the Stripe.js it needs, if there is one."""
    payment, action = context["payment"], context["action"]
    if action is None:
        return render(request, "payments/payment.html", context)
    link = f"{reverse('payment_live', args=[payment['correlationId']])}?{urlencode({'token': context['token']})}"
    context |= {"look": f"{reverse('payment_look', args=[payment['correlationId']])}?{link.partition('?')[2]}"}
    if action.get("type") != "authenticate":
        return render(request, "payments/payment.html", context)
    if action.get("url"):  # the Stripe sandbox: it has its own page
        return render(
            request, "payments/payment.html", {**context, "elsewhere": _page_of(action, address_of(request) + link)}
        )
    return await _with_stripe(request, context)


@csp_override(WITH_STRIPE)
async def _with_stripe(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    return render(request, "payments/payment.html", {**context, "stripe_js": f"{STRIPE_JS}/v3/"})


def _page_of(action: dict[str, Any], back: str) -> str:
    query = urlencode({"client_secret": action["clientSecret"], "return_url": back})
    return f"{action['url']}/sandbox/pay/{action['intent']}?{query}"


@csrf_exempt  # authorized by the link's token, not by a cookie
@page("POST")
async def payment_look(request: PageRequest, correlation_id: UUID) -> HttpResponse:
    """The payer came back from the processor: have a worker look the payment up there. After LOOKS attempts no further
    look-up is started; the processor's webhook or housekeeping settles the payment."""
    token = request.GET.get("token", "")
    tenant_id = links.tenant_of(correlation_id, token)
    found = await queries.status_of(tenant_id, correlation_id) if tenant_id else None
    if not tenant_id or found is None:
        raise Http404
    if found["status"] == "requires_action" and found["attempts"] < LOOKS:
        await lifecycle.look_again(
            tenant_id=tenant_id, correlation_ids=[correlation_id], reason="The payer came back from the processor"
        )
    if request.headers.get("X-Requested-With") == "fetch":
        return HttpResponse(status=204)
    return redirect(f"{reverse('payment_live', args=[correlation_id])}?{urlencode({'token': token})}")
