"""What is added up from payments and their ledger lines: roll-ups, and proofs of the ledger."""

from django.db import models
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import tenant_key


class Rollup(AsyncModelMixin, models.Model):
    """Totals of a tenant's bookings at a processor in one span of `requestedAt`, updated in the settling transaction."""

    pk = models.CompositePrimaryKey("tenant_id", "width", "starts_at", "processor_id", "currency")
    tenant = tenant_key()
    width = models.IntegerField(help_text="seconds: 1 or 3600")
    starts_at = models.DateTimeField()
    processor_id = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    payments = models.BigIntegerField(default=0)
    amount = models.BigIntegerField(default=0)
    fee = models.BigIntegerField(default=0)


class LedgerProof(AsyncModelMixin, models.Model):
    """A scheduled proof of the ledger. The next one starts where the last sound one ended."""

    at = models.DateTimeField(help_text="of the snapshot that was proven")
    whole = models.BooleanField(help_text="the whole ledger, and not only what is new")
    last_line = models.BigIntegerField(help_text="latest entry of the ledger at that time")
    sound = models.BooleanField()
    found = models.JSONField(help_text="what was counted: payments.books.ledger.Proof")

    class Meta:
        ordering = ["-id"]
