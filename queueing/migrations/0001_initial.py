"""The message queue: its tables, and the functions that push, claim and complete messages; the workers."""

from pathlib import Path

from django.db import migrations, models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

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
                        help_text="first part of the name unless said otherwise",
                        max_length=255,
                    ),
                ),
                (
                    "task",
                    models.CharField(
                        blank=True,
                        db_collation="C",
                        db_default="",
                        help_text="second part of the name unless said otherwise",
                        max_length=255,
                    ),
                ),
                ("lease_seconds", models.IntegerField(db_default=300, help_text="that a reader may keep a partition")),
                ("retry_limit", models.IntegerField(db_default=3, help_text="tries after the first")),
                ("retry_delay_ms", models.IntegerField(db_default=1000, help_text="milliseconds before the next try")),
                ("max_size", models.BigIntegerField(db_default=0, help_text="messages waiting at most; 0: no limit")),
                (
                    "ttl_seconds",
                    models.IntegerField(db_default=0, help_text="after which a message is not delivered; 0: never"),
                ),
                (
                    "priority",
                    models.IntegerField(
                        db_default=0, help_text="among the queues of one namespace or task; higher first"
                    ),
                ),
                ("delay_seconds", models.IntegerField(db_default=0, help_text="before a message becomes visible")),
                (
                    "window_seconds",
                    models.IntegerField(db_default=0, help_text="of silence before a partition becomes visible"),
                ),
                ("retention_enabled", models.BooleanField(db_default=False)),
                (
                    "retention_seconds",
                    models.IntegerField(db_default=0, help_text="after which messages are deleted; 0: never"),
                ),
                (
                    "completed_retention_seconds",
                    models.IntegerField(
                        db_default=0,
                        help_text="after which messages that all groups have consumed are deleted; 0: never",
                    ),
                ),
                (
                    "max_wait_seconds",
                    models.IntegerField(db_default=0, help_text="after which a waiting message is evicted; 0: never"),
                ),
                (
                    "encrypted",
                    models.BooleanField(db_default=False, help_text="payloads at rest; wants QUEUE_ENCRYPTION_KEYS"),
                ),
                (
                    "dead_letter_queue",
                    models.BooleanField(db_default=True, help_text="off: what is out of tries is dropped"),
                ),
                (
                    "dead_letter_after_retries",
                    models.BooleanField(db_default=True, help_text="off: tried again without end"),
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
                ("last_seq", models.BigIntegerField(db_default=0, help_text="number of its latest message")),
                (
                    "removed",
                    models.BigIntegerField(
                        db_default=0, help_text="messages deleted since: last_seq - removed are there"
                    ),
                ),
                (
                    "idle",
                    models.BooleanField(
                        db_default=True, help_text="some group has read all and waits for the next message"
                    ),
                ),
                (
                    "last_at",
                    models.DateTimeField(db_default=Now(), help_text="when its latest message came"),
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
                        help_text="where it began to read",
                        max_length=10,
                    ),
                ),
                (
                    "subscribed_from",
                    models.DateTimeField(help_text="mode timestamp: of the first message it wants", null=True),
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
                ("cursor", models.BigIntegerField(db_default=0, help_text="number of the latest message that is done")),
                (
                    "delivered",
                    models.BigIntegerField(db_default=0, help_text="number of the latest message handed out"),
                ),
                (
                    "buried",
                    models.BigIntegerField(
                        db_default=0, help_text="number of the latest message among its dead letters"
                    ),
                ),
                ("due_at", models.DateTimeField(null=True)),
                ("lease_id", models.UUIDField(null=True)),
                (
                    "attempt",
                    models.IntegerField(db_default=0, help_text="failed deliveries of what lies after the cursor"),
                ),
                (
                    "singly",
                    models.BigIntegerField(
                        db_default=0,
                        help_text="up to this number messages are handed out one by one: one of them kills its readers",
                    ),
                ),
                ("consumed", models.BigIntegerField(db_default=0, help_text="messages done")),
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
                ("id", models.UUIDField(help_text="version 7, given by the server")),
                ("transaction_id", models.CharField(db_collation="C", max_length=255)),
                ("payload", models.BinaryField()),
                (
                    "key_id",
                    models.CharField(help_text="of the key that encrypted the payload", max_length=32, null=True),
                ),
                ("trace_id", models.UUIDField(null=True)),
                ("producer", models.CharField(help_text="the key that pushed it", max_length=100, null=True)),
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
                ("created_at", models.DateTimeField(help_text="when the message came")),
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
                ("lag_ms", models.BigIntegerField(db_default=0, help_text="sum over what was popped, of push to pop")),
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
        migrations.RunSQL(TABLES.read_text(), migrations.RunSQL.noop),
        migrations.RunSQL(
            FUNCTIONS.read_text(),
            "DROP FUNCTION queueing_push, queueing_rest, queueing_complete, queueing_claim",
        ),
    ]
