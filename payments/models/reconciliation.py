"""Comparisons of processors' books with ours, and the differences that they found."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import processor_key, tenant_key


class Reconciliation(AsyncModelMixin, models.Model):
    """A comparison of a processor's books with ours, for requestedAt from `since` to before `until`."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    processor = processor_key()
    since = models.DateTimeField()
    until = models.DateTimeField()
    reached = models.DateTimeField(null=True, help_text="compared up to here: the next worker resumes from it")
    both_ways = models.BooleanField(default=True, help_text="off: only a sample of our payments was looked up")
    records = models.BigIntegerField(default=0, help_text="records of the processor that were compared")
    payments = models.BigIntegerField(default=0, help_text="our payments that were compared")
    differences = models.IntegerField(default=0, help_text="found or found again")
    unanswered = models.IntegerField(default=0, help_text="payments without a clear answer of the processor")
    fault = models.CharField(max_length=300, default="", help_text="why it stopped; it is resumed later")
    attempt = models.IntegerField(default=1, help_text="the fence: a worker that lost its lease writes nothing more")
    leased_until = models.DateTimeField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["processor", "since", "until", "tenant"], name="reconciliation_once"),
        ]
        indexes = [
            models.Index(fields=["tenant", "until"], condition=models.Q(finished_at=None), name="reconciliation_open"),
        ]

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M:%S} UTC to {self.until:%Y-%m-%d %H:%M:%S} UTC"


class Difference(AsyncModelMixin, models.Model):
    """A difference between a processor's books and ours. It is open until an operator or a later comparison resolves it."""

    class Kind(models.TextChoices):
        MISSING_HERE = "missing_here", "missing here"
        MISSING_THERE = "missing_there", "missing there"
        AMOUNT = "amount"
        CURRENCY = "currency"
        REFUNDED = "refunded"
        DUPLICATE = "duplicate"

    class Resolution(models.TextChoices):
        GONE = "gone", "gone by itself"
        BOOKED = "booked", "booked as external"
        CLOSED = "closed"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    processor = processor_key()
    kind = models.CharField(max_length=20, choices=Kind)
    key = models.CharField(max_length=255, help_text="a correlation id, or the processor's reference")
    correlation_id = models.UUIDField(null=True)
    reference = models.CharField(max_length=255, default="")
    payment_id = models.BigIntegerField(null=True, help_text="ours; empty: there is none")
    our_status = models.CharField(max_length=20, default="")
    our_amount = models.BigIntegerField(null=True, help_text="minor units")
    our_currency = models.CharField(max_length=3, default="")
    our_refunded = models.BigIntegerField(null=True, help_text="minor units")
    their_amount = models.BigIntegerField(null=True, help_text="minor units")
    their_currency = models.CharField(max_length=3, default="")
    their_refunded = models.BigIntegerField(null=True, help_text="minor units")
    requested_at = models.DateTimeField()
    found_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="when a comparison last found it")
    resolution = models.CharField(max_length=10, choices=Resolution, default="", blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, default="", blank=True)
    note = models.TextField(default="", blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name, verbose_name_plural = "discrepancy", "discrepancies"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "processor", "kind", "key"],
                condition=models.Q(resolution=""),
                name="difference_open_once",
            ),
        ]
        indexes = [models.Index(fields=["key", "processor", "tenant"], name="difference_key")]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"
