"""Refunds and disputes, and what a sandbox processor has given back."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models

TABLES = ("refund", "dispute")


def by_tenant(table: str) -> migrations.RunSQL:
    name = f"payments_{table}"
    return migrations.RunSQL(
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (tenant_id, id)",
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (id)",
    )


class Migration(migrations.Migration):
    dependencies = [("payments", "0005_processors")]

    operations = [
        migrations.CreateModel(
            name="Refund",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("public_id", models.UUIDField()),
                ("number", models.IntegerField(help_text="within the payment")),
                (
                    "fingerprint",
                    models.BinaryField(help_text="of what was asked: replays carry the same one", max_length=16),
                ),
                ("amount", models.BigIntegerField(help_text="minor units")),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(blank=True, default="", max_length=500)),
                (
                    "actor",
                    models.CharField(default="", help_text="who asked: a key's prefix or a person", max_length=150),
                ),
                ("external", models.BooleanField(default=False, help_text="made at the processor, not here")),
                ("reference", models.CharField(default="", help_text="what the processor calls it", max_length=255)),
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
                        help_text="when workers gave it up: an operator retries or closes it", null=True
                    ),
                ),
                ("run_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("priority", models.SmallIntegerField(default=0)),
                ("attempt", models.IntegerField(default=0, help_text="number of the latest attempt: the fence")),
                ("tries_from", models.IntegerField(default=0, help_text="attempt from which tries are counted")),
                ("lease_id", models.BigIntegerField(help_text="the worker that holds it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
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
                (
                    "payment",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="payments.payment",
                    ),
                ),
                (
                    "processor",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="payments.processor",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="registry.tenant",
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
                    models.Index(fields=["tenant", "settled_at"], name="refund_settled"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "public_id"), name="refund_once_per_tenant"),
                    models.UniqueConstraint(fields=("tenant", "payment", "number"), name="refund_number_once"),
                    models.UniqueConstraint(
                        condition=models.Q(("reference__gt", "")),
                        fields=("tenant", "processor", "reference"),
                        name="refund_reference_once",
                    ),
                    models.CheckConstraint(condition=models.Q(("amount__gt", 0)), name="refund_amount_positive"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["owed", "processing", "uncertain", "returned", "failed"])),
                        name="refund_status_known",
                    ),
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Dispute",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("reference", models.CharField(help_text="what the processor calls it", max_length=255)),
                ("amount", models.BigIntegerField(help_text="minor units that are disputed")),
                ("currency", models.CharField(max_length=3)),
                ("reason", models.CharField(blank=True, default="", max_length=100)),
                ("status", models.CharField(help_text="in the processor's words", max_length=50)),
                ("due_by", models.DateTimeField(help_text="evidence is taken until then", null=True)),
                ("withdrawn", models.BigIntegerField(default=0, help_text="minor units that are held back now")),
                ("movements", models.IntegerField(default=0, help_text="how often money was moved: it only grows")),
                ("opened_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("closed_at", models.DateTimeField(null=True)),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "payment",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="payments.payment",
                    ),
                ),
                (
                    "processor",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="payments.processor",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="registry.tenant",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["tenant", "payment"], name="dispute_payment"),
                    models.Index(fields=["tenant", "changed_at"], name="dispute_changed"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "processor", "reference"), name="dispute_reference_once")
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
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
                ("booked_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "indexes": [models.Index(fields=["processor_id", "correlation_id"], name="sandbox_refund_payment")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        *(by_tenant(table) for table in TABLES),
        # As payments: a claim changes no indexed column, and with room on the page it costs no index entry.
        migrations.RunSQL(
            "ALTER TABLE payments_refund SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)",
            "ALTER TABLE payments_refund RESET (fillfactor, autovacuum_vacuum_scale_factor)",
        ),
    ]
