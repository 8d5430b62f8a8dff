"""The message queue: its tables, and the functions that push, claim and complete messages; workers; outbound webhooks."""

from pathlib import Path

from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.data.creation import in_one_step

TABLES = Path(__file__).parent / "sql" / "tables.sql"
FUNCTIONS = Path(__file__).parents[1] / "broker" / "sql" / "functions.sql"


def key_to(model: str) -> models.ForeignKey:
    """A key without constraint and index: the statements take ids from rows that they lock, and every index is named."""
    return models.ForeignKey(model, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


class Migration(migrations.Migration):
    initial = True

    dependencies = [("registry", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=models.CASCADE,
                        related_name="queues",
                        to="registry.tenant",
                    ),
                ),
                ("name", models.CharField(db_collation="C", max_length=255)),
                (
                    "namespace",
                    models.CharField(
                        blank=True,
                        db_collation="C",
                        db_default="",
                        help_text="default: first part of the name",
                        max_length=255,
                    ),
                ),
                (
                    "task",
                    models.CharField(
                        blank=True,
                        db_collation="C",
                        db_default="",
                        help_text="default: second part of the name",
                        max_length=255,
                    ),
                ),
                ("lease_seconds", models.IntegerField(db_default=300, help_text="lease of a partition, in seconds")),
                ("retry_limit", models.IntegerField(db_default=3, help_text="retries after the first delivery")),
                (
                    "retry_delay_ms",
                    models.IntegerField(
                        db_default=1000, help_text="milliseconds before a failed message is delivered again"
                    ),
                ),
                (
                    "max_size",
                    models.BigIntegerField(db_default=0, help_text="maximum number of waiting messages; 0: no limit"),
                ),
                (
                    "ttl_seconds",
                    models.IntegerField(
                        db_default=0, help_text="time to live: older messages are not delivered; 0: no limit"
                    ),
                ),
                (
                    "priority",
                    models.IntegerField(db_default=0, help_text="among queues of one namespace or task; higher first"),
                ),
                (
                    "delay_seconds",
                    models.IntegerField(db_default=0, help_text="delay before a message becomes visible"),
                ),
                (
                    "window_seconds",
                    models.IntegerField(
                        db_default=0, help_text="time without a push before a partition becomes visible"
                    ),
                ),
                ("retention_enabled", models.BooleanField(db_default=False)),
                (
                    "retention_seconds",
                    models.IntegerField(db_default=0, help_text="age at which messages are deleted; 0: never"),
                ),
                (
                    "completed_retention_seconds",
                    models.IntegerField(
                        db_default=0,
                        help_text="age at which messages that all groups have completed are deleted; 0: never",
                    ),
                ),
                (
                    "max_wait_seconds",
                    models.IntegerField(db_default=0, help_text="age at which a waiting message is deleted; 0: never"),
                ),
                (
                    "encrypted",
                    models.BooleanField(
                        db_default=False, help_text="encrypt payloads at rest; needs QUEUE_ENCRYPTION_KEYS"
                    ),
                ),
                (
                    "dead_letter_queue",
                    models.BooleanField(db_default=True, help_text="off: messages without retries left are dropped"),
                ),
                (
                    "dead_letter_after_retries",
                    models.BooleanField(db_default=True, help_text="off: failed messages are retried without limit"),
                ),
                (
                    "created_at",
                    models.DateTimeField(db_default=Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["tenant", "name"],
                "constraints": [models.UniqueConstraint(fields=("tenant", "name"), name="one_queue_per_name")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="Partition",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=models.DO_NOTHING,
                        related_name="partitions",
                        to="queueing.queue",
                    ),
                ),
                ("name", models.CharField(db_collation="C", max_length=255)),
                ("last_seq", models.BigIntegerField(db_default=0, help_text="number of the latest message")),
                (
                    "removed",
                    models.BigIntegerField(
                        db_default=0, help_text="number of deleted messages: last_seq - removed are stored"
                    ),
                ),
                (
                    "idle",
                    models.BooleanField(
                        db_default=True, help_text="some group has read everything and waits for the next message"
                    ),
                ),
                (
                    "last_at",
                    models.DateTimeField(db_default=Now(), help_text="time of the latest push"),
                ),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "queue", "name"), name="one_partition_per_name")
                ],
            },
        ),
        migrations.CreateModel(
            name="Group",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                (
                    "queue",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.DO_NOTHING,
                        related_name="groups",
                        to="queueing.queue",
                    ),
                ),
                ("name", models.CharField(db_collation="C", max_length=255)),
                (
                    "mode",
                    models.CharField(
                        choices=[("all", "All"), ("new", "New"), ("timestamp", "Timestamp")],
                        db_default="all",
                        help_text="where the group began to read",
                        max_length=10,
                    ),
                ),
                (
                    "subscribed_from",
                    models.DateTimeField(
                        help_text="mode timestamp: time of the first message that the group reads", null=True
                    ),
                ),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("tenant", "queue", "name"), name="one_group_per_name")],
            },
        ),
        migrations.CreateModel(
            name="Consumer",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "partition_id",
                        "group_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("partition", key_to("queueing.partition")),
                ("group", key_to("queueing.group")),
                ("cursor", models.BigIntegerField(db_default=0, help_text="number of the latest completed message")),
                (
                    "delivered",
                    models.BigIntegerField(db_default=0, help_text="number of the latest delivered message"),
                ),
                (
                    "buried",
                    models.BigIntegerField(db_default=0, help_text="number of the latest dead letter"),
                ),
                ("due_at", models.DateTimeField(null=True)),
                ("lease_id", models.UUIDField(null=True)),
                (
                    "attempt",
                    models.IntegerField(db_default=0, help_text="failed deliveries of the messages after the cursor"),
                ),
                (
                    "singly",
                    models.BigIntegerField(
                        db_default=0,
                        help_text="up to this number messages are delivered one by one, to find the poison message",
                    ),
                ),
                ("consumed", models.BigIntegerField(db_default=0, help_text="number of completed messages")),
                ("consumed_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)),
                        fields=["tenant", "group", "due_at"],
                        name="consumer_due",
                    ),
                    models.Index(
                        condition=models.Q(("lease_id__isnull", False)),
                        fields=["lease_id", "tenant"],
                        name="consumer_lease",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "partition_id",
                        "seq",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("partition", key_to("queueing.partition")),
                ("seq", models.BigIntegerField()),
                ("id", models.UUIDField(help_text="UUID of version 7, given by the server")),
                ("transaction_id", models.CharField(db_collation="C", max_length=255)),
                ("payload", models.BinaryField()),
                (
                    "key_id",
                    models.CharField(help_text="id of the key that encrypted the payload", max_length=32, null=True),
                ),
                ("trace_id", models.UUIDField(null=True)),
                ("producer", models.CharField(help_text="API key that pushed the message", max_length=100, null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("transaction_id", "partition", "tenant"), name="one_message_per_transaction"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="DeadMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("queue", key_to("queueing.queue")),
                ("partition", key_to("queueing.partition")),
                ("group", key_to("queueing.group")),
                ("group_name", models.CharField(db_collation="C", max_length=255)),
                ("partition_name", models.CharField(db_collation="C", max_length=255)),
                ("seq", models.BigIntegerField()),
                ("message_id", models.UUIDField()),
                ("transaction_id", models.CharField(db_collation="C", max_length=255)),
                ("payload", models.BinaryField()),
                ("key_id", models.CharField(max_length=32, null=True)),
                ("trace_id", models.UUIDField(null=True)),
                ("producer", models.CharField(max_length=100, null=True)),
                ("error", models.TextField()),
                ("attempts", models.IntegerField()),
                ("created_at", models.DateTimeField(help_text="time of the push")),
                ("failed_at", models.DateTimeField(db_default=Now())),
                ("ended_at", models.DateTimeField(help_text="replayed or purged", null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["queue", "-failed_at", "tenant"], name="dead_message_queue"),
                    models.Index(
                        condition=models.Q(("ended_at__isnull", False)), fields=["ended_at"], name="dead_message_ended"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("partition", "group", "seq", "tenant"), name="one_dead_message_per_group"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Trace",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("partition", key_to("queueing.partition")),
                ("transaction_id", models.CharField(db_collation="C", max_length=255)),
                ("group_name", models.CharField(db_collation="C", db_default="__QUEUE_MODE__", max_length=255)),
                ("event_type", models.CharField(db_default="info", max_length=100)),
                ("names", models.JSONField(default=list, help_text="list of texts")),
                ("data", models.BinaryField(help_text="JSON")),
                ("created_at", models.DateTimeField(db_default=Now())),
            ],
            options={
                "indexes": [
                    models.Index(fields=["tenant", "partition", "transaction_id", "created_at"], name="trace_message")
                ],
            },
        ),
        migrations.CreateModel(
            name="Traffic",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "queue_id", "minute", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("queue", key_to("queueing.queue")),
                ("minute", models.DateTimeField()),
                ("push_requests", models.BigIntegerField(db_default=0)),
                ("pushed", models.BigIntegerField(db_default=0)),
                ("pop_requests", models.BigIntegerField(db_default=0)),
                ("popped", models.BigIntegerField(db_default=0)),
                ("empty_pops", models.BigIntegerField(db_default=0)),
                ("ack_requests", models.BigIntegerField(db_default=0)),
                ("completed", models.BigIntegerField(db_default=0)),
                ("failed", models.BigIntegerField(db_default=0)),
                ("buried", models.BigIntegerField(db_default=0)),
                (
                    "lag_ms",
                    models.BigIntegerField(
                        db_default=0, help_text="sum over popped messages of the time from push to pop"
                    ),
                ),
                ("max_lag_ms", models.BigIntegerField(db_default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Maintenance",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="registry.tenant",
                    ),
                ),
                ("push", models.BooleanField(db_default=False)),
                ("pop", models.BooleanField(db_default=False)),
                ("changed_at", models.DateTimeField(db_default=Now())),
            ],
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("queue", models.CharField(max_length=50)),
                ("hostname", models.CharField(max_length=255)),
                ("pid", models.IntegerField()),
                ("started_at", models.DateTimeField(db_default=Now())),
                ("heartbeat_at", models.DateTimeField(db_default=Now())),
                ("in_flight", models.IntegerField(default=0)),
                ("capacity", models.IntegerField(default=0)),
                ("finished", models.BigIntegerField(default=0, help_text="rows brought to an outcome since the start")),
                (
                    "failed",
                    models.BigIntegerField(default=0, help_text="of these, rows that will be tried again or gave up"),
                ),
            ],
            options={
                "ordering": ["queue", "id"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("uuid", models.UUIDField(help_text="its id in the API")),
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
                        help_text="the next event of an object waits until the one before is delivered or given up",
                    ),
                ),
                ("enabled", models.BooleanField(db_default=True)),
                ("disabled_reason", models.CharField(blank=True, db_default="", max_length=300)),
                ("failing_since", models.DateTimeField(help_text="no delivery succeeded since", null=True)),
                (
                    "rest_until",
                    models.DateTimeField(help_text="no deliveries before this time: Retry-After", null=True),
                ),
                (
                    "positions",
                    models.JSONField(default=dict, help_text="by source: number of the latest event that it has read"),
                ),
                ("secrets", models.BinaryField(help_text="signing secrets, encrypted: registry.tenants.encryption")),
                ("created_at", models.DateTimeField(db_default=Now())),
                ("changed_at", models.DateTimeField(db_default=Now())),
                ("deleted_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["id"],
                "constraints": [models.UniqueConstraint(fields=("uuid", "tenant"), name="webhook_endpoint_once")],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("tenant", key_to("registry.tenant")),
                ("endpoint_id", models.BigIntegerField()),
                (
                    "message_id",
                    models.CharField(help_text="webhook-id: the same at every attempt and replay", max_length=40),
                ),
                (
                    "position",
                    models.BigIntegerField(
                        help_text="number of its event in the source's stream; tests and notes have none", null=True
                    ),
                ),
                (
                    "subject",
                    models.UUIDField(
                        help_text="id of the object that the event is about, such as a payment's correlation id",
                        null=True,
                    ),
                ),
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
                ("run_at", models.DateTimeField(db_default=Now())),
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
                ("answer", models.SmallIntegerField(help_text="HTTP status of the latest answer", null=True)),
                ("error", models.CharField(db_default="", help_text="why the latest attempt failed", max_length=300)),
                ("created_at", models.DateTimeField(db_default=Now())),
                ("changed_at", models.DateTimeField(db_default=Now())),
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
                        condition=models.Q(("ordered", True)),
                        fields=["subject", "endpoint_id", "id", "tenant"],
                        name="webhook_delivery_order",
                    ),
                    models.Index(fields=["endpoint_id", "id", "tenant"], name="webhook_delivery_log"),
                    models.Index(
                        condition=models.Q(("closed", "dead")),
                        fields=["endpoint_id", "id", "tenant"],
                        name="webhook_delivery_dead",
                    ),
                ],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="WebhookAttempt",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "delivery_id",
                        "number",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("tenant", key_to("registry.tenant")),
                ("delivery_id", models.BigIntegerField()),
                ("number", models.IntegerField()),
                (
                    "at",
                    models.DateTimeField(
                        db_default=Now(),
                        help_text="when its outcome was written; it began `latency_ms` before",
                    ),
                ),
                ("signed_at", models.DateTimeField(help_text="webhook-timestamp")),
                ("signature", models.CharField(db_default="", help_text="webhook-signature", max_length=500)),
                ("answer", models.SmallIntegerField(help_text="HTTP status; empty: there was no answer", null=True)),
                ("headers", models.JSONField(help_text="of the answer, shortened", null=True)),
                ("body", models.TextField(db_default="", help_text="of the answer, shortened")),
                ("latency_ms", models.IntegerField()),
                (
                    "error",
                    models.CharField(db_default="", help_text="why it failed; empty: delivered", max_length=300),
                ),
            ],
            options={
                "ordering": ["-delivery_id", "-number"],
            },
            bases=(AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(TABLES.read_text(), migrations.RunSQL.noop),
        migrations.RunSQL(
            FUNCTIONS.read_text(),
            "DROP FUNCTION queueing_push, queueing_rest, queueing_complete, queueing_claim",
        ),
    ]
    operations = in_one_step(operations)
