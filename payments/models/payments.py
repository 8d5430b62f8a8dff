"""Payments and everything that is booked because of them. The hot paths write these tables with SQL from sql/.

Every primary key leads with the tenant, in the database too (migrations/sql/tables.sql), and every other key has it, so that
tables can be distributed by tenant. Where a table has several keys, each but the primary one leads with what only it has, and
is looked up by that (docs/decisions/024). Rows of the hot tables carry no foreign-key constraints: the statements that write them take the ids from rows
they lock, and a check per row would cost a third of the throughput.
"""

from datetime import UTC, datetime
from typing import Any, Self

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

from payments.states import CANCELED, FAILED, REQUIRES_ACTION, SUCCEEDED, Status
from queueing.models.work import WorkRow, closed_in, open_rows
from registry.models import Tenant

# Before every time stamp. Indexes with the condition `> EVER` are used only by statements with that condition.
EVER = datetime(1, 1, 1, tzinfo=UTC)


def tenant_key() -> models.ForeignKey:
    return models.ForeignKey(Tenant, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


def payment_key() -> models.ForeignKey:
    return models.ForeignKey(
        "payments.Payment", models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )


def processor_key(**options: Any) -> models.ForeignKey:
    return models.ForeignKey(
        "payments.Processor", models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+", **options
    )


class Processor(AsyncModelMixin, models.Model):
    """A tenant's account at a processor."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="processors")
    name = models.SlugField(max_length=63)
    kind = models.CharField(max_length=20, help_text="http, stripe or sandbox")
    url = models.CharField(
        max_length=500, blank=True, help_text="kind http: its address; kind stripe: empty for Stripe itself"
    )
    fee = models.DecimalField(max_digits=7, decimal_places=6, default=0, help_text="share of the amount: 0.05 is 5 %")
    options = models.JSONField(default=dict, blank=True)
    secrets = models.BinaryField(null=True, editable=False, help_text="keys, encrypted: registry.tenants.encryption")
    enabled = models.BooleanField(default=True)
    public_only = models.BooleanField(
        default=False,
        db_default=False,
        help_text="its address must be on the public internet: it was entered by a merchant, not by an operator of the service",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["tenant", "fee", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_processor_per_name")]

    def __str__(self) -> str:
        return self.name

    @property
    def endpoint(self) -> str:
        """Key by which accounts share health, breaker and connections: accounts at the same URL fail together."""
        return f"{self.kind}:{self.url or self.pk}"


class Endpoint(AsyncModelMixin, models.Model):
    """Health and breaker of an endpoint, shared by all workers. payments.routing.routing writes it."""

    class Breaker(models.TextChoices):
        CLOSED = "closed"
        OPEN = "open"
        HALF_OPEN = "half_open", "half open"

    key = models.CharField(max_length=600, primary_key=True)
    failing = models.BooleanField(default=False, help_text="by its latest health report")
    min_response_ms = models.IntegerField(default=0, help_text="by its latest health report")
    trend_ms = models.FloatField(default=0, help_text="moving average of response times")
    polled_at = models.DateTimeField(null=True, help_text="when its health was polled last")
    next_poll_at = models.DateTimeField(db_default=Now())
    breaker = models.CharField(max_length=10, choices=Breaker, default=Breaker.CLOSED)
    failures = models.IntegerField(default=0, help_text="consecutive failures")
    breaker_changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["key"]
        verbose_name = "circuit breaker"

    def __str__(self) -> str:
        return self.key


class PaymentQuerySet(AsyncQuerySet):
    def of(self, tenant_id: int) -> Self:
        return self.filter(tenant_id=tenant_id)


class Payment(WorkRow):
    """A payment: its content, its status, and its own entry in the work queue."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    correlation_id = models.UUIDField()
    fingerprint = models.BinaryField(max_length=16, help_text="hash of the content: a replay has the same one")
    amount = models.BigIntegerField(help_text="minor units")
    currency = models.CharField(max_length=3)
    description = models.TextField(default="")
    metadata = models.JSONField(null=True)
    wanted_processor = models.CharField(
        max_length=63, default="", help_text="requested by name; empty: chosen by routing"
    )
    method = models.JSONField(null=True, help_text="payment method of the request: references, never card data")
    return_url = models.CharField(
        max_length=2000, db_default="", default="", blank=True, help_text="where the payer goes back to"
    )

    status = models.CharField(max_length=20, choices=Status, default=Status.QUEUED)
    sequence = models.IntegerField(default=1, help_text="number of its latest event")
    code = models.CharField(max_length=50, default="", help_text="why it failed or is in doubt")
    # Where and when it was booked. Before that, its latest attempt has both: a claim must not update an indexed column.
    processor = processor_key(null=True)
    requested_at = models.DateTimeField(null=True, help_text="the requestedAt that was booked; milliseconds")
    in_doubt_since = models.DateTimeField(null=True, help_text="last send whose outcome is unknown")
    fee = models.BigIntegerField(null=True, help_text="minor units")
    owed_back = models.BigIntegerField(db_default=0, help_text="sum of refunds that have not failed; minor units")
    refunded = models.BigIntegerField(default=0, help_text="minor units")
    canceling = models.BooleanField(db_default=False, help_text="a cancellation was requested after it was sent")

    scheduled_for = models.DateTimeField(
        null=True, help_text="earliest time of the first send, if the sender asked for one"
    )

    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    # Not NULL once no worker claims it. Generated, so that the indexes below do not change when `status` does.
    closed = closed_in([SUCCEEDED, FAILED, CANCELED, REQUIRES_ACTION])

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(PaymentQuerySet)()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["correlation_id", "tenant"], name="payment_once_per_tenant"),
            models.CheckConstraint(condition=models.Q(amount__gt=0), name="payment_amount_positive"),
            models.CheckConstraint(condition=models.Q(status__in=Status.values), name="payment_status_known"),
        ]
        indexes = [
            open_rows("payment_open"),
            # For payments in doubt. In the normal flow a claim updates none of its columns.
            models.Index(
                fields=["tenant", "run_at", "id"],
                condition=models.Q(closed=None, in_doubt_since__isnull=False),
                name="payment_in_doubt",
            ),
            models.Index(
                fields=["tenant", "created_at", "id"], condition=models.Q(created_at__gt=EVER), name="payment_created"
            ),
            models.Index(
                fields=["tenant", "closed", "id"],
                condition=models.Q(closed__in=[FAILED.value, CANCELED.value, REQUIRES_ACTION.value]),
                name="payment_exceptions",
            ),
            models.Index(
                fields=["tenant", "created_at", "id"], condition=models.Q(refunded__gt=0), name="payment_refunded"
            ),
            models.Index(
                fields=["processor", "requested_at", "tenant"],
                include=["amount", "currency", "fee"],
                condition=models.Q(closed=SUCCEEDED.value),
                name="payment_booked",
            ),
        ]

    def __str__(self) -> str:
        return str(self.correlation_id)


