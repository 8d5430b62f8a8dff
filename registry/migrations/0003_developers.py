"""The log of API requests, and the time zone of a tenant."""

import django.db.models.deletion
from django.db import migrations, models
from django_async_backend.db.models.base import AsyncModelMixin

import registry.models
from registry.data.creation import in_one_step


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_words_of_the_admin")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="time_zone",
            field=models.CharField(
                db_default="UTC",
                default="UTC",
                help_text="IANA name, such as America/Sao_Paulo: of the dates that its members enter in lists",
                max_length=64,
                validators=[registry.models.known_time_zone],
            ),
        ),
        migrations.CreateModel(
            name="ApiRequest",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("id", models.BigIntegerField(help_text="microseconds since 1970, followed by ten random bits")),
                ("at", models.DateTimeField()),
                ("key", models.CharField(help_text="prefix of the API key", max_length=16)),
                ("method", models.CharField(max_length=8)),
                ("path", models.CharField(help_text="without the query", max_length=300)),
                ("status", models.SmallIntegerField()),
                (
                    "code",
                    models.CharField(
                        blank=True, help_text="last part of the problem's type; empty for a success", max_length=64
                    ),
                ),
                ("duration", models.IntegerField(help_text="microseconds until the answer was ready")),
                ("request_id", models.CharField(max_length=64)),
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
            options={"verbose_name": "API request", "ordering": ["-id"]},
            bases=(AsyncModelMixin, models.Model),
        ),
    ]
    operations = in_one_step(operations)
