"""Nightly checks of the books, and what they found."""

from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.data.creation import in_one_step


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0003_developers"),
    ]

    operations = in_one_step(
        [
            migrations.CreateModel(
                name="BookCheck",
                fields=[
                    (
                        "id",
                        models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                    ),
                    ("started_at", models.DateTimeField(db_default=Now())),
                    ("finished_at", models.DateTimeField(null=True)),
                    (
                        "leased_until",
                        models.DateTimeField(help_text="until then a process is at work on it", null=True),
                    ),
                    (
                        "place",
                        models.JSONField(
                            help_text="where the next portion begins: tenant, part, after, done", null=True
                        ),
                    ),
                    (
                        "rows",
                        models.JSONField(default=dict, help_text="number of rows that were compared, by part"),
                    ),
                    ("differences", models.IntegerField(default=0)),
                    ("named", models.JSONField(default=list, help_text="the first of the differences")),
                    ("seconds", models.FloatField(default=0, help_text="time that it took")),
                ],
                options={
                    "verbose_name": "check of the books",
                    "verbose_name_plural": "checks of the books",
                    "ordering": ["-id"],
                },
                bases=(AsyncModelMixin, models.Model),
            ),
        ]
    )