class Attempt(AsyncModelMixin, models.Model):
    """One attempt at one processor, stored before it is sent."""

    class Outcome(models.TextChoices):
        BOOKED = "booked"
        DECLINED = "declined"
        NOT_BOOKED = "not_booked", "not booked"
        UNKNOWN = "unknown"
        REQUIRES_ACTION = "requires_action", "requires action"
        CANCELED = "canceled"

    pk = models.CompositePrimaryKey("tenant_id", "payment_id", "number")
    tenant = tenant_key()
    payment = payment_key()
    number = models.IntegerField()
    processor = processor_key()
    reason = models.CharField(max_length=200, help_text="why this processor")
    requested_at = models.DateTimeField()
    worker_id = models.BigIntegerField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    outcome = models.CharField(max_length=20, choices=Outcome, default="", help_text="empty: not known yet")
    code = models.CharField(max_length=50, default="")
    latency_ms = models.IntegerField(null=True)
    reference = models.CharField(max_length=255, db_default="", help_text="the processor's id")
    action = models.JSONField(null=True, help_text="next action of the payer or the merchant")

    class Meta:
        ordering = ["-payment_id", "-number"]
        # The condition is of the console's search alone, so that no look-up can use the index.
        indexes = [
            models.Index(
                fields=["reference", "tenant"], condition=models.Q(reference__gt=" "), name="attempt_reference"
            )
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} at processor {self.processor_id}"


