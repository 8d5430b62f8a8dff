"""Models of the message queue: queues, partitions, messages, consumer groups, dead letters, traces, traffic.

Push, pop and ack write these tables with the functions of sql/functions.sql. A partition numbers its messages under its row's
lock: after a reader has passed number n, no message with a lower number appears. A group reads a partition by a `Consumer`,
which is its cursor, its lease and its entry in the index of due partitions. The primary keys of messages and consumers lead
with the tenant; queues, partitions and groups are keyed by their number alone (docs/decisions/015). Hot tables have no
foreign-key constraints.
"""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.models import Tenant

QUEUE_MODE = "__QUEUE_MODE__"  # group of readers that name none
NAME_LENGTH = 255  # characters of a queue, partition, group, transaction id


def tenant_key() -> models.ForeignKey:
    return models.ForeignKey(Tenant, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


def name_field(**more: object) -> models.CharField:
    return models.CharField(max_length=NAME_LENGTH, db_collation="C", **more)  # type: ignore[arg-type]


class Queue(AsyncModelMixin, models.Model):
    """A tenant's queue and its options."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="queues", db_index=False)
    name = name_field()
    namespace = name_field(blank=True, db_default="", help_text="default: first part of the name")
    task = name_field(blank=True, db_default="", help_text="default: second part of the name")

    lease_seconds = models.IntegerField(db_default=300, help_text="lease of a partition, in seconds")
    retry_limit = models.IntegerField(db_default=3, help_text="retries after the first delivery")
    retry_delay_ms = models.IntegerField(
        db_default=1000, help_text="milliseconds before a failed message is delivered again"
    )
    max_size = models.BigIntegerField(db_default=0, help_text="maximum number of waiting messages; 0: no limit")
    ttl_seconds = models.IntegerField(
        db_default=0, help_text="time to live: older messages are not delivered; 0: no limit"
    )
    priority = models.IntegerField(db_default=0, help_text="among queues of one namespace or task; higher first")
    delay_seconds = models.IntegerField(db_default=0, help_text="delay before a message becomes visible")
    window_seconds = models.IntegerField(
        db_default=0, help_text="time without a push before a partition becomes visible"
    )
    retention_enabled = models.BooleanField(db_default=False)
    retention_seconds = models.IntegerField(db_default=0, help_text="age at which messages are deleted; 0: never")
    completed_retention_seconds = models.IntegerField(
        db_default=0, help_text="age at which messages that all groups have completed are deleted; 0: never"
    )
    max_wait_seconds = models.IntegerField(
        db_default=0, help_text="age at which a waiting message is deleted; 0: never"
    )
    encrypted = models.BooleanField(db_default=False, help_text="encrypt payloads at rest; needs QUEUE_ENCRYPTION_KEYS")
    dead_letter_queue = models.BooleanField(db_default=True, help_text="off: messages without retries left are dropped")
    dead_letter_after_retries = models.BooleanField(
        db_default=True, help_text="off: failed messages are retried without limit"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["tenant", "name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_queue_per_name"),
        ]

    def __str__(self) -> str:
        return self.name


class Partition(models.Model):
    """A strictly ordered part of a queue. `queue` is NULL after the queue was dropped, until the messages are deleted."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    queue = models.ForeignKey(
        Queue, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="partitions"
    )
    name = name_field()
    last_seq = models.BigIntegerField(db_default=0, help_text="number of the latest message")
    removed = models.BigIntegerField(
        db_default=0, help_text="number of deleted messages: last_seq - removed are stored"
    )
    idle = models.BooleanField(
        db_default=True, help_text="some group has read everything and waits for the next message"
    )
    last_at = models.DateTimeField(db_default=Now(), help_text="time of the latest push")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "queue", "name"], name="one_partition_per_name")]

    def __str__(self) -> str:
        return self.name


