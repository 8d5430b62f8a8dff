"""Refunds, and disputes, by which a payer's bank takes money back."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import EVER, payment_key, processor_key, tenant_key
from payments.states import REFUND_TERMINAL, RefundStatus
from queueing.models.work import WorkRow, closed_in, open_rows


class Refund(WorkRow):
    """A refund, and its own entry in the work queue. The processor stores its public id."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    payment = payment_key()
    public_id = models.UUIDField()
    number = models.IntegerField(help_text="within the payment")
    fingerprint = models.BinaryField(max_length=16, help_text="hash of the request: a replay has the same one")
    amount = models.BigIntegerField(help_text="minor units")
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=500, default="", blank=True)
    actor = models.CharField(max_length=150, default="", help_text="who requested it: a key's prefix or a user")
    external = models.BooleanField(default=False, help_text="made at the processor, not here")
    processor = processor_key()
    reference = models.CharField(max_length=255, default="", help_text="the processor's id")

    status = models.CharField(max_length=20, choices=RefundStatus, default=RefundStatus.OWED)
    code = models.CharField(max_length=50, default="", help_text="why it failed or is in doubt")
    requested_at = models.DateTimeField(null=True, help_text="stamped once, before it is sent first; milliseconds")
    in_doubt_since = models.DateTimeField(null=True, help_text="last send whose outcome is unknown")
    settled_at = models.DateTimeField(null=True, help_text="when it was returned or failed")
    stopped_at = models.DateTimeField(null=True, help_text="when workers gave it up; an operator retries or closes it")

    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    # Not NULL once it is settled. `status` itself is in no index, so that a claim is a HOT update.
    closed = closed_in(sorted(REFUND_TERMINAL))

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["public_id", "tenant"], name="refund_once_per_tenant"),
            models.UniqueConstraint(fields=["payment", "tenant", "number"], name="refund_number_once"),
            models.UniqueConstraint(
                fields=["reference", "processor", "tenant"],
                condition=models.Q(reference__gt=""),
                name="refund_reference_once",
            ),
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="refund_amount_positive"),
            models.CheckConstraint(condition=models.Q(status__in=RefundStatus.values), name="refund_status_known"),
        ]
        indexes = [
            open_rows("refund_open"),
            models.Index(
                fields=["tenant", "settled_at"], condition=models.Q(settled_at__isnull=False), name="refund_settled"
            ),
        ]

    def __str__(self) -> str:
        return str(self.public_id)


class Dispute(AsyncModelMixin, models.Model):
    """A dispute: a payer's bank wants a payment back. The row is the processor's latest report."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    payment = payment_key()
    processor = processor_key()
    reference = models.CharField(max_length=255, help_text="the processor's id")
    amount = models.BigIntegerField(help_text="minor units that are disputed")
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=100, default="", blank=True)
    status = models.CharField(max_length=50, help_text="the processor's status")
    due_by = models.DateTimeField(null=True, help_text="deadline for evidence")
    withdrawn = models.BigIntegerField(default=0, help_text="minor units withheld now")
    movements = models.IntegerField(default=0, help_text="how often money was moved: it only grows")
    opened_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["reference", "processor", "tenant"], name="dispute_reference_once")
        ]
        indexes = [
            models.Index(fields=["payment", "tenant"], name="dispute_payment"),
            models.Index(
                fields=["tenant", "changed_at"], condition=models.Q(changed_at__gt=EVER), name="dispute_changed"
            ),
        ]

    def __str__(self) -> str:
        return self.reference


class SandboxRefund(AsyncModelMixin, models.Model):
    """A refund in the books of a processor of kind `sandbox`, apart from ours."""

    pk = models.CompositePrimaryKey("processor_id", "refund_id")
    processor_id = models.BigIntegerField()
    refund_id = models.UUIDField()
    correlation_id = models.UUIDField(help_text="of the payment")
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    requested_at = models.DateTimeField()
    booked_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["processor_id", "correlation_id"], name="sandbox_refund_payment")]
