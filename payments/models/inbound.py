"""Inbound events of processors: the received bytes, and the result of handling them. Each row is its own entry in the work queue."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import EVER, processor_key, tenant_key
from queueing.models.work import WorkRow, closed_in, open_rows


class InboundEvent(WorkRow):
    """An event of a processor, stored before the request is answered."""

    class Status(models.TextChoices):
        RECEIVED = "received"
        DONE = "done"
        DEAD = "dead"
        CLOSED = "closed", "closed by an operator"

    class Source(models.TextChoices):
        DELIVERY = "delivery"
        POLL = "poll"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    processor = processor_key()
    event_id = models.CharField(max_length=255, help_text="the processor's id: an event is delivered more than once")
    type = models.CharField(max_length=100)
    object_id = models.CharField(max_length=255, default="", help_text="id of its object at the processor")
    account = models.CharField(max_length=255, default="", help_text="its connected account, if any")
    livemode = models.BooleanField(default=False)
    created = models.DateTimeField(help_text="by the processor's clock")
    body = models.BinaryField(help_text="as received: the signature covers these bytes")
    headers = models.JSONField(default=dict)
    source = models.CharField(max_length=10, choices=Source)
    received_at = models.DateTimeField(db_default=Now())

    status = models.CharField(max_length=10, choices=Status, db_default=Status.RECEIVED.value)
    outcome = models.CharField(max_length=100, db_default="", help_text="result of its handling")
    error = models.CharField(max_length=500, db_default="", help_text="error of its latest try")
    payment_id = models.BigIntegerField(null=True, help_text="the payment it belongs to")
    done_at = models.DateTimeField(null=True)

    # Not NULL once the event is settled.
    closed = closed_in(["done", "dead", "closed"], max_length=10)

    class Meta:
        ordering = ["-id"]
        verbose_name = "inbound event"
        constraints = [
            models.UniqueConstraint(fields=["event_id", "processor", "tenant"], name="inbound_event_once"),
            models.CheckConstraint(
                condition=models.Q(status__in=["received", "done", "dead", "closed"]), name="inbound_status_known"
            ),
        ]
        indexes = [
            open_rows("inbound_open"),
            models.Index(fields=["tenant", "id"], condition=models.Q(closed="dead"), name="inbound_dead"),
            models.Index(
                fields=["tenant", "received_at"], condition=models.Q(received_at__gt=EVER), name="inbound_received"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"


class InboundPoll(AsyncModelMixin, models.Model):
    """How far the poller has read an account's list of events."""

    pk = models.CompositePrimaryKey("tenant_id", "processor_id")
    tenant = tenant_key()
    processor = processor_key()
    read_until = models.DateTimeField(null=True, help_text="all events created before it were read")
    # The list is newest first: an interrupted pass is resumed, or older events would be lost.
    pass_until = models.DateTimeField(null=True, help_text="read_until at the end of the current pass")
    cursor = models.CharField(max_length=255, default="", help_text="the last event read by the current pass")
    at = models.DateTimeField(db_default=Now())
    error = models.CharField(max_length=300, default="")
