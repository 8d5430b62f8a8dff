"""Leases, alerts, their silences and messages, and who evaluates them."""

from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.data.creation import in_one_step


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0004_book_checks"),
    ]

    operations = in_one_step(
        [
            migrations.CreateModel(
                name="AlertSilence",
                fields=[
                    (
                        "id",
                        models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                    ),
                    ("rule", models.CharField(max_length=60)),
                    (
                        "host",
                        models.CharField(blank=True, help_text="empty: the service and every host", max_length=255),
                    ),
                    ("starts_at", models.DateTimeField(db_default=Now(), editable=False)),
                    ("ends_at", models.DateTimeField(help_text="UTC; what still fires then is sent then")),
                    ("actor", models.CharField(editable=False, max_length=150)),
                    ("why", models.TextField(editable=False)),
                ],
                options={
                    "verbose_name": "silence of an alert",
                    "verbose_name_plural": "silences of alerts",
                    "ordering": ["-id"],
                },
                bases=(AsyncModelMixin, models.Model),
            ),
            migrations.CreateModel(
                name="AlertWatch",
                fields=[
                    (
                        "host",
                        models.CharField(
                            help_text="empty: the rules of the service",
                            max_length=255,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("evaluator", models.CharField(max_length=300)),
                    ("at", models.DateTimeField(help_text="of the last evaluation, to half a minute")),
                    (
                        "unknown",
                        models.JSONField(default=dict, help_text="rules whose metric cannot be read, and since when"),
                    ),
                ],
                bases=(AsyncModelMixin, models.Model),
            ),
            migrations.CreateModel(
                name="Lease",
                fields=[
                    ("name", models.CharField(max_length=60, primary_key=True, serialize=False)),
                    ("holder", models.CharField(help_text="host, process and a random part", max_length=300)),
                    (
                        "until",
                        models.DateTimeField(
                            help_text="the holder renews it; from then on another process may take it"
                        ),
                    ),
                ],
                bases=(AsyncModelMixin, models.Model),
            ),
            migrations.CreateModel(
                name="Alert",
                fields=[
                    ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                    ("rule", models.CharField(max_length=60)),
                    ("host", models.CharField(blank=True, help_text="empty: the service", max_length=255)),
                    (
                        "status",
                        models.CharField(
                            choices=[("pending", "Pending"), ("firing", "Firing"), ("resolved", "Resolved")],
                            max_length=10,
                        ),
                    ),
                    ("severity", models.SmallIntegerField(help_text="registry.operators.attention.Severity")),
                    ("sentence", models.CharField(help_text="of the rule, when it last held", max_length=500)),
                    ("since", models.DateTimeField(help_text="from then on the condition held")),
                    ("fired_at", models.DateTimeField(null=True)),
                    (
                        "clear_since",
                        models.DateTimeField(
                            help_text="from then on the condition of a firing alert did not hold", null=True
                        ),
                    ),
                    ("resolved_at", models.DateTimeField(null=True)),
                    ("value", models.FloatField(help_text="the last one for which the condition held", null=True)),
                    (
                        "samples",
                        models.JSONField(
                            default=list, help_text="the first samples that violate the rule: labels and value"
                        ),
                    ),
                    ("read_at", models.DateTimeField(help_text="when its metric was last read, to half a minute")),
                    ("told_at", models.DateTimeField(help_text="when a message said that it fires", null=True)),
                    (
                        "told_resolved_at",
                        models.DateTimeField(help_text="when a message said that it is resolved", null=True),
                    ),
                ],
                options={
                    "ordering": ["-since"],
                    "indexes": [
                        models.Index(
                            condition=models.Q(
                                ("resolved_at", None),
                                models.Q(("told_at__isnull", False), ("told_resolved_at", None)),
                                _connector="OR",
                            ),
                            fields=["host"],
                            name="alert_followed",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("resolved_at", None)),
                            fields=("rule", "host"),
                            name="one_open_alert_of_a_rule",
                        )
                    ],
                },
                bases=(AsyncModelMixin, models.Model),
            ),
            migrations.CreateModel(
                name="AlertMessage",
                fields=[
                    (
                        "id",
                        models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                    ),
                    (
                        "message_id",
                        models.CharField(help_text="the same in every channel and at every attempt", max_length=40),
                    ),
                    ("channel", models.CharField(choices=[("email", "Email"), ("webhook", "Webhook")], max_length=10)),
                    ("subject", models.CharField(max_length=200)),
                    ("body", models.TextField(help_text="the text of the e-mail, or the JSON that is signed")),
                    ("created_at", models.DateTimeField()),
                    (
                        "due_at",
                        models.DateTimeField(help_text="of the next attempt; empty: sent, or given up", null=True),
                    ),
                    ("attempts", models.SmallIntegerField(default=0)),
                    ("sent_at", models.DateTimeField(null=True)),
                    ("given_up_at", models.DateTimeField(null=True)),
                    ("error", models.CharField(blank=True, help_text="of the last attempt", max_length=300)),
                ],
                options={
                    "verbose_name": "message of an alert",
                    "verbose_name_plural": "messages of alerts",
                    "ordering": ["-id"],
                    "indexes": [
                        models.Index(
                            condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="alert_message_due"
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(fields=("message_id", "channel"), name="one_alert_message_per_channel")
                    ],
                },
                bases=(AsyncModelMixin, models.Model),
            ),
        ]
    )
