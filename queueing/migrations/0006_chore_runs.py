"""The latest run of each chore: a small table, one row per chore."""

import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models

from registry.data.creation import in_one_step


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0005_words_of_the_admin"),
    ]

    operations = in_one_step(
        [
            migrations.CreateModel(
                name="ChoreRun",
                fields=[
                    ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                    (
                        "created_at",
                        models.DateTimeField(
                            db_default=django.db.models.functions.datetime.Now(), help_text="its first run"
                        ),
                    ),
                    ("started_at", models.DateTimeField()),
                    ("finished_at", models.DateTimeField(null=True)),
                    ("succeeded_at", models.DateTimeField(null=True)),
                    ("failing_since", models.DateTimeField(help_text="the first of the failures in a row", null=True)),
                    ("error", models.CharField(db_default="", help_text="why the latest run failed", max_length=300)),
                    ("found", models.CharField(db_default="", help_text="what a check found wrong", max_length=300)),
                ],
                options={
                    "ordering": ["name"],
                },
                bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
            ),
        ]
    )
