"""Webhooks that processors send."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models


def key_to(model: str) -> models.ForeignKey:
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name="+",
        to=model,
    )


class Migration(migrations.Migration):
    dependencies = [("payments", "0006_refunds")]

    operations = [
        migrations.CreateModel(
            name="InboundEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "event_id",
                    models.CharField(help_text="the processor's: the same event comes more than once", max_length=255),
                ),
                ("type", models.CharField(max_length=100)),
                ("object_id", models.CharField(default="", help_text="what it is about", max_length=255)),
                (
                    "account",
                    models.CharField(
                        default="", help_text="the connected account that it is of, if any", max_length=255
                    ),
                ),
                ("livemode", models.BooleanField(default=False)),
                ("created", models.DateTimeField(help_text="by the processor's clock")),
                ("body", models.BinaryField(help_text="as received: the signature is over these bytes")),
                ("headers", models.JSONField(default=dict)),
                ("source", models.CharField(choices=[("delivery", "Delivery"), ("poll", "Poll")], max_length=10)),
                ("received_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
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
                ("outcome", models.CharField(db_default="", help_text="what came of it", max_length=100)),
                ("error", models.CharField(db_default="", help_text="why its latest try failed", max_length=500)),
                (
                    "payment_id",
                    models.BigIntegerField(help_text="the payment that it turned out to be about", null=True),
                ),
                ("done_at", models.DateTimeField(null=True)),
                ("run_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("priority", models.SmallIntegerField(db_default=0)),
                ("attempt", models.IntegerField(db_default=0, help_text="number of the latest try: the fence")),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0, help_text="attempt from which tries are counted: a replay begins anew"
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that holds it", null=True)),
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
                ("processor", key_to("payments.processor")),
                ("tenant", key_to("registry.tenant")),
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
                    models.Index(fields=["tenant", "received_at"], name="inbound_received"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "processor", "event_id"), name="inbound_event_once"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["received", "done", "dead", "closed"])),
                        name="inbound_status_known",
                    ),
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
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
                (
                    "read_until",
                    models.DateTimeField(help_text="everything created before that was seen", null=True),
                ),
                (
                    "pass_until",
                    models.DateTimeField(help_text="what the pass under way began with", null=True),
                ),
                (
                    "cursor",
                    models.CharField(
                        default="", help_text="the last event that the pass under way has read", max_length=255
                    ),
                ),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("error", models.CharField(default="", max_length=300)),
                ("processor", key_to("payments.processor")),
                ("tenant", key_to("registry.tenant")),
            ],
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(
            "ALTER TABLE payments_inboundevent DROP CONSTRAINT payments_inboundevent_pkey; "
            "ALTER TABLE payments_inboundevent ADD PRIMARY KEY (tenant_id, id)",
            "ALTER TABLE payments_inboundevent DROP CONSTRAINT payments_inboundevent_pkey; "
            "ALTER TABLE payments_inboundevent ADD PRIMARY KEY (id)",
        ),
        # A claim changes no indexed column: with room on the page it costs no index entry. Bodies lie apart from the rows:
        # else each claim and each outcome would copy them.
        migrations.RunSQL(
            "ALTER TABLE payments_inboundevent SET (fillfactor = 70, toast_tuple_target = 512, "
            "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, "
            "autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000, "
            "autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000)",
            "ALTER TABLE payments_inboundevent RESET (fillfactor, toast_tuple_target, "
            "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
            "autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold, "
            "autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)",
        ),
    ]