class Group(models.Model):
    """A consumer group: its readers share the queue's messages, and every group gets all messages."""

    class Mode(models.TextChoices):
        ALL = "all"
        NEW = "new"
        TIMESTAMP = "timestamp"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    queue = models.ForeignKey(Queue, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="groups")
    name = name_field()
    mode = models.CharField(max_length=10, choices=Mode, db_default=Mode.ALL, help_text="where the group began to read")
    subscribed_from = models.DateTimeField(
        null=True, help_text="mode timestamp: time of the first message that the group reads"
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "consumer group"
        constraints = [models.UniqueConstraint(fields=["tenant", "queue", "name"], name="one_group_per_name")]

    def __str__(self) -> str:
        return self.name


class Consumer(models.Model):
    """Cursor and lease of a group in a partition.

    Without a lease, due_at is the time from which the partition may be delivered, which orders partitions by the age of their
    oldest message; NULL where no message waits. With a lease, due_at is the time at which the lease ends.
    """

    pk = models.CompositePrimaryKey("tenant_id", "partition_id", "group_id")
    tenant = tenant_key()
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    group = models.ForeignKey(Group, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    cursor = models.BigIntegerField(db_default=0, help_text="number of the latest completed message")
    delivered = models.BigIntegerField(db_default=0, help_text="number of the latest delivered message")
    buried = models.BigIntegerField(db_default=0, help_text="number of the latest dead letter")
    due_at = models.DateTimeField(null=True)
    lease_id = models.UUIDField(null=True)
    attempt = models.IntegerField(db_default=0, help_text="failed deliveries of the messages after the cursor")
    singly = models.BigIntegerField(
        db_default=0, help_text="up to this number messages are delivered one by one, to find the poison message"
    )
    consumed = models.BigIntegerField(db_default=0, help_text="number of completed messages")
    consumed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["tenant", "group", "due_at"], name="consumer_due", condition=models.Q(due_at__isnull=False)
            ),
            models.Index(
                fields=["lease_id", "tenant"], name="consumer_lease", condition=models.Q(lease_id__isnull=False)
            ),
        ]


class Message(models.Model):
    """A message. The payload is the sender's JSON, byte for byte, or its ciphertext."""

    pk = models.CompositePrimaryKey("tenant_id", "partition_id", "seq")
    tenant = tenant_key()
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    seq = models.BigIntegerField()
    id = models.UUIDField(help_text="UUID of version 7, given by the server")
    transaction_id = name_field()
    payload = models.BinaryField()
    key_id = models.CharField(max_length=32, null=True, help_text="id of the key that encrypted the payload")
    trace_id = models.UUIDField(null=True)
    producer = models.CharField(max_length=100, null=True, help_text="API key that pushed the message")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["transaction_id", "partition", "tenant"], name="one_message_per_transaction"
            )
        ]


class DeadMessage(models.Model):
    """A dead letter: a full copy of a message that a group gave up on, independent of the original."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    queue = models.ForeignKey(Queue, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    group = models.ForeignKey(Group, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    group_name = name_field()
    partition_name = name_field()
    seq = models.BigIntegerField()
    message_id = models.UUIDField()
    transaction_id = name_field()
    payload = models.BinaryField()
    key_id = models.CharField(max_length=32, null=True)
    trace_id = models.UUIDField(null=True)
    producer = models.CharField(max_length=100, null=True)
    error = models.TextField()
    attempts = models.IntegerField()
    created_at = models.DateTimeField(help_text="time of the push")
    failed_at = models.DateTimeField(db_default=Now())
    # An ended row stays until the group's cursor has passed it: it keeps the message from being delivered again.
    ended_at = models.DateTimeField(null=True, help_text="replayed or purged")

    class Meta:
        indexes = [
            models.Index(fields=["queue", "-failed_at", "tenant"], name="dead_message_queue"),
            models.Index(fields=["ended_at"], name="dead_message_ended", condition=models.Q(ended_at__isnull=False)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["partition", "group", "seq", "tenant"], name="one_dead_message_per_group")
        ]

    def __str__(self) -> str:
        return f"dead message {self.transaction_id}"


class Trace(models.Model):
    """A trace: a note that a reader wrote about a message while processing it."""

    id = models.UUIDField(primary_key=True)
    tenant = tenant_key()
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    transaction_id = name_field()
    group_name = name_field(db_default=QUEUE_MODE)
    event_type = models.CharField(max_length=100, db_default="info")
    names = models.JSONField(default=list, help_text="list of texts")
    data = models.BinaryField(help_text="JSON")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "partition", "transaction_id", "created_at"], name="trace_message"),
        ]


class Traffic(models.Model):
    """Traffic of a queue in one minute, summed over all web processes."""

    pk = models.CompositePrimaryKey("tenant_id", "queue_id", "minute")
    tenant = tenant_key()
    queue = models.ForeignKey(Queue, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    minute = models.DateTimeField()
    push_requests = models.BigIntegerField(db_default=0)
    pushed = models.BigIntegerField(db_default=0)
    pop_requests = models.BigIntegerField(db_default=0)
    popped = models.BigIntegerField(db_default=0)
    empty_pops = models.BigIntegerField(db_default=0)
    ack_requests = models.BigIntegerField(db_default=0)
    completed = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    buried = models.BigIntegerField(db_default=0)
    lag_ms = models.BigIntegerField(db_default=0, help_text="sum over popped messages of the time from push to pop")
    max_lag_ms = models.BigIntegerField(db_default=0)


class Maintenance(models.Model):
    """Maintenance mode of a tenant: pushes are buffered in the spill (`push`), and pops get no messages (`pop`)."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="+")
    push = models.BooleanField(db_default=False)
    pop = models.BooleanField(db_default=False)
    changed_at = models.DateTimeField(db_default=Now())
