"""Payments and everything that is booked because of them; processors, inbound webhooks, reconciliation and billing."""

import uuid
from datetime import UTC, datetime
from pathlib import Path

import django.core.validators
from django.conf import settings
from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

import registry.currencies
from registry.data.creation import in_one_step

TABLES = Path(__file__).parent / "sql" / "tables.sql"
EVER = datetime(1, 1, 1, tzinfo=UTC)

# (slug, name, price in BRL minor units, fee share, trial days): the first offer, which operators change
PLANS = [
    ("free", "Free", 0, "0.02", 0),
    ("business", "Business", 9_900, "0.005", 14),
    ("scale", "Scale", 49_900, "0.002", 14),
]


def offer_plans(apps, schema_editor):
    for position, (slug, name, price, share, days) in enumerate(PLANS):
        fields = {"name": name, "price": price, "fee_share": share, "trial_days": days}
        apps.get_model("payments", "Plan").objects.get_or_create(slug=slug, defaults={**fields, "position": position})


def key_to(model: str) -> models.ForeignKey:
    """A key without constraint and index: the statements take ids from rows that they lock, and every index is named."""
    return models.ForeignKey(model, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("registry", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Plan",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "slug",
                    models.CharField(
                        max_length=63,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9][a-z0-9-]{0,62}\\Z", "lower-case letters, digits and hyphens, at most 63"
                            )
                        ],
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("price", models.BigIntegerField(default=0, help_text="a month, in minor units; 0 is free")),
                (
                    "currency",
                    models.CharField(
                        default="BRL",
                        help_text="ISO 4217",
                        max_length=3,
                        validators=[registry.currencies.known_currency],
                    ),
                ),
                (
                    "fee_share",
                    models.DecimalField(
                        decimal_places=6,
                        default=0,
                        help_text="the platform's share of each amount, taken through Connect: 0.01 is 1 %",
                        max_digits=7,
                    ),
                ),
                ("trial_days", models.IntegerField(default=0, help_text="days before it has to be paid")),
                (
                    "stripe_price",
                    models.CharField(
                        blank=True, default="", help_text="Stripe's price id; created at the first use", max_length=255
                    ),
                ),
                (
                    "offered",
                    models.BooleanField(default=True, help_text="offered at sign-up; existing subscriptions keep it"),
                ),
                ("position", models.SmallIntegerField(default=0, help_text="order at sign-up")),
            ],
            options={
                "ordering": ["position", "price", "slug"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="subscription",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                (
                    "plan",
                    models.ForeignKey(on_delete=models.PROTECT, related_name="subscriptions", to="payments.plan"),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("trialing", "Trialing"),
                            ("active", "Active"),
                            ("past_due", "past due"),
                            ("unpaid", "Unpaid"),
                            ("canceled", "Canceled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("stripe_customer", models.CharField(blank=True, db_index=True, default="", max_length=255)),
                ("stripe_subscription", models.CharField(blank=True, db_index=True, default="", max_length=255)),
                ("trial_end", models.DateTimeField(blank=True, null=True)),
                ("period_end", models.DateTimeField(blank=True, null=True)),
                (
                    "cancel_at",
                    models.DateTimeField(
                        blank=True, help_text="end of the subscription, if its owner canceled it", null=True
                    ),
                ),
                (
                    "dunning",
                    models.CharField(
                        choices=[
                            ("none", "None"),
                            ("notice", "reminded"),
                            ("refused", "live payments refused"),
                            ("suspended", "live mode suspended"),
                        ],
                        default="none",
                        max_length=10,
                    ),
                ),
                ("past_due_since", models.DateTimeField(blank=True, null=True)),
                (
                    "asked_at",
                    models.DateTimeField(help_text="start of the look-up at Stripe that was stored last", null=True),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
                ("changed_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "ordering": ["tenant"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="SignUp",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="sign_up",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, help_text="in its URLs; only its user may open them", unique=True
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=models.CASCADE,
                        related_name="sign_ups",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "step",
                    models.CharField(
                        choices=[
                            ("details", "Details"),
                            ("users", "Users"),
                            ("plan", "Plan"),
                            ("payment", "Payment"),
                            ("live", "Live"),
                        ],
                        default="users",
                        help_text="the furthest step reached",
                        max_length=10,
                    ),
                ),
                ("data", models.JSONField(default=dict, help_text="choices that are not applied yet")),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
                ("changed_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "verbose_name": "sign-up",
                "ordering": ["-created_at"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.CASCADE,
                        related_name="invitations",
                        to="registry.tenant",
                    ),
                ),
                ("email", models.EmailField(max_length=254)),
                (
                    "role",
                    models.CharField(
                        choices=[("owner", "Owner"), ("operator", "Operator"), ("viewer", "Viewer")],
                        default="operator",
                        max_length=10,
                    ),
                ),
                ("invited_by", models.CharField(max_length=150)),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
                ("accepted_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["tenant", "id"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "email"), name="one_invitation_per_address")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Processor",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant",
                    models.ForeignKey(on_delete=models.CASCADE, related_name="processors", to="registry.tenant"),
                ),
                ("name", models.SlugField(max_length=63)),
                ("kind", models.CharField(help_text="http, stripe or sandbox", max_length=20)),
                (
                    "url",
                    models.CharField(
                        blank=True,
                        help_text="kind http: its address; kind stripe: empty for Stripe itself",
                        max_length=500,
                    ),
                ),
                (
                    "fee",
                    models.DecimalField(
                        decimal_places=6, default=0, help_text="share of the amount: 0.05 is 5 %", max_digits=7
                    ),
                ),
                ("options", models.JSONField(blank=True, default=dict)),
                ("secrets", models.BinaryField(help_text="keys, encrypted: registry.tenants.encryption", null=True)),
                ("enabled", models.BooleanField(default=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["tenant", "fee", "name"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "name"), name="one_processor_per_name")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                ("key", models.CharField(max_length=600, primary_key=True, serialize=False)),
                ("failing", models.BooleanField(default=False, help_text="by its latest health report")),
                ("min_response_ms", models.IntegerField(default=0, help_text="by its latest health report")),
                ("trend_ms", models.FloatField(default=0, help_text="moving average of response times")),
                ("polled_at", models.DateTimeField(help_text="when its health was polled last", null=True)),
                ("next_poll_at", models.DateTimeField(db_default=Now())),
                (
                    "breaker",
                    models.CharField(
                        choices=[("closed", "Closed"), ("open", "Open"), ("half_open", "half open")],
                        default="closed",
                        max_length=10,
                    ),
                ),
                ("failures", models.IntegerField(default=0, help_text="consecutive failures")),
                ("breaker_changed_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "ordering": ["key"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Payment",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("correlation_id", models.UUIDField()),
                (
                    "fingerprint",
                    models.BinaryField(help_text="hash of the content: a replay has the same one", max_length=16),
                ),
                ("amount", models.BigIntegerField(help_text="minor units")),
                ("currency", models.CharField(max_length=3)),
                ("description", models.TextField(default="")),
                ("metadata", models.JSONField(null=True)),
                (
                    "wanted_processor",
                    models.CharField(
                        default="", help_text="requested by name; empty: chosen by routing", max_length=63
                    ),
                ),
                (
                    "method",
                    models.JSONField(help_text="payment method of the request: references, never card data", null=True),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("processing", "Processing"),
                            ("uncertain", "Uncertain"),
                            ("requires_action", "requires action"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("canceled", "Canceled"),
                        ],
                        default="queued",
                        max_length=20,
                    ),
                ),
                ("sequence", models.IntegerField(default=1, help_text="number of its latest event")),
                ("code", models.CharField(default="", help_text="why it failed or is in doubt", max_length=50)),
                (
                    "processor",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.DO_NOTHING,
                        related_name="+",
                        to="payments.processor",
                    ),
                ),
                (
                    "requested_at",
                    models.DateTimeField(help_text="the requestedAt that was booked; milliseconds", null=True),
                ),
                ("in_doubt_since", models.DateTimeField(help_text="last send whose outcome is unknown", null=True)),
                ("fee", models.BigIntegerField(help_text="minor units", null=True)),
                (
                    "owed_back",
                    models.BigIntegerField(db_default=0, help_text="sum of refunds that have not failed; minor units"),
                ),
                ("refunded", models.BigIntegerField(default=0, help_text="minor units")),
                (
                    "canceling",
                    models.BooleanField(db_default=False, help_text="a cancellation was requested after it was sent"),
                ),
                (
                    "scheduled_for",
                    models.DateTimeField(
                        help_text="earliest time of the first send, if the sender asked for one", null=True
                    ),
                ),
                ("run_at", models.DateTimeField(db_default=Now())),
                ("priority", models.SmallIntegerField(db_default=0, default=0, help_text="0 to 9, 9 first")),
                (
                    "attempt",
                    models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt: the fence, which only grows"
                    ),
                ),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0,
                        default=0,
                        help_text="attempt number from which attempts are counted; a replay resets it",
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that has claimed it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=Now())),
                ("changed_at", models.DateTimeField(db_default=Now())),
                (
                    "closed",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(status="succeeded", then=models.Value("succeeded")),
                            models.When(status="failed", then=models.Value("failed")),
                            models.When(status="canceled", then=models.Value("canceled")),
                            models.When(status="requires_action", then=models.Value("requires_action")),
                        ),
                        output_field=models.CharField(max_length=20, null=True),
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("tenant"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("run_at"),
                        models.F("id"),
                        condition=models.Q(("closed", None)),
                        name="payment_open",
                    ),
                    models.Index(
                        condition=models.Q(("closed", None), ("in_doubt_since__isnull", False)),
                        fields=["tenant", "run_at", "id"],
                        name="payment_in_doubt",
                    ),
                    models.Index(
                        condition=models.Q(("created_at__gt", EVER)),
                        fields=["tenant", "created_at", "id"],
                        name="payment_created",
                    ),
                    models.Index(
                        condition=models.Q(("closed__in", ["failed", "canceled", "requires_action"])),
                        fields=["tenant", "closed", "id"],
                        name="payment_exceptions",
                    ),
                    models.Index(
                        condition=models.Q(("closed", "succeeded")),
                        fields=["processor", "requested_at", "tenant"],
                        include=("amount", "currency", "fee"),
                        name="payment_booked",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("correlation_id", "tenant"), name="payment_once_per_tenant"),
                    models.CheckConstraint(condition=models.Q(("amount__gt", 0)), name="payment_amount_positive"),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "status__in",
                                [
                                    "queued",
                                    "processing",
                                    "uncertain",
                                    "requires_action",
                                    "succeeded",
                                    "failed",
                                    "canceled",
                                ],
                            )
                        ),
                        name="payment_status_known",
                    ),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "payment_id",
                        "number",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("payment", key_to("payments.payment")),
                ("number", models.IntegerField()),
                ("processor", key_to("payments.processor")),
                ("reason", models.CharField(help_text="why this processor", max_length=200)),
                ("requested_at", models.DateTimeField()),
                ("worker_id", models.BigIntegerField(null=True)),
                ("started_at", models.DateTimeField(db_default=Now())),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("booked", "Booked"),
                            ("declined", "Declined"),
                            ("not_booked", "not booked"),
                            ("unknown", "Unknown"),
                            ("requires_action", "requires action"),
                            ("canceled", "Canceled"),
                        ],
                        default="",
                        help_text="empty: not known yet",
                        max_length=20,
                    ),
                ),
                ("code", models.CharField(default="", max_length=50)),
                ("latency_ms", models.IntegerField(null=True)),
                ("reference", models.CharField(db_default="", help_text="the processor's id", max_length=255)),
                ("action", models.JSONField(help_text="next action of the payer or the merchant", null=True)),
            ],
            options={
                "ordering": ["-payment_id", "-number"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Stream",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                ("position", models.BigIntegerField(default=0)),
            ],
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="PaymentEvent",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "position", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("position", models.BigIntegerField()),
                ("payment", key_to("payments.payment")),
                ("sequence", models.IntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("processing", "Processing"),
                            ("uncertain", "Uncertain"),
                            ("requires_action", "requires action"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("canceled", "Canceled"),
                        ],
                        max_length=20,
                    ),
                ),
                ("processor_id", models.BigIntegerField(null=True)),
                ("attempt", models.IntegerField(default=0)),
                ("at", models.DateTimeField(db_default=Now())),
                ("detail", models.CharField(default="", max_length=300)),
                ("kind", models.CharField(db_default="", max_length=30)),
                ("subject_id", models.BigIntegerField(null=True)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("payment", "tenant", "sequence"), name="event_sequence_once")
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="LedgerEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("payment", key_to("payments.payment")),
                ("processor_id", models.BigIntegerField()),
                (
                    "account",
                    models.CharField(
                        choices=[
                            ("processor", "held by the processor"),
                            ("fees", "kept by the processor"),
                            ("balance", "owed to the tenant"),
                        ],
                        max_length=10,
                    ),
                ),
                ("amount", models.BigIntegerField(help_text="minor units, debit positive")),
                ("currency", models.CharField(max_length=3)),
                ("at", models.DateTimeField(db_default=Now())),
                (
                    "cause",
                    models.CharField(
                        choices=[("payment", "Payment"), ("refund", "Refund"), ("dispute", "Dispute")],
                        db_default="payment",
                        max_length=10,
                    ),
                ),
                (
                    "cause_id",
                    models.BigIntegerField(help_text="the refund or dispute; a payment is its own cause", null=True),
                ),
            ],
            options={
                "verbose_name_plural": "ledger entries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["payment", "tenant"], name="ledger_payment"),
                    models.Index(
                        condition=models.Q(("cause", "payment"), _negated=True),
                        fields=["tenant", "currency"],
                        include=("account", "amount"),
                        name="ledger_causes",
                    ),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="LedgerProof",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(help_text="of the snapshot that was proven")),
                ("whole", models.BooleanField(help_text="the whole ledger, and not only what is new")),
                ("last_line", models.BigIntegerField(help_text="latest entry of the ledger at that time")),
                ("sound", models.BooleanField()),
                ("found", models.JSONField(help_text="what was counted: payments.books.ledger.Proof")),
            ],
            options={
                "ordering": ["-id"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "width",
                        "starts_at",
                        "processor_id",
                        "currency",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("width", models.IntegerField(help_text="seconds: 1 or 3600")),
                ("starts_at", models.DateTimeField()),
                ("processor_id", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("payments", models.BigIntegerField(default=0)),
                ("amount", models.BigIntegerField(default=0)),
                ("fee", models.BigIntegerField(default=0)),
            ],
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tenant", key_to("registry.tenant")),
                ("payment", key_to("payments.payment")),
                ("code", models.CharField(max_length=50)),
                ("detail", models.CharField(default="", max_length=300)),
                ("created_at", models.DateTimeField(db_default=Now())),
                (
                    "resolution",
                    models.CharField(
                        blank=True, choices=[("replayed", "Replayed"), ("closed", "Closed")], default="", max_length=10
                    ),
                ),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("resolved_by", models.CharField(blank=True, default="", max_length=150)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["payment", "tenant"], name="dead_letter_payment"),
                    models.Index(condition=models.Q(("resolution", "")), fields=["-id"], name="dead_letter_open"),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="SandboxBooking",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "processor_id", "correlation_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("processor_id", models.BigIntegerField()),
                ("correlation_id", models.UUIDField()),
                ("amount", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("requested_at", models.DateTimeField()),
                ("booked_at", models.DateTimeField(db_default=Now())),
            ],
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="InboundEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("processor", key_to("payments.processor")),
                (
                    "event_id",
                    models.CharField(
                        help_text="the processor's id: an event is delivered more than once", max_length=255
                    ),
                ),
                ("type", models.CharField(max_length=100)),
                (
                    "object_id",
                    models.CharField(default="", help_text="id of its object at the processor", max_length=255),
                ),
                (
                    "account",
                    models.CharField(default="", help_text="its connected account, if any", max_length=255),
                ),
                ("livemode", models.BooleanField(default=False)),
                ("created", models.DateTimeField(help_text="by the processor's clock")),
                ("body", models.BinaryField(help_text="as received: the signature covers these bytes")),
                ("headers", models.JSONField(default=dict)),
                ("source", models.CharField(choices=[("delivery", "Delivery"), ("poll", "Poll")], max_length=10)),
                ("received_at", models.DateTimeField(db_default=Now())),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("received", "Received"),
                            ("done", "Done"),
                            ("dead", "Dead"),
                            ("closed", "closed by an operator"),
                        ],
                        db_default="received",
                        max_length=10,
                    ),
                ),
                ("outcome", models.CharField(db_default="", help_text="result of its handling", max_length=100)),
                ("error", models.CharField(db_default="", help_text="error of its latest try", max_length=500)),
                (
                    "payment_id",
                    models.BigIntegerField(help_text="the payment it belongs to", null=True),
                ),
                ("done_at", models.DateTimeField(null=True)),
                ("run_at", models.DateTimeField(db_default=Now())),
                ("priority", models.SmallIntegerField(db_default=0, default=0, help_text="0 to 9, 9 first")),
                (
                    "attempt",
                    models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt: the fence, which only grows"
                    ),
                ),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0,
                        default=0,
                        help_text="attempt number from which attempts are counted; a replay resets it",
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that has claimed it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                (
                    "closed",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(status="done", then=models.Value("done")),
                            models.When(status="dead", then=models.Value("dead")),
                            models.When(status="closed", then=models.Value("closed")),
                        ),
                        output_field=models.CharField(max_length=10, null=True),
                    ),
                ),
            ],
            options={
                "verbose_name": "inbound event",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("tenant"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("run_at"),
                        models.F("id"),
                        condition=models.Q(("closed", None)),
                        name="inbound_open",
                    ),
                    models.Index(condition=models.Q(("closed", "dead")), fields=["tenant", "id"], name="inbound_dead"),
                    models.Index(
                        condition=models.Q(("received_at__gt", EVER)),
                        fields=["tenant", "received_at"],
                        name="inbound_received",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("event_id", "processor", "tenant"), name="inbound_event_once"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["received", "done", "dead", "closed"])),
                        name="inbound_status_known",
                    ),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="InboundPoll",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "processor_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("processor", key_to("payments.processor")),
                ("read_until", models.DateTimeField(help_text="all events created before it were read", null=True)),
                ("pass_until", models.DateTimeField(help_text="read_until at the end of the current pass", null=True)),
                (
                    "cursor",
                    models.CharField(default="", help_text="the last event read by the current pass", max_length=255),
                ),
                ("at", models.DateTimeField(db_default=Now())),
                ("error", models.CharField(default="", max_length=300)),
            ],
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("processor", key_to("payments.processor")),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
                (
                    "reached",
                    models.DateTimeField(help_text="compared up to here: the next worker resumes from it", null=True),
                ),
                (
                    "both_ways",
                    models.BooleanField(default=True, help_text="off: only a sample of our payments was looked up"),
                ),
                ("records", models.BigIntegerField(default=0, help_text="records of the processor that were compared")),
                ("payments", models.BigIntegerField(default=0, help_text="our payments that were compared")),
                ("differences", models.IntegerField(default=0, help_text="found or found again")),
                (
                    "unanswered",
                    models.IntegerField(default=0, help_text="payments without a clear answer of the processor"),
                ),
                (
                    "fault",
                    models.CharField(default="", help_text="why it stopped; it is resumed later", max_length=300),
                ),
                (
                    "attempt",
                    models.IntegerField(
                        default=1, help_text="the fence: a worker that lost its lease writes nothing more"
                    ),
                ),
                ("leased_until", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(db_default=Now())),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("finished_at", None)),
                        fields=["tenant", "until"],
                        name="reconciliation_open",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("processor", "since", "until", "tenant"), name="reconciliation_once"
                    )
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Difference",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("processor", key_to("payments.processor")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("missing_here", "missing here"),
                            ("missing_there", "missing there"),
                            ("amount", "Amount"),
                            ("currency", "Currency"),
                            ("refunded", "Refunded"),
                            ("duplicate", "Duplicate"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "key",
                    models.CharField(help_text="a correlation id, or the processor's reference", max_length=255),
                ),
                ("correlation_id", models.UUIDField(null=True)),
                ("reference", models.CharField(default="", max_length=255)),
                ("payment_id", models.BigIntegerField(help_text="ours; empty: there is none", null=True)),
                ("our_status", models.CharField(default="", max_length=20)),
                ("our_amount", models.BigIntegerField(help_text="minor units", null=True)),
                ("our_currency", models.CharField(default="", max_length=3)),
                ("our_refunded", models.BigIntegerField(help_text="minor units", null=True)),
                ("their_amount", models.BigIntegerField(help_text="minor units", null=True)),
                ("their_currency", models.CharField(default="", max_length=3)),
                ("their_refunded", models.BigIntegerField(help_text="minor units", null=True)),
                ("requested_at", models.DateTimeField()),
                ("found_at", models.DateTimeField(db_default=Now())),
                (
                    "seen_at",
                    models.DateTimeField(
                        db_default=Now(),
                        help_text="when a comparison last found it",
                    ),
                ),
                (
                    "resolution",
                    models.CharField(
                        blank=True,
                        choices=[("gone", "gone by itself"), ("booked", "booked as external"), ("closed", "Closed")],
                        default="",
                        max_length=10,
                    ),
                ),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("resolved_by", models.CharField(blank=True, default="", max_length=150)),
                ("note", models.TextField(blank=True, default="")),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["key", "processor", "tenant"], name="difference_key")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("resolution", "")),
                        fields=("tenant", "processor", "kind", "key"),
                        name="difference_open_once",
                    )
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Refund",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("payment", key_to("payments.payment")),
                ("public_id", models.UUIDField()),
                ("number", models.IntegerField(help_text="within the payment")),
                (
                    "fingerprint",
                    models.BinaryField(help_text="hash of the request: a replay has the same one", max_length=16),
                ),
                ("amount", models.BigIntegerField(help_text="minor units")),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(blank=True, default="", max_length=500)),
                (
                    "actor",
                    models.CharField(
                        default="", help_text="who requested it: a key's prefix or a user", max_length=150
                    ),
                ),
                ("external", models.BooleanField(default=False, help_text="made at the processor, not here")),
                ("processor", key_to("payments.processor")),
                ("reference", models.CharField(default="", help_text="the processor's id", max_length=255)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("owed", "Owed"),
                            ("processing", "Processing"),
                            ("uncertain", "Uncertain"),
                            ("returned", "Returned"),
                            ("failed", "Failed"),
                        ],
                        default="owed",
                        max_length=20,
                    ),
                ),
                ("code", models.CharField(default="", help_text="why it failed or is in doubt", max_length=50)),
                (
                    "requested_at",
                    models.DateTimeField(help_text="stamped once, before it is sent first; milliseconds", null=True),
                ),
                ("in_doubt_since", models.DateTimeField(help_text="last send whose outcome is unknown", null=True)),
                ("settled_at", models.DateTimeField(help_text="when it was returned or failed", null=True)),
                (
                    "stopped_at",
                    models.DateTimeField(
                        help_text="when workers gave it up; an operator retries or closes it", null=True
                    ),
                ),
                ("run_at", models.DateTimeField(db_default=Now())),
                ("priority", models.SmallIntegerField(db_default=0, default=0, help_text="0 to 9, 9 first")),
                (
                    "attempt",
                    models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt: the fence, which only grows"
                    ),
                ),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0,
                        default=0,
                        help_text="attempt number from which attempts are counted; a replay resets it",
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that has claimed it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=Now())),
                ("changed_at", models.DateTimeField(db_default=Now())),
                (
                    "closed",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(status="failed", then=models.Value("failed")),
                            models.When(status="returned", then=models.Value("returned")),
                        ),
                        output_field=models.CharField(max_length=20, null=True),
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("tenant"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("run_at"),
                        models.F("id"),
                        condition=models.Q(("closed", None)),
                        name="refund_open",
                    ),
                    models.Index(
                        condition=models.Q(("settled_at__isnull", False)),
                        fields=["tenant", "settled_at"],
                        name="refund_settled",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("public_id", "tenant"), name="refund_once_per_tenant"),
                    models.UniqueConstraint(fields=("payment", "tenant", "number"), name="refund_number_once"),
                    models.UniqueConstraint(
                        condition=models.Q(("reference__gt", "")),
                        fields=("reference", "processor", "tenant"),
                        name="refund_reference_once",
                    ),
                    models.CheckConstraint(condition=models.Q(("amount__gt", 0)), name="refund_amount_positive"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["owed", "processing", "uncertain", "returned", "failed"])),
                        name="refund_status_known",
                    ),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Dispute",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("payment", key_to("payments.payment")),
                ("processor", key_to("payments.processor")),
                ("reference", models.CharField(help_text="the processor's id", max_length=255)),
                ("amount", models.BigIntegerField(help_text="minor units that are disputed")),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(blank=True, default="", max_length=100)),
                ("status", models.CharField(help_text="the processor's status", max_length=50)),
                ("due_by", models.DateTimeField(help_text="deadline for evidence", null=True)),
                ("withdrawn", models.BigIntegerField(default=0, help_text="minor units withheld now")),
                ("movements", models.IntegerField(default=0, help_text="how often money was moved: it only grows")),
                ("opened_at", models.DateTimeField(db_default=Now())),
                ("closed_at", models.DateTimeField(null=True)),
                ("changed_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["payment", "tenant"], name="dispute_payment"),
                    models.Index(
                        condition=models.Q(("changed_at__gt", EVER)),
                        fields=["tenant", "changed_at"],
                        name="dispute_changed",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("reference", "processor", "tenant"), name="dispute_reference_once")
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="SandboxRefund",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "processor_id", "refund_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("processor_id", models.BigIntegerField()),
                ("refund_id", models.UUIDField()),
                ("correlation_id", models.UUIDField(help_text="of the payment")),
                ("amount", models.BigIntegerField()),
                ("currency", models.CharField(max_length=3)),
                ("requested_at", models.DateTimeField()),
                ("booked_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "indexes": [models.Index(fields=["processor_id", "correlation_id"], name="sandbox_refund_payment")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(TABLES.read_text(), migrations.RunSQL.noop),
        migrations.RunPython(offer_plans, migrations.RunPython.noop),
    ]
    operations = in_one_step(operations)
