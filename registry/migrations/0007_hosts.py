"""Hosts: each `up` that runs, with its heartbeat."""

import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models

from registry.data.creation import in_one_step


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0006_trace_rate"),
    ]

    operations = in_one_step(
        [
            migrations.CreateModel(
                name="Host",
                fields=[
                    (
                        "name",
                        models.CharField(help_text="REGISTRY_HOST", max_length=63, primary_key=True, serialize=False),
                    ),
                    (
                        "place",
                        models.CharField(
                            editable=False,
                            help_text="digest of machine and data folder: two hosts may not have one name",
                            max_length=32,
                        ),
                    ),
                    ("role", models.CharField(help_text="all, web, worker or housekeeping", max_length=20)),
                    ("version", models.CharField(help_text="of its code", max_length=63)),
                    ("address", models.CharField(help_text="where it answers /health and /metrics", max_length=255)),
                    ("keys", models.JSONField(default=list, editable=False, help_text="digests of its secret keys")),
                    ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                    ("heartbeat_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                    (
                        "clock_offset",
                        models.FloatField(
                            db_default=0, help_text="seconds by which its clock is ahead of PostgreSQL's"
                        ),
                    ),
                    ("processes", models.JSONField(default=list, help_text="name, process id, starts so far")),
                ],
                options={
                    "ordering": ["name"],
                },
                bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
            ),
        ]
    )
