"""POST /payments: one indexed query for the key, one `acreate` for the payment; no event, no fingerprint."""

import hashlib
import json
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError
from django.http import HttpRequest, JsonResponse
from django.urls import path

from bench.stock.models import ApiKey, Payment, Tenant


async def create(request: HttpRequest) -> JsonResponse:
    tenant = await tenant_of(request)
    return JsonResponse({"title": "Unauthorized"}, status=401) if tenant is None else await accept(request, tenant)


async def create_without_key(request: HttpRequest) -> JsonResponse:
    """The insert without the key, to measure its cost."""
    return await accept(request, Tenant(pk=1, currency="BRL"))


async def tenant_of(request: HttpRequest) -> Tenant | None:
    secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = await ApiKey.objects.select_related("tenant").filter(digest=digest).afirst()
    return key and key.tenant


async def accept(request: HttpRequest, tenant: Tenant) -> JsonResponse:
    body = json.loads(request.body, parse_float=Decimal)
    correlation_id, amount = UUID(body["correlationId"]), int(body["amount"] * 100)
    try:
        payment = await Payment.objects.acreate(
            tenant=tenant, correlation_id=correlation_id, amount=amount, currency=tenant.currency
        )
    except IntegrityError:
        payment = await Payment.objects.aget(tenant=tenant, correlation_id=correlation_id)
        if payment.amount != amount:
            return JsonResponse({"title": "Conflict"}, status=409)
    return JsonResponse(
        {"correlationId": str(correlation_id), "status": payment.status, "amount": f"{payment.amount / 100:.2f}",
         "currency": payment.currency, "createdAt": payment.created_at.isoformat()},
        status=202,
    )  # fmt: skip


urlpatterns = [path("payments", create), path("payments-without-key", create_without_key)]
