"""Billing of tenants: plans, subscriptions, unfinished sign-ups, invitations."""

from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.currencies import known_currency
from registry.models import SLUG, Membership, Tenant

INVITED_FOR = timedelta(days=14)  # validity of an invitation's link


class Plan(AsyncModelMixin, models.Model):
    """A monthly plan that tenants subscribe to."""

    slug = models.CharField(max_length=63, unique=True, validators=[SLUG])
    name = models.CharField(max_length=100)
    price = models.BigIntegerField(default=0, help_text="a month, in minor units; 0 is free")
    currency = models.CharField(max_length=3, default="BRL", validators=[known_currency], help_text="ISO 4217")
    fee_share = models.DecimalField(
        max_digits=7,
        decimal_places=6,
        default=0,
        help_text="the platform's share of each amount, taken through Connect: 0.01 is 1 %",
    )
    trial_days = models.IntegerField(default=0, help_text="days before it has to be paid")
    stripe_price = models.CharField(
        max_length=255, blank=True, default="", help_text="Stripe's price id; created at the first use"
    )
    offered = models.BooleanField(default=True, help_text="offered at sign-up; existing subscriptions keep it")
    position = models.SmallIntegerField(default=0, help_text="order at sign-up")

    class Meta:
        ordering = ["position", "price", "slug"]

    def __str__(self) -> str:
        return self.name


class Paid(models.TextChoices):
    """Status of a subscription, as Stripe names it."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due", "past due"
    UNPAID = "unpaid"
    CANCELED = "canceled"


class Dunning(models.TextChoices):
    """Consequences of unpaid invoices."""

    NONE = "none"
    NOTICE = "notice", "reminded"
    REFUSED = "refused", "live payments refused"
    SUSPENDED = "suspended", "live mode suspended"


class Subscription(AsyncModelMixin, models.Model):
    """A tenant's subscription to a plan: a copy of its latest state at Stripe, and the consequences."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="subscription")
    plan = models.ForeignKey(Plan, models.PROTECT, related_name="subscriptions")
    status = models.CharField(max_length=10, choices=Paid)
    stripe_customer = models.CharField(max_length=255, blank=True, default="", db_index=True)
    stripe_subscription = models.CharField(max_length=255, blank=True, default="", db_index=True)
    trial_end = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    cancel_at = models.DateTimeField(
        null=True, blank=True, help_text="end of the subscription, if its owner canceled it"
    )
    dunning = models.CharField(max_length=10, choices=Dunning, default=Dunning.NONE)
    past_due_since = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(null=True, help_text="start of the look-up at Stripe that was stored last")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["tenant"]

    def __str__(self) -> str:
        return f"{self.plan} of {self.tenant}"


class SignUp(AsyncModelMixin, models.Model):
    """An unfinished sign-up, which its owner can resume at any time."""

    class Step(models.TextChoices):
        DETAILS = "details"
        USERS = "users"
        PLAN = "plan"
        PAYMENT = "payment"
        LIVE = "live"

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="sign_up")
    id = models.UUIDField(default=uuid4, unique=True, help_text="in its URLs; only its user may open them")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="sign_ups")
    step = models.CharField(max_length=10, choices=Step, default=Step.USERS, help_text="the furthest step reached")
    data = models.JSONField(default=dict, help_text="choices that are not applied yet")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "sign-up"

    def __str__(self) -> str:
        return f"sign-up of {self.tenant}"


class Invitation(AsyncModelMixin, models.Model):
    """An invitation to become a member, by a signed link that works once."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="invitations", db_index=False)
    email = models.EmailField()
    role = models.CharField(max_length=10, choices=Membership.Role, default=Membership.Role.OPERATOR)
    invited_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    accepted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["tenant", "id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "email"], name="one_invitation_per_address")]

    def __str__(self) -> str:
        return f"{self.email} as {self.role}"
