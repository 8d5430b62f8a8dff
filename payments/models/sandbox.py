"""The books of processors of kind `sandbox`, apart from ours. Their refunds are in refunds.py."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin


class SandboxBooking(AsyncModelMixin, models.Model):
    """A booking in the books of a processor of kind `sandbox`, apart from ours."""

    pk = models.CompositePrimaryKey("processor_id", "correlation_id")
    processor_id = models.BigIntegerField()
    correlation_id = models.UUIDField()
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    requested_at = models.DateTimeField()
    booked_at = models.DateTimeField(db_default=Now())
