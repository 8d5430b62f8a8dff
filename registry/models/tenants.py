"""Models of tenants, API keys, the log of their requests, memberships, the audit trail, checks of the books, and switches."""

from typing import Self
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet
from waffle.models import AbstractUserFlag

from registry.currencies import known_currency

PATIENCE = 300  # milliseconds
LONGEST_PATIENCE = 60_000  # milliseconds
SLUG = RegexValidator(r"^[a-z0-9][a-z0-9-]{0,62}\Z", "lower-case letters, digits and hyphens, at most 63")


def known_time_zone(name: str) -> None:
    """Validate the name of a time zone of a model. Raises ValidationError."""
    if name not in available_timezones():
        raise ValidationError("%(name)s is not an IANA time zone such as America/Sao_Paulo.", params={"name": name})


class Tenant(AsyncModelMixin, models.Model):
    """A merchant, school or marketplace: the owner of all other rows."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"
        CLOSED = "closed"

    class Mode(models.TextChoices):
        SANDBOX = "sandbox"
        LIVE = "live"

    slug = models.CharField(max_length=63, unique=True, validators=[SLUG])
    name = models.CharField(max_length=200)
    currency = models.CharField(
        max_length=3,
        default="BRL",
        validators=[known_currency],
        help_text="ISO 4217, used where a payment names none",
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.ACTIVE)
    mode = models.CharField(max_length=10, choices=Mode, default=Mode.SANDBOX)
    open = models.BooleanField(default=False, help_text="requests without a key may act as this tenant")
    max_amount = models.BigIntegerField(
        null=True,
        blank=True,
        help_text=(
            "No payment may be larger. In minor units of the payment's own currency, whichever that is: "
            "10000 is 100.00 BRL and also 10,000 JPY."
        ),
    )
    blocked = models.CharField(
        max_length=200,
        db_default="",
        blank=True,
        help_text="reason for refusing payments in live mode, as shown to the sender; empty: they are accepted",
    )
    patience = models.PositiveIntegerField(
        blank=True,
        default=PATIENCE,
        db_default=PATIENCE,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_PATIENCE)],
        help_text=(
            "Milliseconds for which a lower fee is worth waiting: a payment goes to the cheapest processor that answers "
            "within it."
        ),
    )
    settings = models.JSONField(default=dict, blank=True)
    time_zone = models.CharField(
        max_length=64,
        default="UTC",
        db_default="UTC",
        validators=[known_time_zone],
        help_text="IANA name, such as America/Sao_Paulo: of the dates that its members enter in lists",
    )
    trace_rate = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="share of its payments that are traced, from 0 to 1; empty: the service's TRACE_SAMPLE_RATE",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ApiKeyQuerySet(AsyncQuerySet):
    def usable(self) -> Self:
        """Neither revoked nor expired."""
        return self.filter(revoked_at=None).filter(models.Q(expires_at=None) | models.Q(expires_at__gt=Now()))


class ApiKey(AsyncModelMixin, models.Model):
    """A program's right to act for a tenant. Only the SHA-256 of the secret is stored: 256 random bits need no salt."""

    class Scope(models.TextChoices):
        READ = "read"
        WRITE = "write"
        ADMIN = "admin"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys")
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    name = models.CharField(max_length=100, blank=True)
    scopes = models.JSONField(default=list)
    rate_limit = models.CharField(max_length=50, blank=True, help_text="such as 100/second; empty: none")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(ApiKeyQuerySet)()

    class Meta:
        ordering = ["tenant", "prefix"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return self.prefix


class ApiRequest(AsyncModelMixin, models.Model):
    """An API request made with a key. registry.edge.request_log writes it: errors all, successes sampled; kept for 7 days."""

    pk = models.CompositePrimaryKey("tenant_id", "id")
    tenant = models.ForeignKey(Tenant, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    id = models.BigIntegerField(help_text="microseconds since 1970, followed by ten random bits")
    at = models.DateTimeField()
    key = models.CharField(max_length=16, help_text="prefix of the API key")
    method = models.CharField(max_length=8)
    path = models.CharField(max_length=300, help_text="without the query")
    status = models.SmallIntegerField()
    code = models.CharField(max_length=64, blank=True, help_text="last part of the problem's type; empty for a success")
    duration = models.IntegerField(help_text="microseconds until the answer was ready")
    request_id = models.CharField(max_length=64)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        ordering = ["-id"]
        verbose_name = "API request"

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.status}"

    @property
    def took(self) -> float:
        """Seconds."""
        return self.duration / 1_000_000


class Membership(AsyncModelMixin, models.Model):
    """A person's role in a tenant."""

    class Role(models.TextChoices):
        OWNER = "owner"
        OPERATOR = "operator"
        VIEWER = "viewer"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_per_person")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.tenant}"


class AuditEntry(AsyncModelMixin, models.Model):
    """A recorded action: who did what, why, and to how many rows. registry.tenants.audit writes it; the database refuses changes."""

    at = models.DateTimeField(db_default=Now())
    tenant = models.ForeignKey(Tenant, models.PROTECT, null=True, blank=True, related_name="+")
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=100)
    target = models.CharField(max_length=200, help_text="what it was done to")
    rows = models.IntegerField(default=1)
    reason = models.TextField(blank=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit log"
        indexes = [models.Index(fields=["tenant", "at"], name="audit_tenant_at")]

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.target}"


class AuditLink(AsyncModelMixin, models.Model):
    """An audit entry's place in its chain. The database adds it when the entry's transaction commits (audit_chain.sql)."""

    entry_id = models.BigIntegerField(primary_key=True)
    chain = models.BigIntegerField(help_text="the tenant's id; 0: the service's own")
    position = models.BigIntegerField(help_text="from 1, without gaps, in the order of commits")
    digest = models.BinaryField(max_length=32, help_text="SHA-256 of the digest before and the entry's content")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["chain", "position"], name="one_link_per_position")]

    def __str__(self) -> str:
        return f"{self.chain}/{self.position}"


class AuditHead(AsyncModelMixin, models.Model):
    """The end of a chain of audit entries; it reveals when the latest entries were deleted."""

    chain = models.BigIntegerField(primary_key=True)
    position = models.BigIntegerField()
    digest = models.BinaryField(max_length=32)

    def __str__(self) -> str:
        return f"{self.chain}/{self.position}"


class BookCheck(AsyncModelMixin, models.Model):
    """A nightly check of the books of all tenants (registry.operators.book_checks). It is done in portions."""

    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True, help_text="until then a process is at work on it")
    place = models.JSONField(null=True, help_text="where the next portion begins: tenant, part, after, done")
    rows = models.JSONField(default=dict, help_text="number of rows that were compared, by part")
    differences = models.IntegerField(default=0)
    named = models.JSONField(default=list, help_text="the first of the differences")
    seconds = models.FloatField(default=0, help_text="time that it took")

    class Meta:
        ordering = ["-id"]
        verbose_name = "check of the books"
        verbose_name_plural = "checks of the books"

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d}"


class Flag(AsyncModelMixin, AbstractUserFlag):
    """A switch for inline work (`inline.payment`, `inline.refund`): on or off for `everyone`, or on for the named tenants.
    registry.tenants.access reads it with the key."""

    tenants = models.ManyToManyField(Tenant, blank=True, related_name="+", help_text="for whom it is inline")

    class Meta:
        ordering = ["name"]
        verbose_name, verbose_name_plural = "switch", "switches"

    def __str__(self) -> str:
        return self.name
