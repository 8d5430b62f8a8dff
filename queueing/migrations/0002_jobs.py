"""Background jobs: their tables."""

from pathlib import Path

import django.db.models.deletion
import django.db.models.functions.datetime
import django_async_backend.db.models.base
from django.db import migrations, models

from registry.data.creation import in_one_step

TABLES = Path(__file__).parent / "sql" / "jobs.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0001_initial"),
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="webhookdelivery",
            name="callback_url",
            field=models.CharField(
                blank=True, db_default="", help_text="of a job's callback: where it is sent to", max_length=2000
            ),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="callback",
            field=models.BooleanField(db_default=False, editable=False),
        ),
        migrations.AddField(
            model_name="worker",
            name="pool",
            field=models.CharField(
                blank=True, db_default="", help_text="empty: it does what no pool takes", max_length=31
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="stop_requested",
            field=models.BooleanField(db_default=False, help_text="it claims nothing more, ends, and is replaced"),
        ),
        migrations.AddField(
            model_name="worker",
            name="pool_size",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="MIN-MAX: how many workers its pool has; empty: unknown",
                max_length=7,
            ),
        ),
        migrations.AddField(
            model_name="worker",
            name="takes",
            field=models.JSONField(
                db_default=[], default=list, help_text="what its pool takes: kinds of work, and parts of them"
            ),
        ),
        migrations.CreateModel(
            name="JobLimit",
            fields=[
                ("kind", models.CharField(max_length=100, primary_key=True, serialize=False)),
                (
                    "next_start_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="of a kind with a rate: when the next job may start",
                    ),
                ),
            ],
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobSecret",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                ("sealed", models.BinaryField(help_text="signing secrets, encrypted: registry.tenants.encryption")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobStream",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                ("position", models.BigIntegerField(default=0)),
            ],
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobFileChunk",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "job_id",
                        "attempt",
                        "number",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("job_id", models.BigIntegerField()),
                ("attempt", models.IntegerField()),
                ("number", models.IntegerField()),
                ("data", models.BinaryField()),
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
        migrations.CreateModel(
            name="Job",
            fields=[
                ("run_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("priority", models.SmallIntegerField(db_default=0, default=0, help_text="0 to 9, 9 first")),
                (
                    "attempt",
                    models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt: the fence, which only grows"
                    ),
                ),
                (
                    "tries_from",
                    models.IntegerField(
                        db_default=0,
                        default=0,
                        help_text="attempt number from which attempts are counted; a replay resets it",
                    ),
                ),
                ("lease_id", models.BigIntegerField(help_text="the worker that has claimed it", null=True)),
                ("leased_until", models.DateTimeField(null=True)),
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uuid", models.UUIDField(help_text="its id in the API")),
                ("kind", models.CharField(max_length=100)),
                ("input", models.TextField(help_text="JSON, as its kind reads it")),
                ("sealed", models.BinaryField(help_text="secret fields of the input, encrypted", null=True)),
                ("fingerprint", models.BinaryField(help_text="hash of the request: the same under one id is a replay")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("canceled", "Canceled"),
                        ],
                        db_default="queued",
                        max_length=10,
                    ),
                ),
                ("sequence", models.IntegerField(db_default=1, help_text="number of its latest event")),
                ("max_attempts", models.IntegerField()),
                ("timeout", models.FloatField(help_text="seconds of one attempt")),
                ("result_ttl", models.IntegerField(help_text="seconds that the result is kept")),
                ("unique_key", models.CharField(blank=True, max_length=200, null=True)),
                ("callback_url", models.CharField(blank=True, db_default="", max_length=2000)),
                ("schedule_id", models.BigIntegerField(help_text="the schedule that submitted it", null=True)),
                ("due_at", models.DateTimeField(help_text="the schedule's due time", null=True)),
                ("progress_done", models.BigIntegerField(null=True)),
                ("progress_total", models.BigIntegerField(null=True)),
                ("progress_message", models.CharField(blank=True, db_default="", max_length=200)),
                (
                    "handed_back",
                    models.IntegerField(db_default=0, help_text="attempts that do not count: their worker stopped"),
                ),
                ("cancel_requested", models.BooleanField(db_default=False)),
                ("error_code", models.CharField(blank=True, db_default="", max_length=50)),
                (
                    "error",
                    models.CharField(
                        blank=True, db_default="", help_text="why the latest attempt failed", max_length=1000
                    ),
                ),
                ("traceback", models.TextField(blank=True, db_default="", help_text="of that error, for operators")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("started_at", models.DateTimeField(help_text="when the latest attempt was claimed", null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "closed",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(status="succeeded", then=models.Value("succeeded")),
                            models.When(status="failed", then=models.Value("failed")),
                            models.When(status="canceled", then=models.Value("canceled")),
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
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        models.F("tenant"),
                        models.F("kind"),
                        models.OrderBy(models.F("priority"), descending=True),
                        models.F("run_at"),
                        models.F("id"),
                        condition=models.Q(("closed", None)),
                        name="job_open",
                    ),
                    models.Index(fields=["tenant", "-created_at", "-id"], name="job_list"),
                    models.Index(condition=models.Q(("closed", "failed")), fields=["tenant", "-id"], name="job_dead"),
                    models.Index(
                        condition=models.Q(("closed__isnull", False)),
                        fields=["closed", "finished_at", "id"],
                        name="job_finished",
                    ),
                    models.Index(
                        condition=models.Q(("closed", None), ("schedule_id__isnull", False)),
                        fields=["schedule_id", "tenant"],
                        name="job_open_of_schedule",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("uuid", "tenant"), name="job_once"),
                    models.UniqueConstraint(
                        condition=models.Q(("closed", None)),
                        fields=("unique_key", "tenant", "kind"),
                        name="job_unique_key",
                    ),
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobEvent",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "position", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("position", models.BigIntegerField()),
                ("job_id", models.BigIntegerField()),
                ("sequence", models.IntegerField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("canceled", "Canceled"),
                        ],
                        max_length=10,
                    ),
                ),
                ("attempt", models.IntegerField(db_default=0)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("code", models.CharField(db_default="", max_length=50)),
                ("detail", models.CharField(db_default="", max_length=1000)),
                (
                    "progress",
                    models.JSONField(
                        help_text="done, total, message; null: the event is no report of progress", null=True
                    ),
                ),
                (
                    "callback_due",
                    models.BooleanField(
                        db_default=False, help_text="the delivery to the job's callback URL is still to be made"
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
                "indexes": [
                    models.Index(
                        condition=models.Q(("callback_due", True)),
                        fields=["tenant", "position"],
                        name="job_event_callback",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("job_id", "tenant", "sequence"), name="job_event_once")
                ],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobFile",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "job_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("job_id", models.BigIntegerField()),
                ("attempt", models.IntegerField(help_text="the attempt that wrote it")),
                ("name", models.CharField(max_length=200)),
                ("content_type", models.CharField(max_length=100)),
                ("size", models.BigIntegerField(db_default=0, help_text="bytes")),
                ("expires_at", models.DateTimeField()),
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
                "indexes": [models.Index(fields=["expires_at"], name="job_file_expiry")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobResult",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "job_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("job_id", models.BigIntegerField()),
                ("body", models.TextField(help_text="JSON")),
                ("expires_at", models.DateTimeField()),
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
                "indexes": [models.Index(fields=["expires_at"], name="job_result_expiry")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobSchedule",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(db_collation="C", max_length=100)),
                ("cron", models.CharField(max_length=100)),
                ("timezone", models.CharField(help_text="IANA name", max_length=64)),
                ("overlap", models.CharField(choices=[("skip", "Skip"), ("queue", "Queue")], max_length=5)),
                (
                    "catch_up",
                    models.CharField(choices=[("one", "One"), ("all", "All"), ("none", "None")], max_length=4),
                ),
                ("paused", models.BooleanField(db_default=False)),
                (
                    "next_at",
                    models.DateTimeField(
                        help_text="the next due time; null: it is paused, or there is none", null=True
                    ),
                ),
                ("last_job", models.UUIDField(help_text="id of the latest job", null=True)),
                ("kind", models.CharField(max_length=100)),
                ("input", models.TextField(help_text="JSON, as its kind reads it")),
                ("sealed", models.BinaryField(help_text="secret fields of the input, encrypted", null=True)),
                ("priority", models.SmallIntegerField()),
                ("max_attempts", models.IntegerField()),
                ("timeout", models.FloatField(help_text="seconds of one attempt")),
                ("result_ttl", models.IntegerField(help_text="seconds that a result is kept")),
                ("callback_url", models.CharField(blank=True, db_default="", max_length=2000)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("changed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
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
                "ordering": ["name"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("next_at__isnull", False)), fields=["next_at"], name="job_schedule_due"
                    )
                ],
                "constraints": [models.UniqueConstraint(fields=("tenant", "name"), name="job_schedule_once")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="JobSlot",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "job_id", "attempt", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("job_id", models.BigIntegerField()),
                ("attempt", models.IntegerField()),
                ("kind", models.CharField(max_length=100)),
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
                "indexes": [models.Index(fields=["kind", "tenant"], name="job_slot_kind")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(TABLES.read_text(), migrations.RunSQL.noop),
    ]
    operations = in_one_step(operations)
