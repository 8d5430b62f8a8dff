"""Outbound webhooks: endpoints of tenants, deliveries to them, the attempts of each delivery, and the secret that signs for jobs."""

from typing import Self

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

from queueing.models.broker import tenant_key
from queueing.models.work import WorkRow, closed_in, open_rows
from registry.models import Tenant


class WebhookEndpointQuerySet(AsyncQuerySet):
    def of(self, tenant_id: int) -> Self:
        """The tenant's endpoints without deleted ones, which only the periodic removal sees, and without receivers of callbacks."""
        return self.receivers(tenant_id).filter(callback=False)

    def receivers(self, tenant_id: int) -> Self:
        """All that deliveries of the tenant go to: its endpoints, and the receivers of callbacks of its jobs."""
        return self.filter(tenant_id=tenant_id, deleted_at=None)


class WebhookEndpoint(AsyncModelMixin, models.Model):
    """An address of a tenant that receives events. `positions` says up to which number it has read each source.

    One with `callback` is a receiver of callbacks of jobs: `url` is an origin (scheme, host, port), each delivery has an
    address of its own there, and the tenant's job secret signs. The service makes and removes it, and shows it in no list.
    """

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    uuid = models.UUIDField(help_text="its id in the API")
    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, db_default="", blank=True)
    events = models.JSONField(
        default=list, help_text='types such as payment.succeeded, beginnings such as "payment.", or "*"'
    )
    ordered = models.BooleanField(
        db_default=False, help_text="the next event of an object waits until the one before is delivered or has failed"
    )
    callback = models.BooleanField(db_default=False, editable=False)
    enabled = models.BooleanField(db_default=True)
    disabled_reason = models.CharField(max_length=300, db_default="", blank=True)
    failing_since = models.DateTimeField(null=True, help_text="no delivery succeeded since")
    rest_until = models.DateTimeField(null=True, help_text="no deliveries before this time: Retry-After")
    positions = models.JSONField(default=dict, help_text="by source: number of the latest event that it has read")
    secrets = models.BinaryField(editable=False, help_text="signing secrets, encrypted: registry.tenants.encryption")
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(null=True)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(WebhookEndpointQuerySet)()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["uuid", "tenant"], name="webhook_endpoint_once")]
        indexes = [
            # Fan-out looks for endpoints with unread events ten times a second, and callbacks may have many receivers.
            models.Index(
                fields=["tenant", "id"],
                condition=models.Q(callback=False, deleted_at=None),
                name="webhook_endpoint_subscribed",
            )
        ]

    def __str__(self) -> str:
        return self.url

    @property
    def place(self) -> str:
        """The context that its secrets are encrypted with."""
        return f"webhook endpoint {self.uuid}"


class WebhookDelivery(WorkRow):
    """One event for one endpoint, and its own entry in the work queue."""

    class Status(models.TextChoices):
        PENDING = "pending"
        HELD = "held", "waits for the one before"
        DELIVERED = "delivered"
        DEAD = "dead", "failed"
        NOTED = "noted"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    endpoint_id = models.BigIntegerField()
    message_id = models.CharField(max_length=40, help_text="webhook-id: the same at every attempt and replay")
    position = models.BigIntegerField(
        null=True, help_text="number of its event in the source's stream; tests and notes have none"
    )
    subject = models.UUIDField(
        null=True, help_text="id of the object that the event is about, such as a payment's correlation id"
    )
    type = models.CharField(max_length=50)
    callback_url = models.CharField(
        max_length=2000, db_default="", blank=True, help_text="of a job's callback: where it is sent to"
    )
    body = models.TextField(help_text="as it is signed and sent")
    ordered = models.BooleanField(db_default=False)

    status = models.CharField(max_length=10, choices=Status, db_default=Status.PENDING.value)
    answer = models.SmallIntegerField(null=True, help_text="HTTP status of the latest answer")
    error = models.CharField(max_length=300, db_default="", help_text="why the latest attempt failed")
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    # Not NULL once no worker has anything to do. Derived, so that the index of open work has one column for it.
    closed = closed_in([Status.DELIVERED, Status.DEAD, Status.NOTED], max_length=10)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        indexes = [
            open_rows("webhook_delivery_open", "endpoint_id"),
            models.Index(
                fields=["subject", "endpoint_id", "id", "tenant"],
                condition=models.Q(ordered=True),
                name="webhook_delivery_order",
            ),
            models.Index(fields=["endpoint_id", "id", "tenant"], name="webhook_delivery_log"),
            models.Index(
                fields=["endpoint_id", "id", "tenant"],
                condition=models.Q(closed="dead"),
                name="webhook_delivery_dead",
            ),
            models.Index(
                fields=["tenant", "-id"], condition=models.Q(callback_url__gt=""), name="webhook_delivery_callback"
            ),
            models.Index(
                fields=["subject", "id", "tenant"],
                condition=models.Q(callback_url__gt=""),
                name="webhook_delivery_of_job",
            ),
        ]

    def __str__(self) -> str:
        return self.message_id


class WebhookAttempt(AsyncModelMixin, models.Model):
    """One attempt of a delivery, with the answer. Removed with its delivery."""

    pk = models.CompositePrimaryKey("tenant_id", "delivery_id", "number")
    tenant = tenant_key()
    delivery_id = models.BigIntegerField()
    number = models.IntegerField()
    at = models.DateTimeField(db_default=Now(), help_text="when its outcome was written; it began `latency_ms` before")
    signed_at = models.DateTimeField(help_text="webhook-timestamp")
    signature = models.CharField(max_length=500, db_default="", help_text="webhook-signature")
    answer = models.SmallIntegerField(null=True, help_text="HTTP status; empty: there was no answer")
    headers = models.JSONField(null=True, help_text="of the answer, shortened")
    body = models.TextField(db_default="", help_text="of the answer, shortened")
    latency_ms = models.IntegerField()
    error = models.CharField(max_length=300, db_default="", help_text="why it failed; empty: delivered")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-delivery_id", "-number"]


class JobSecret(AsyncModelMixin, models.Model):
    """A tenant's secret that signs the calls of its `http` jobs and the callbacks of all its jobs. Made on first use."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="+")
    sealed = models.BinaryField(editable=False, help_text="signing secrets, encrypted: registry.tenants.encryption")
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()