class Stream(AsyncModelMixin, models.Model):
    """A tenant's stream of events. Locked while events are numbered (migrations/sql/numbers.sql), so that numbers have no gaps and follow
    commit order. It is not changed then: for as long as some transaction might see its versions, each statement would read all of them."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="+")
    # No deleted event is above it. The latest number is the latest event's.
    position = models.BigIntegerField(default=0)
    # A purge deletes events, and their numbers are not used again: `check_books` counts from what is recorded here.
    purged = models.BigIntegerField(default=0, db_default=0, help_text="number of events that purges deleted")
    purged_until = models.BigIntegerField(default=0, db_default=0, help_text="number of the latest of them")
    # Processors keep the bookings of what was sent until then: they are compared with nothing.
    purged_at = models.DateTimeField(null=True, help_text="when a purge deleted payments last")


class PaymentEvent(AsyncModelMixin, models.Model):
    """A change of a payment: `sequence` counts within the payment, `position` within the tenant."""

    pk = models.CompositePrimaryKey("tenant_id", "position")
    tenant = tenant_key()
    position = models.BigIntegerField()
    payment = payment_key()
    sequence = models.IntegerField()
    status = models.CharField(max_length=20, choices=Status)
    processor_id = models.BigIntegerField(null=True)
    attempt = models.IntegerField(default=0)
    at = models.DateTimeField(db_default=Now())
    detail = models.CharField(max_length=300, default="")
    # Empty: the payment changed to `status`. Else another change, such as refund.returned of refund `subject_id`.
    kind = models.CharField(max_length=30, db_default="")
    subject_id = models.BigIntegerField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["payment", "tenant", "sequence"], name="event_sequence_once")]


class LedgerEntry(AsyncModelMixin, models.Model):
    """One line of a double entry. Debits are positive; the entries of one cause add up to zero."""

    class Cause(models.TextChoices):
        PAYMENT = "payment"
        REFUND = "refund"
        DISPUTE = "dispute"

    class Account(models.TextChoices):
        PROCESSOR = "processor", "held by the processor"
        FEES = "fees", "kept by the processor"
        BALANCE = "balance", "owed to the tenant"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    payment = payment_key()
    processor_id = models.BigIntegerField()
    account = models.CharField(max_length=10, choices=Account)
    amount = models.BigIntegerField(help_text="minor units, debit positive")
    currency = models.CharField(max_length=3)
    at = models.DateTimeField(db_default=Now())
    cause = models.CharField(max_length=10, choices=Cause, db_default=Cause.PAYMENT.value)
    cause_id = models.BigIntegerField(null=True, help_text="the refund or dispute; a payment is its own cause")

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "ledger entries"
        indexes = [
            models.Index(fields=["payment", "tenant"], name="ledger_payment"),
            models.Index(
                fields=["tenant", "currency"],
                include=["account", "amount"],
                condition=~models.Q(cause="payment"),
                name="ledger_causes",
            ),
        ]

    def __str__(self) -> str:
        return f"ledger entry {self.pk}"


class DeadLetter(AsyncModelMixin, models.Model):
    """A payment that ran out of tries. An operator replays or closes it."""

    class Resolution(models.TextChoices):
        REPLAYED = "replayed"
        CLOSED = "closed"

    tenant = tenant_key()
    payment = payment_key()
    code = models.CharField(max_length=50)
    detail = models.CharField(max_length=300, default="")
    created_at = models.DateTimeField(db_default=Now())
    resolution = models.CharField(max_length=10, choices=Resolution, default="", blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, default="", blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["payment", "tenant"], name="dead_letter_payment"),
            models.Index(fields=["-id"], condition=models.Q(resolution=""), name="dead_letter_open"),
        ]

    def __str__(self) -> str:
        return f"dead letter {self.pk}: {self.code.replace('_', ' ')}"
