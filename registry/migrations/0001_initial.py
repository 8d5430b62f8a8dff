"""Tenants and their keys, members, switches and audit trail; the name of the service."""

from pathlib import Path

import django.core.validators
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

import registry.currencies
from registry.data.creation import in_one_step

SQL = Path(__file__).parent / "sql"
SWITCHES = ("inline.payment", "inline.refund")  # both queued at first


def make_switches(apps, schema_editor):
    for name in SWITCHES:
        apps.get_model("registry", "Flag").objects.get_or_create(name=name, defaults={"superusers": False})


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Tenant",
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
                ("name", models.CharField(max_length=200)),
                (
                    "currency",
                    models.CharField(
                        default="BRL",
                        help_text="ISO 4217, used where a payment names none",
                        max_length=3,
                        validators=[registry.currencies.known_currency],
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("suspended", "Suspended"), ("closed", "Closed")],
                        default="active",
                        max_length=10,
                    ),
                ),
                (
                    "mode",
                    models.CharField(
                        choices=[("sandbox", "Sandbox"), ("live", "Live")], default="sandbox", max_length=10
                    ),
                ),
                ("open", models.BooleanField(default=False, help_text="requests without a key may act as this tenant")),
                (
                    "max_amount",
                    models.BigIntegerField(
                        blank=True,
                        help_text="No payment may be larger. In minor units of the payment's own currency, whichever that is: 10000 is 100.00 BRL and also 10,000 JPY.",
                        null=True,
                    ),
                ),
                (
                    "blocked",
                    models.CharField(
                        blank=True,
                        db_default="",
                        help_text="reason for refusing payments in live mode, as shown to the sender; empty: they are accepted",
                        max_length=200,
                    ),
                ),
                (
                    "patience",
                    models.PositiveIntegerField(
                        blank=True,
                        db_default=300,
                        default=300,
                        help_text="Milliseconds for which a lower fee is worth waiting: a payment goes to the cheapest processor that answers within it.",
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(60000),
                        ],
                    ),
                ),
                ("settings", models.JSONField(blank=True, default=dict)),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["slug"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant",
                    models.ForeignKey(on_delete=models.CASCADE, related_name="api_keys", to="registry.tenant"),
                ),
                ("prefix", models.CharField(editable=False, max_length=16, unique=True)),
                ("digest", models.BinaryField(max_length=32)),
                ("name", models.CharField(blank=True, max_length=100)),
                ("scopes", models.JSONField(default=list)),
                (
                    "rate_limit",
                    models.CharField(blank=True, help_text="such as 100/second; empty: none", max_length=50),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                "verbose_name": "API key",
                "ordering": ["tenant", "prefix"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant",
                    models.ForeignKey(on_delete=models.CASCADE, related_name="memberships", to="registry.tenant"),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=models.CASCADE,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[("owner", "Owner"), ("operator", "Operator"), ("viewer", "Viewer")],
                        default="viewer",
                        max_length=10,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("tenant", "user"), name="one_membership_per_person")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_default=Now())),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=models.PROTECT,
                        related_name="+",
                        to="registry.tenant",
                    ),
                ),
                ("actor", models.CharField(max_length=150)),
                ("action", models.CharField(max_length=100)),
                ("target", models.CharField(help_text="what it was done to", max_length=200)),
                ("rows", models.IntegerField(default=1)),
                ("reason", models.TextField(blank=True)),
                ("detail", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["tenant", "at"], name="audit_tenant_at")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                ("entry_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("chain", models.BigIntegerField(help_text="the tenant's id; 0: the service's own")),
                ("position", models.BigIntegerField(help_text="from 1, without gaps, in the order of commits")),
                (
                    "digest",
                    models.BinaryField(help_text="SHA-256 of the digest before and the entry's content", max_length=32),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("chain", "position"), name="one_link_per_position")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("chain", models.BigIntegerField(primary_key=True, serialize=False)),
                ("position", models.BigIntegerField()),
                ("digest", models.BinaryField(max_length=32)),
            ],
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Flag",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(
                        help_text="The human/computer readable name.", max_length=100, unique=True, verbose_name="Name"
                    ),
                ),
                (
                    "everyone",
                    models.BooleanField(
                        blank=True,
                        help_text="Flip this flag on (Yes) or off (No) for everyone, overriding all other settings. Leave as Unknown to use normally.",
                        null=True,
                        verbose_name="Everyone",
                    ),
                ),
                (
                    "percent",
                    models.DecimalField(
                        blank=True,
                        decimal_places=1,
                        help_text="A number between 0.0 and 99.9 to indicate a percentage of users for whom this flag will be active.",
                        max_digits=3,
                        null=True,
                        verbose_name="Percent",
                    ),
                ),
                (
                    "testing",
                    models.BooleanField(
                        default=False,
                        help_text="Allow this flag to be set for a session for user testing",
                        verbose_name="Testing",
                    ),
                ),
                (
                    "superusers",
                    models.BooleanField(
                        default=True, help_text="Flag always active for superusers?", verbose_name="Superusers"
                    ),
                ),
                (
                    "staff",
                    models.BooleanField(default=False, help_text="Flag always active for staff?", verbose_name="Staff"),
                ),
                (
                    "authenticated",
                    models.BooleanField(
                        default=False,
                        help_text="Flag always active for authenticated users?",
                        verbose_name="Authenticated",
                    ),
                ),
                (
                    "languages",
                    models.TextField(
                        blank=True,
                        default="",
                        help_text="Activate this flag for users with one of these languages (comma-separated list)",
                        verbose_name="Languages",
                    ),
                ),
                (
                    "rollout",
                    models.BooleanField(default=False, help_text="Activate roll-out mode?", verbose_name="Rollout"),
                ),
                ("note", models.TextField(blank=True, help_text="Note where this Flag is used.", verbose_name="Note")),
                (
                    "created",
                    models.DateTimeField(
                        db_index=True,
                        default=django.utils.timezone.now,
                        help_text="Date when this Flag was created.",
                        verbose_name="Created",
                    ),
                ),
                (
                    "modified",
                    models.DateTimeField(
                        default=django.utils.timezone.now,
                        help_text="Date when this Flag was last modified.",
                        verbose_name="Modified",
                    ),
                ),
                (
                    "groups",
                    models.ManyToManyField(
                        blank=True,
                        help_text="Activate this flag for these user groups.",
                        to="auth.group",
                        verbose_name="Groups",
                    ),
                ),
                (
                    "users",
                    models.ManyToManyField(
                        blank=True,
                        help_text="Activate this flag for these users.",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="Users",
                    ),
                ),
                (
                    "tenants",
                    models.ManyToManyField(
                        blank=True, help_text="for whom it is inline", related_name="+", to="registry.tenant"
                    ),
                ),
            ],
            options={
                "verbose_name": "switch",
                "verbose_name_plural": "switches",
                "ordering": ["name"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(
            (SQL / "audit_chain.sql").read_text(),
            "DROP FUNCTION registry_chain_audit(), registry_keep_audit(), registry_audit_content(registry_auditentry) CASCADE",
        ),
        # Undone, the name stays: keys in Redis carry it.
        migrations.RunSQL((SQL / "identity.sql").read_text(), migrations.RunSQL.noop),
        migrations.RunPython(make_switches, migrations.RunPython.noop),
    ]
    operations = in_one_step(operations)
