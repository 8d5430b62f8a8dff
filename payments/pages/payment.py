"""The page of one payment, for members of its tenant and for payers with its signed link."""

from uuid import UUID

from django.http import Http404, HttpResponse
from django.shortcuts import render

from payments.books import queries
from payments.pages.payer import with_action
from payments.refunds.pages import refund_link
from registry.edge.pages import PageRequest, known, page
from registry.models import Tenant
from registry.tenants import links


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
        "visitor": visitor,
        "payment": payment,
        "refund": refund,
        "tenant": visitor.tenant if visitor else await Tenant.async_objects.aget(pk=tenant_id),
        "token": links.token_of(tenant_id, correlation_id),
    }
    return await with_action(request, context)
