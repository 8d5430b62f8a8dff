"""POST /payments as most synchronous projects have it: store the payment, call the processor, store the outcome, then answer."""

import hashlib
import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import requests
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from bench.sync_async.models import ApiKey, LedgerEntry, Payment, Tenant

CONNECT_LIMIT, ANSWER_LIMIT = 1.0, 6.0  # seconds; ours waits 6 s for an answer too

_thread = threading.local()


def create(request: HttpRequest) -> JsonResponse:
    tenant = tenant_of(request)
    if tenant is None:
        return JsonResponse({"title": "Unauthorized"}, status=401)
    body = json.loads(request.body, parse_float=Decimal)
    payment, new = accept(tenant, UUID(body["correlationId"]), int(body["amount"] * 100))
    if new:
        charge(payment)
    return JsonResponse(
        {"correlationId": str(payment.correlation_id), "status": payment.status, "error": payment.error},
        status=502 if payment.status == "failed" else 201,
    )


def tenant_of(request: HttpRequest) -> Tenant | None:
    secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey.objects.select_related("tenant").filter(digest=digest).first()
    return key and key.tenant


def accept(tenant: Tenant, correlation_id: UUID, amount: int) -> tuple[Payment, bool]:
    now = datetime.now(UTC)
    ids = {"tenant": tenant, "correlation_id": correlation_id}
    try:
        return Payment.objects.create(**ids, amount=amount, currency=tenant.currency, requested_at=now), True
    except IntegrityError:
        return Payment.objects.get(**ids), False


def charge(payment: Payment) -> None:
    """Call the processor while the caller waits, on this thread's kept connection to it."""
    order = {
        "correlationId": str(payment.correlation_id),
        "amount": payment.amount / 100,
        "requestedAt": payment.requested_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    try:
        answer = session().post(f"{settings.PROCESSOR_URL}/payments", json=order, timeout=(CONNECT_LIMIT, ANSWER_LIMIT))
        answer.raise_for_status()
    except requests.RequestException as error:
        payment.status, payment.error = "failed", type(error).__name__
        payment.save(update_fields=["status", "error", "changed_at"])
        return
    payment.status = "succeeded"
    with transaction.atomic():
        payment.save(update_fields=["status", "changed_at"])
        LedgerEntry.objects.create(payment=payment, amount=payment.amount)


def session() -> requests.Session:
    if not hasattr(_thread, "session"):
        _thread.session = requests.Session()
    return _thread.session


urlpatterns = [path("payments", create)]
