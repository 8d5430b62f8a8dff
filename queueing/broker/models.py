"""Queues, their partitions, messages and readers. The hot paths write these tables with the functions of sql/broker.sql.

A partition numbers its messages under its own row's lock: who reads past number n will never find one below n later. A
group reads a partition by a cursor, `Consumer`, which is also its lease and its entry in the group's list of work. The
keys of messages and consumers lead with the tenant; queues, partitions and groups are keyed by their number alone, and
docs/decisions/015 says why. Hot rows carry no foreign-key constraints.
"""

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin

from registry.models import Tenant

QUEUE_MODE = "__QUEUE_MODE__"  # the group of those who name none
NAME_LENGTH = 255  # characters of a queue, partition, group, transaction id


def tenant_key() -> models.ForeignKey:
    return models.ForeignKey(Tenant, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")


def name_field(**more: object) -> models.CharField:
    return models.CharField(max_length=NAME_LENGTH, db_collation="C", **more)  # type: ignore[arg-type]


class Queue(AsyncModelMixin, models.Model):
    """A tenant's queue and how it treats its messages."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="queues", db_index=False)
    name = name_field()
    namespace = name_field(blank=True, db_default="", help_text="first part of the name unless said otherwise")
    task = name_field(blank=True, db_default="", help_text="second part of the name unless said otherwise")

    lease_seconds = models.IntegerField(db_default=300, help_text="that a reader may keep a partition")
    retry_limit = models.IntegerField(db_default=3, help_text="tries after the first")
    retry_delay_ms = models.IntegerField(db_default=1000, help_text="milliseconds before the next try")
    max_size = models.BigIntegerField(db_default=0, help_text="messages waiting at most; 0: no limit")
    ttl_seconds = models.IntegerField(db_default=0, help_text="after which a message is not delivered; 0: never")
    priority = models.IntegerField(db_default=0, help_text="among the queues of one namespace or task; higher first")
    delay_seconds = models.IntegerField(db_default=0, help_text="before a message becomes visible")
    window_seconds = models.IntegerField(db_default=0, help_text="of silence before a partition becomes visible")
    retention_enabled = models.BooleanField(db_default=False)
    retention_seconds = models.IntegerField(db_default=0, help_text="after which messages are deleted; 0: never")
    completed_retention_seconds = models.IntegerField(
        db_default=0, help_text="after which messages that all groups have consumed are deleted; 0: never"
    )
    max_wait_seconds = models.IntegerField(db_default=0, help_text="after which a waiting message is evicted; 0: never")
    encrypted = models.BooleanField(db_default=False, help_text="payloads at rest; wants QUEUE_ENCRYPTION_KEYS")
    dead_letter_queue = models.BooleanField(db_default=True, help_text="off: what is out of tries is dropped")
    dead_letter_after_retries = models.BooleanField(db_default=True, help_text="off: tried again without end")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["tenant", "name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_queue_per_name"),
        ]

    def __str__(self) -> str:
        return self.name


class Partition(models.Model):
    """A strand of a queue in strict order. `queue` is empty once it was dropped and only its messages are to be removed."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    queue = models.ForeignKey(
        Queue, models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="partitions"
    )
    name = name_field()
    last_seq = models.BigIntegerField(db_default=0, help_text="number of its latest message")
    removed = models.BigIntegerField(db_default=0, help_text="messages deleted since: last_seq - removed are there")
    idle = models.BooleanField(db_default=True, help_text="some group has read all and waits for the next message")
    last_at = models.DateTimeField(db_default=Now(), help_text="when its latest message came")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "queue", "name"], name="one_partition_per_name")]

    def __str__(self) -> str:
        return self.name


class Group(models.Model):
    """Readers of a queue who share its messages between them; every group gets all of them."""

    class Mode(models.TextChoices):
        ALL = "all"
        NEW = "new"
        TIMESTAMP = "timestamp"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    queue = models.ForeignKey(Queue, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="groups")
    name = name_field()
    mode = models.CharField(max_length=10, choices=Mode, db_default=Mode.ALL, help_text="where it began to read")
    subscribed_from = models.DateTimeField(null=True, help_text="mode timestamp: of the first message it wants")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "queue", "name"], name="one_group_per_name")]

    def __str__(self) -> str:
        return self.name


class Consumer(models.Model):
    """A group's place in a partition, its lease, and its entry in the group's list of work: due_at.

    Not leased: due_at is when the partition may be handed out next, by the age of its oldest message; NULL when nothing
    waits. Leased: due_at is when the lease ends, and somebody else may have it.
    """

    pk = models.CompositePrimaryKey("tenant_id", "partition_id", "group_id")
    tenant = tenant_key()
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    group = models.ForeignKey(Group, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    cursor = models.BigIntegerField(db_default=0, help_text="number of the latest message that is done")
    delivered = models.BigIntegerField(db_default=0, help_text="number of the latest message handed out")
    buried = models.BigIntegerField(db_default=0, help_text="number of the latest message among its dead letters")
    due_at = models.DateTimeField(null=True)
    lease_id = models.UUIDField(null=True)
    attempt = models.IntegerField(db_default=0, help_text="failed deliveries of what lies after the cursor")
    singly = models.BigIntegerField(
        db_default=0, help_text="up to this number messages are handed out one by one: one of them kills its readers"
    )
    consumed = models.BigIntegerField(db_default=0, help_text="messages done")
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
    """What was pushed. The payload is the sender's JSON, byte for byte, or its ciphertext."""

    pk = models.CompositePrimaryKey("tenant_id", "partition_id", "seq")
    tenant = tenant_key()
    partition = models.ForeignKey(Partition, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    seq = models.BigIntegerField()
    id = models.UUIDField(help_text="version 7, given by the server")
    transaction_id = name_field()
    payload = models.BinaryField()
    key_id = models.CharField(max_length=32, null=True, help_text="of the key that encrypted the payload")
    trace_id = models.UUIDField(null=True)
    producer = models.CharField(max_length=100, null=True, help_text="the key that pushed it")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["transaction_id", "partition", "tenant"], name="one_message_per_transaction"
            )
        ]


class DeadMessage(models.Model):
    """A message that a group gave up on, kept whole: whatever becomes of the original."""

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
    created_at = models.DateTimeField(help_text="when the message came")
    failed_at = models.DateTimeField(db_default=Now())
    # A row that ended stays for as long as the group's cursor is behind it: it is what keeps the message from coming again.
    ended_at = models.DateTimeField(null=True, help_text="replayed or purged")

    class Meta:
        indexes = [
            models.Index(fields=["queue", "-failed_at", "tenant"], name="dead_message_queue"),
            models.Index(fields=["ended_at"], name="dead_message_ended", condition=models.Q(ended_at__isnull=False)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["partition", "group", "seq", "tenant"], name="one_dead_message_per_group")
        ]


class Trace(models.Model):
    """What a reader wrote down about a message while it worked on it."""

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
    """What went through a queue in one minute, added up from what the web processes counted."""

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
    lag_ms = models.BigIntegerField(db_default=0, help_text="sum over what was popped, of push to pop")
    max_lag_ms = models.BigIntegerField(db_default=0)


class Maintenance(models.Model):
    """Whether a tenant's pushes are spilled and its pops answered with nothing, for as long as somebody works on it."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="+")
    push = models.BooleanField(db_default=False)
    pop = models.BooleanField(db_default=False)
    changed_at = models.DateTimeField(db_default=Now())
