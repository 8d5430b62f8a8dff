"""Webhooks that tenants receive."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models


def by_tenant(table: str) -> migrations.RunSQL:
    name = f"payments_{table}"
    return migrations.RunSQL(
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (tenant_id, id)",
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (id)",
    )


def storage(table: str, **parameters: object) -> migrations.RunSQL:
    settings = ", ".join(f"{key} = {value}" for key, value in parameters.items())
    return migrations.RunSQL(
        f"ALTER TABLE payments_{table} SET ({settings})",
        f"ALTER TABLE payments_{table} RESET ({', '.join(parameters)})",
    )


# Vacuumed after so many changes, whatever the table's size.
STEADY_VACUUM = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 50_000,
    "autovacuum_vacuum_insert_scale_factor": 0,
    "autovacuum_vacuum_insert_threshold": 250_000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 20_000,
}


class Migration(migrations.Migration):
    dependencies = [("payments", "0007_inbound_webhooks")]

    operations = [
        migrations.CreateModel(
            name="WebhookAttempt",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("delivery_id", models.BigIntegerField()),
                ("number", models.IntegerField()),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="when it was written down; it began `latency_ms` before",
                    ),
                ),
                ("signed_at", models.DateTimeField(help_text="webhook-timestamp")),
                ("signature", models.CharField(db_default="", help_text="webhook-signature", max_length=500)),
                ("answer", models.SmallIntegerField(help_text="HTTP status; empty: none came", null=True)),
                ("headers", models.JSONField(help_text="of the answer, shortened", null=True)),
                ("body", models.TextField(db_default="", help_text="of the answer, shortened")),
                ("latency_ms", models.IntegerField()),
                (
                    "error",
                    models.CharField(db_default="", help_text="why it did not do; empty: delivered", max_length=300),
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
                "indexes": [models.Index(fields=["tenant", "delivery_id", "id"], name="webhook_attempt_of")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("endpoint_id", models.BigIntegerField()),
                (
                    "message_id",
                    models.CharField(help_text="webhook-id: the same at every try and replay", max_length=40),
                ),
                (
                    "position",
                    models.BigIntegerField(
                        help_text="of its event in the stream; tests and notes have none", null=True
                    ),
                ),
                ("subject", models.UUIDField(help_text="the payment's correlation id", null=True)),
                ("type", models.CharField(max_length=50)),
                ("body", models.TextField(help_text="as it is signed and sent")),
                ("ordered", models.BooleanField(db_default=False)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("held", "waits for the one before"),
                            ("delivered", "Delivered"),
                            ("dead", "given up"),
                            ("noted", "Noted"),
                        ],
                        db_default="pending",
                        max_length=10,
                    ),
                ),
                ("run_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("priority", models.SmallIntegerField(db_default=0)),
                ("attempt", models.IntegerField(db_default=0, help_text="number of the latest try: the fence")),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0, help_text="try from which tries are counted: a replay begins anew"
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that holds it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("answer", models.SmallIntegerField(help_text="HTTP status of the latest answer", null=True)),
                ("error", models.CharField(db_default="", help_text="why the latest try did not do", max_length=300)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "closed",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(status="delivered", then=models.Value("delivered")),
                            models.When(status="dead", then=models.Value("dead")),
                            models.When(status="noted", then=models.Value("noted")),
                        ),
                        output_field=models.CharField(max_length=10, null=True),
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
                "verbose_name_plural": "webhook deliveries",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("tenant"),
                        models.F("endpoint_id"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("run_at"),
                        models.F("id"),
                        condition=models.Q(("closed", None)),
                        name="webhook_delivery_open",
                    ),
                    models.Index(
                        condition=models.Q(("closed", None), ("ordered", True)),
                        fields=["tenant", "endpoint_id", "subject", "id"],
                        name="webhook_delivery_order",
                    ),
                    models.Index(fields=["tenant", "endpoint_id", "id"], name="webhook_delivery_log"),
                    models.Index(
                        condition=models.Q(("closed", "dead")),
                        fields=["tenant", "endpoint_id", "id"],
                        name="webhook_delivery_dead",
                    ),
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uuid", models.UUIDField(help_text="its name in the API")),
                ("url", models.CharField(max_length=2000)),
                ("description", models.CharField(blank=True, db_default="", max_length=200)),
                (
                    "events",
                    models.JSONField(
                        default=list, help_text='types such as payment.succeeded, beginnings such as "payment.", or "*"'
                    ),
                ),
                (
                    "ordered",
                    models.BooleanField(
                        db_default=False,
                        help_text="the next event of a payment waits until the one before it is delivered or given up",
                    ),
                ),
                ("enabled", models.BooleanField(db_default=True)),
                ("disabled_reason", models.CharField(blank=True, db_default="", max_length=300)),
                ("failing_since", models.DateTimeField(help_text="nothing was taken since", null=True)),
                (
                    "rest_until",
                    models.DateTimeField(help_text="it asked to be left alone until then (Retry-After)", null=True),
                ),
                (
                    "position",
                    models.BigIntegerField(help_text="number of the stream's latest event that was looked at for it"),
                ),
                ("secrets", models.BinaryField(help_text="what signs, sealed: registry.tenants.encryption")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("deleted_at", models.DateTimeField(null=True)),
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
                "ordering": ["id"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "uuid"), name="webhook_endpoint_once")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        *(by_tenant(table) for table in ("webhookendpoint", "webhookdelivery", "webhookattempt")),
        # A claim changes no indexed column: with room on the page it costs no index entry.
        storage("webhookdelivery", fillfactor=50, **STEADY_VACUUM),
        storage("webhookattempt", **STEADY_VACUUM),
        # A few rows, changed many times a second.
        storage("webhookendpoint", fillfactor=30, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=2000),
    ]
