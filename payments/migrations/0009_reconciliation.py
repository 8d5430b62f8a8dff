"""What processors' books and ours differ in."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models

TABLES = ("reconciliation", "difference")


def by_tenant(table: str) -> migrations.RunSQL:
    name = f"payments_{table}"
    return migrations.RunSQL(
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (tenant_id, id)",
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (id)",
    )


class Migration(migrations.Migration):
    dependencies = [("payments", "0008_outbound_webhooks")]

    operations = [
        migrations.CreateModel(
            name="Difference",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
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
                    models.CharField(
                        help_text="what it is about: a correlation id, or the processor's reference", max_length=255
                    ),
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
                ("found_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "seen_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="when a comparison found it last",
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
                "indexes": [models.Index(fields=["tenant", "processor", "key"], name="difference_key")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("resolution", "")),
                        fields=("tenant", "processor", "kind", "key"),
                        name="difference_open_once",
                    )
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Reconciliation",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
                (
                    "reached",
                    models.DateTimeField(help_text="compared up to here: where the next worker goes on", null=True),
                ),
                (
                    "both_ways",
                    models.BooleanField(default=True, help_text="off: only a sample of ours was looked up there"),
                ),
                ("records", models.BigIntegerField(default=0, help_text="of the processor's that were compared")),
                ("payments", models.BigIntegerField(default=0, help_text="of ours that were compared")),
                ("differences", models.IntegerField(default=0, help_text="found or found again")),
                ("unanswered", models.IntegerField(default=0, help_text="payments that the processor said nothing of")),
                (
                    "fault",
                    models.CharField(default="", help_text="why it stopped; it is taken up again", max_length=300),
                ),
                (
                    "attempt",
                    models.IntegerField(default=1, help_text="the fence: who was taken for dead writes nothing more"),
                ),
                ("leased_until", models.DateTimeField(null=True)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("finished_at", models.DateTimeField(null=True)),
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
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "processor", "since", "until"), name="reconciliation_once"
                    )
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        *(by_tenant(table) for table in TABLES),
    ]
