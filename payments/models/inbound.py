"""Events that processors send: what came, byte for byte, and what came of it. Each is its own entry in the work queue."""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from payments.models.payments import EVER, Processor, tenant_key
from queueing.models.work import WorkRow, closed_in, open_rows


def processor_key() -> models.ForeignKey:
    return models.ForeignKey(Processor, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


class InboundEvent(WorkRow):
    """An event of a processor, durable before it was answered."""

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
    event_id = models.CharField(max_length=255, help_text="the processor's: the same event comes more than once")
    type = models.CharField(max_length=100)
    object_id = models.CharField(max_length=255, default="", help_text="what it is about")
    account = models.CharField(max_length=255, default="", help_text="the connected account that it is of, if any")
    livemode = models.BooleanField(default=False)
    created = models.DateTimeField(help_text="by the processor's clock")
    body = models.BinaryField(help_text="as received: the signature is over these bytes")
    headers = models.JSONField(default=dict)
    source = models.CharField(max_length=10, choices=Source)
    received_at = models.DateTimeField(db_default=Now())

    status = models.CharField(max_length=10, choices=Status, db_default=Status.RECEIVED.value)
    outcome = models.CharField(max_length=100, db_default="", help_text="what came of it")
    error = models.CharField(max_length=500, db_default="", help_text="why its latest try failed")
    payment_id = models.BigIntegerField(null=True, help_text="the payment that it turned out to be about")
    done_at = models.DateTimeField(null=True)

    # Not NULL once no worker has anything to do.
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
    read_until = models.DateTimeField(null=True, help_text="everything created before that was seen")
    # The list comes newest first: a pass that was cut off goes on where it was, or what is older would be lost.
    pass_until = models.DateTimeField(null=True, help_text="what the pass under way began with")
    cursor = models.CharField(max_length=255, default="", help_text="the last event that the pass under way has read")
    at = models.DateTimeField(db_default=Now())
    error = models.CharField(max_length=300, default="")
