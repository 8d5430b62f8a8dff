"""Statistics of attempts by minute and by hour, for the console's home."""

import django.db.models.deletion
import django_async_backend.db.models.base
from django.db import migrations, models

from registry.data.creation import in_one_step

STATUSES = [
    ("queued", "Queued"),
    ("processing", "Processing"),
    ("uncertain", "Uncertain"),
    ("requires_action", "requires action"),
    ("succeeded", "Succeeded"),
    ("failed", "Failed"),
    ("canceled", "Canceled"),
]
# A few rows, changed with every commit of outcomes; updates change no indexed column.
STORAGE = "ALTER TABLE payments_attemptrollup SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05)"


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0005_search_refunded_reference"),
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="AttemptRollup",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "width",
                        "starts_at",
                        "processor_id",
                        "status",
                        "bucket",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("width", models.IntegerField(help_text="seconds: 60 or 3600")),
                ("starts_at", models.DateTimeField()),
                ("processor_id", models.BigIntegerField()),
                ("status", models.CharField(choices=STATUSES, max_length=20)),
                (
                    "bucket",
                    models.SmallIntegerField(
                        help_text="of the time since acceptance: it begins at 2^(n/4) milliseconds"
                    ),
                ),
                ("attempts", models.BigIntegerField(default=0)),
                ("answers", models.BigIntegerField(default=0, help_text="attempts whose response time is known")),
                ("latency_ms", models.BigIntegerField(default=0, help_text="sum of these response times")),
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
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
    ]
    operations = in_one_step(operations)
