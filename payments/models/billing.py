"""What tenants sign up for and pay: plans, subscriptions, sign-ups under way and invitations."""

from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.currencies import known_currency
from registry.models import SLUG, Membership, Tenant

INVITED_FOR = timedelta(days=14)  # after which an invitation's link is worth nothing


class Plan(AsyncModelMixin, models.Model):
    """What a tenant can subscribe to, by the month."""

    slug = models.CharField(max_length=63, unique=True, validators=[SLUG])
    name = models.CharField(max_length=100)
    price = models.BigIntegerField(default=0, help_text="a month, in minor units; 0 is free")
    currency = models.CharField(max_length=3, default="BRL", validators=[known_currency], help_text="ISO 4217")
    fee_share = models.DecimalField(
        max_digits=7, decimal_places=6, default=0, help_text="ours of each amount, taken through Connect: 0.01 is 1 %"
    )
    trial_days = models.IntegerField(default=0, help_text="days before it has to be paid")
    stripe_price = models.CharField(
        max_length=255, blank=True, default="", help_text="Stripe's price; made when it is first needed"
    )
    offered = models.BooleanField(default=True, help_text="shown at sign-up; who has it keeps it")
    position = models.SmallIntegerField(default=0, help_text="order at sign-up")

    class Meta:
        ordering = ["position", "price", "slug"]

    def __str__(self) -> str:
        return self.name


class Paid(models.TextChoices):
    """How a subscription stands, in Stripe's words."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due", "past due"
    UNPAID = "unpaid"
    CANCELED = "canceled"


class Dunning(models.TextChoices):
    """What follows when it is not paid."""

    NONE = "none"
    NOTICE = "notice", "reminded"
    REFUSED = "refused", "live payments refused"
    SUSPENDED = "suspended", "live mode suspended"


class Subscription(AsyncModelMixin, models.Model):
    """A tenant's plan and how it is paid for. Stripe's newest word of it is copied here, and what follows from that."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="subscription")
    plan = models.ForeignKey(Plan, models.PROTECT, related_name="subscriptions")
    status = models.CharField(max_length=10, choices=Paid)
    stripe_customer = models.CharField(max_length=255, blank=True, default="", db_index=True)
    stripe_subscription = models.CharField(max_length=255, blank=True, default="", db_index=True)
    trial_end = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    cancel_at = models.DateTimeField(null=True, blank=True, help_text="when it ends, where its owner wants that")
    dunning = models.CharField(max_length=10, choices=Dunning, default=Dunning.NONE)
    past_due_since = models.DateTimeField(null=True, blank=True)
    asked_at = models.DateTimeField(null=True, help_text="when the look at Stripe began that is written down here")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["tenant"]

    def __str__(self) -> str:
        return f"{self.plan} of {self.tenant}"


class SignUp(AsyncModelMixin, models.Model):
    """A tenant on its way in: where its owner is, to go on from there at any time."""

    class Step(models.TextChoices):
        DETAILS = "details"
        USERS = "users"
        PLAN = "plan"
        PAYMENT = "payment"
        LIVE = "live"

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="sign_up")
    id = models.UUIDField(default=uuid4, unique=True, help_text="in its addresses; worth nothing without its user")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="sign_ups")
    step = models.CharField(max_length=10, choices=Step, default=Step.USERS, help_text="the furthest that was reached")
    data = models.JSONField(default=dict, help_text="what was chosen and is not carried out yet")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "sign-up"

    def __str__(self) -> str:
        return f"sign-up of {self.tenant}"


class Invitation(AsyncModelMixin, models.Model):
    """Somebody who may become a member, by a signed link and once."""

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
