"""Plans, subscriptions and sign-ups."""

import uuid

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.conf import settings
from django.db import migrations, models

import registry.currencies

# (slug, name, price in BRL minor units, payments a month, fee share, trial days): to begin with; operators change them
PLANS = [
    ("free", "Free", 0, 1_000, "0.02", 0),
    ("business", "Business", 9_900, 50_000, "0.005", 14),
    ("scale", "Scale", 49_900, 0, "0.002", 14),
]


def offer_plans(apps, schema_editor):
    for position, (slug, name, price, included, share, days) in enumerate(PLANS):
        fields = {"name": name, "price": price, "included": included, "fee_share": share, "trial_days": days}
        apps.get_model("payments", "Plan").objects.get_or_create(slug=slug, defaults={**fields, "position": position})


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0009_reconciliation"),
        ("registry", "0005_blocked"),
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
                ("included", models.IntegerField(default=0, help_text="payments a month; 0: as many as wanted")),
                (
                    "fee_share",
                    models.DecimalField(
                        decimal_places=6,
                        default=0,
                        help_text="ours of each amount, taken through Connect: 0.01 is 1 %",
                        max_digits=7,
                    ),
                ),
                ("trial_days", models.IntegerField(default=0, help_text="days before it has to be paid")),
                (
                    "stripe_price",
                    models.CharField(
                        blank=True, default="", help_text="Stripe's price; made when it is first needed", max_length=255
                    ),
                ),
                ("offered", models.BooleanField(default=True, help_text="shown at sign-up; who has it keeps it")),
                ("position", models.SmallIntegerField(default=0, help_text="order at sign-up")),
            ],
            options={
                "ordering": ["position", "price", "slug"],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="SignUp",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="sign_up",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, help_text="in its addresses; worth nothing without its user", unique=True
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
                        help_text="the furthest that was reached",
                        max_length=10,
                    ),
                ),
                ("data", models.JSONField(default=dict, help_text="what was chosen and is not carried out yet")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="sign_ups",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "sign-up",
                "ordering": ["-created_at"],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="subscription",
                        serialize=False,
                        to="registry.tenant",
                    ),
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
                    models.DateTimeField(blank=True, help_text="when it ends, where its owner wants that", null=True),
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
                    models.DateTimeField(
                        help_text="when the look at Stripe began that is written down here", null=True
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="subscriptions", to="payments.plan"
                    ),
                ),
            ],
            options={
                "ordering": ["tenant"],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
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
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("accepted_at", models.DateTimeField(blank=True, null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="invitations",
                        to="registry.tenant",
                    ),
                ),
            ],
            options={
                "ordering": ["tenant", "id"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "email"), name="one_invitation_per_address")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        # It is found by its tenant, as everything here.
        migrations.RunSQL(
            "ALTER TABLE payments_invitation DROP CONSTRAINT payments_invitation_pkey; "
            "ALTER TABLE payments_invitation ADD PRIMARY KEY (tenant_id, id)",
            "ALTER TABLE payments_invitation DROP CONSTRAINT payments_invitation_pkey; "
            "ALTER TABLE payments_invitation ADD PRIMARY KEY (id)",
        ),
        migrations.RunPython(offer_plans, migrations.RunPython.noop),
    ]
