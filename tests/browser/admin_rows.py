"""A row of every model that the admin lists, with contents as long as real ones."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.utils import timezone

from payments.models import (
    Difference,
    Dispute,
    Endpoint,
    InboundEvent,
    Invitation,
    Plan,
    Reconciliation,
    Refund,
    SignUp,
    Subscription,
)
from payments.states import FAILED, SUCCEEDED, UNCERTAIN, RefundStatus
from queueing.models import (
    DeadMessage,
    Group,
    Job,
    JobSchedule,
    Partition,
    Queue,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    Worker,
)
from registry.models import Alert, AlertMessage, AlertSilence, AuditEntry, Flag, Host, Tenant
from registry.operators.attention import Severity
from tests.factories import make_api_key, make_dead_letter, make_payment, make_person, make_processor, make_stripe

LONG_ERROR = (
    "TimeoutError: the receiver at https://erp.corner-shop.example did not answer within 15 seconds (attempt 7 of 12)"
)
URL = "https://erp.corner-shop.example/integrations/registry/webhooks/payments?source=registry"


def make_every_row(tenant: Tenant) -> dict[str, Any]:
    """One row or more of each; those that a test opens by name."""
    processor = make_processor(tenant, "main-processor")
    stripe = make_stripe(tenant, "https://stripe.sandbox.example:12111", name="stripe-europe")
    paid = make_payment(tenant, status=SUCCEEDED, processor=processor, amount=123_456_789, description="Order 4711")
    refused = make_payment(tenant, status=FAILED, processor=processor, code="insufficient_funds")
    doubtful = make_payment(tenant, status=UNCERTAIN, processor=processor, in_doubt_since=timezone.now())
    letters = [
        make_dead_letter(refused, detail="The processor refused it 12 times: HTTP 500 Internal Server Error"),
        make_dead_letter(doubtful, code="unknown_outcome", detail="Asked 14 times; the processor never answered."),
    ]
    make_alerts()
    make_hosts()
    return {
        "processor": processor,
        "stripe": stripe,
        "payment": paid,
        "letters": letters,
        **_of_payments(tenant, paid, processor, stripe),
        **_of_tenants(tenant),
        **_of_queues(tenant),
    }


def _of_payments(tenant: Tenant, paid: Any, processor: Any, stripe: Any) -> dict[str, Any]:
    now = timezone.now()
    for one in (processor, stripe):
        Endpoint.objects.create(
            key=one.endpoint,
            breaker="open",
            failures=12,
            min_response_ms=1200,
            trend_ms=833.3,
            polled_at=now,
            failing=True,
        )
    refund = Refund.objects.create(
        tenant=tenant, payment=paid, public_id=uuid4(), number=1, fingerprint=bytes(16), amount=99_000, currency="BRL",
        reason="The customer sent back two of three shirts", actor="operator@corner-shop.example", processor=processor,
        status=RefundStatus.UNCERTAIN, code="no_answer", stopped_at=now,
    )  # fmt: skip
    dispute = Dispute.objects.create(
        tenant=tenant, payment=paid, processor=stripe, reference="du_1PqRsTuVwXyZ0123456789ab", amount=123_456_789,
        currency="BRL", reason="product_not_received", status="warning_needs_response", withdrawn=123_456_789,
        due_by=now + timedelta(days=2),
    )  # fmt: skip
    reconciliation = Reconciliation.objects.create(
        tenant=tenant, processor=stripe, since=now - timedelta(days=1), until=now, records=123_456, payments=123_455,
        differences=1, unanswered=3,
    )  # fmt: skip
    difference = Difference.objects.create(
        tenant=tenant, processor=stripe, kind=Difference.Kind.REFUNDED, key=str(paid.correlation_id),
        correlation_id=paid.correlation_id, reference="pi_3PqRsTuVwXyZ0123456789ab", payment_id=paid.pk,
        our_status="succeeded", our_amount=123_456_789, our_currency="BRL", our_refunded=99_000,
        their_amount=123_456_789, their_currency="BRL", their_refunded=12_300_000, requested_at=now,
    )  # fmt: skip
    event = InboundEvent.objects.create(
        tenant=tenant, processor=stripe, event_id="evt_1PqRsTuVwXyZ0123456789ab", payment_id=paid.pk,
        type="customer.subscription.pending_update_applied", object_id="sub_1PqRsTuVwXyZ0123456789ab", created=now,
        body=b'{"id": "evt_1"}', source="delivery", status="dead", attempt=12, error=LONG_ERROR, outcome="no such object",
    )  # fmt: skip
    return {
        "refund": refund, "dispute": dispute, "reconciliation": reconciliation, "difference": difference, "event": event,
    }  # fmt: skip


def _of_tenants(tenant: Tenant) -> dict[str, Any]:
    now = timezone.now()
    person = make_person("operator@corner-shop.example", tenant=tenant, email="operator@corner-shop.example")
    make_api_key(tenant, "read", "write", "admin", name="Nightly export of the accounting department")
    Flag.objects.get_or_create(name="inline.payment", defaults={"superusers": False})[0].tenants.add(tenant)
    plan = Plan.objects.create(
        slug="professional", name="Professional, billed monthly", price=19_900, fee_share="0.0125"
    )
    Subscription.objects.create(
        tenant=tenant, plan=plan, status="past_due", dunning="notice", period_end=now, trial_end=now, past_due_since=now
    )
    SignUp.objects.create(tenant=tenant, user=person, step="payment")
    Invitation.objects.create(
        tenant=tenant,
        email="head.of.accounting@corner-shop.example",
        invited_by="operator@corner-shop.example",
        accepted_at=now,
    )
    entry = AuditEntry.objects.create(
        tenant=tenant, actor="operator@corner-shop.example", action="difference.look_again", rows=1234,
        target=f"difference 12: missing_here {uuid4()}", reason="The provider confirmed the outage of last night by telephone",
    )  # fmt: skip
    return {"person": person, "entry": entry}


def _of_queues(tenant: Tenant) -> dict[str, Any]:
    now = timezone.now()
    queue = Queue.objects.create(
        tenant=tenant, name="accounting.invoices.to-be-printed", namespace="accounting", task="invoices"
    )
    partition = Partition.objects.create(tenant=tenant, queue=queue, name="customer-4711")
    group = Group.objects.create(tenant=tenant, queue=queue, name="invoice-printers-in-the-warehouse")
    DeadMessage.objects.create(
        tenant=tenant, queue=queue, partition=partition, group=group, group_name=group.name, partition_name=partition.name,
        seq=1, message_id=uuid4(), transaction_id=str(uuid4()), payload=b"{}", error=LONG_ERROR, attempts=12, created_at=now,
    )  # fmt: skip
    job = Job.objects.create(
        tenant=tenant, uuid=uuid4(), kind="payments.settlement_report", input="{}", fingerprint=bytes(16), status="failed",
        max_attempts=5, attempt=5, timeout=60, result_ttl=3600, error=LONG_ERROR, error_code="timeout",
        traceback="Traceback (most recent call last):\n  File \"x.py\", line 1",
    )  # fmt: skip
    JobSchedule.objects.create(
        tenant=tenant, name="settlement-report-of-the-last-month", cron="30 4 1 * *", timezone="America/Argentina/Buenos_Aires",
        overlap="skip", catch_up="one", kind="payments.settlement_report", input="{}", priority=0, max_attempts=5, timeout=60,
        result_ttl=3600, next_at=now,
    )  # fmt: skip
    hook = WebhookEndpoint.objects.create(
        tenant=tenant, uuid=uuid4(), url=URL, events=["payment.succeeded", "payment.failed", "refund."], enabled=False,
        disabled_reason="No delivery succeeded for 5 days.", failing_since=now, secrets=b"",
    )  # fmt: skip
    delivery = WebhookDelivery.objects.create(
        tenant=tenant, endpoint_id=hook.pk, message_id="msg_1", type="payment.requires_action", body="{}", status="dead",
        subject=uuid4(), answer=503, error=LONG_ERROR, attempt=12,
    )  # fmt: skip
    WebhookAttempt.objects.create(
        tenant=tenant, delivery_id=delivery.pk, number=1, signed_at=now, latency_ms=15_000, error=LONG_ERROR
    )
    Worker.objects.create(
        queue="webhook_deliveries",
        pool="nightly-reports",
        hostname="worker-17.eu-central.corner-shop.internal",
        pid=123456,
    )
    Worker.objects.create(queue="payments", hostname="worker-2", pid=2, heartbeat_at=now - timedelta(minutes=3))
    return {"queue": queue, "job": job, "hook": hook, "delivery": delivery}


def make_hosts() -> None:
    """A web host, a host whose clock is wrong, and one that fell silent."""
    now = timezone.now()
    for name, role, version, silent, ahead, names in (
        ("pay-web-1.internal", "web", "0.1.0+4f1c22ab90", 1, 0.0, ["web-1", "web-2"]),
        (
            "pay-worker-1.internal",
            "worker",
            "0.1.0+9c00de1777",
            1,
            61.4,
            ["health", "housekeeping", "cron", "worker-1"],
        ),
        (
            "pay-worker-2.internal",
            "worker",
            "0.1.0+9c00de1777",
            200,
            0.0,
            ["health", "housekeeping", "cron", "worker-1"],
        ),
    ):
        Host.objects.create(
            name=name,
            place=name,
            role=role,
            version=version,
            address="http://10.20.30.40:8000",
            started_at=now - timedelta(days=3),
            heartbeat_at=now - timedelta(seconds=silent),
            clock_offset=ahead,
            processes=[{"name": one, "pid": 4000 + at, "starts": 1 + at} for at, one in enumerate(names)],
        )


def make_alerts() -> None:
    """An alert that fires, a silence of it, and a message."""
    now = timezone.now()
    Alert.objects.create(
        id=uuid4(), rule="disk", host="web-1.example.com", status="firing", severity=Severity.WARNING, since=now, fired_at=now,
        sentence="The disk of the data folder is nearly full.", value=0.125, read_at=now,
    )  # fmt: skip
    AlertSilence.objects.create(
        rule="disk", ends_at=now + timedelta(days=1), actor="olga", why="A larger disk comes tomorrow."
    )
    AlertMessage.objects.create(
        message_id="alert-1",
        channel="email",
        subject="Registry: disk fires",
        body="disk fires on web-1.",
        created_at=now,
        sent_at=now,
    )
