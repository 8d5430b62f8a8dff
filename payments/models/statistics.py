"""Statistics of attempts, kept by minute for a while and by hour for longer: what the console's home shows of the past."""

from typing import Final

from django.db import models
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import tenant_key
from payments.states import Status

MINUTE, HOUR = 60, 3600  # seconds: the widths
BUCKETS: Final = 128  # of times since acceptance; the last one holds whatever took longer (41 days)
PER_DOUBLING: Final = 4  # buckets until the time has doubled: bucket n begins at 2^(n/4) milliseconds


class AttemptRollup(AsyncModelMixin, models.Model):
    """Attempts that ended in one span of time, by processor and by the payment's state after it. The settling statement counts them.

    Of payments that have succeeded or failed, `bucket` is the time since acceptance (or since the time for which they were
    scheduled); of others it is 0.
    """

    pk = models.CompositePrimaryKey("tenant_id", "width", "starts_at", "processor_id", "status", "bucket")
    tenant = tenant_key()
    width = models.IntegerField(help_text="seconds: 60 or 3600")
    starts_at = models.DateTimeField()
    processor_id = models.BigIntegerField()
    status = models.CharField(max_length=20, choices=Status)
    bucket = models.SmallIntegerField(help_text="of the time since acceptance: it begins at 2^(n/4) milliseconds")
    attempts = models.BigIntegerField(default=0)
    answers = models.BigIntegerField(default=0, help_text="attempts whose response time is known")
    latency_ms = models.BigIntegerField(default=0, help_text="sum of these response times")
