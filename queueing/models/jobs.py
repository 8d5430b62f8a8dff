"""Background jobs: the jobs of tenants, their numbered events, their results, and schedules that submit them."""

from typing import Final, NamedTuple, Self

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

from queueing.models.broker import tenant_key
from queueing.models.work import WorkRow, closed_in, open_rows
from registry.models import Tenant


class JobStatus(models.TextChoices):
    """States of a job. A job whose attempt failed is queued again until it has no attempt left; `failed` jobs are dead letters."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


JOB_CLOSED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


class JobLook(NamedTuple):
    """How a state is shown: by shape and colour, never by colour alone."""

    shape: str
    colour: str  # name of the CSS custom property and class
    sentence: str


JOB_LOOKS: Final[dict[JobStatus, JobLook]] = {
    JobStatus.QUEUED: JobLook("○", "grey", "Waiting for a worker."),
    JobStatus.RUNNING: JobLook("◔", "blue", "A worker is running it."),
    JobStatus.SUCCEEDED: JobLook("●", "green", "Done."),
    JobStatus.FAILED: JobLook("✕", "red", "Failed. It is not tried again unless somebody retries it."),
    JobStatus.CANCELED: JobLook("–", "grey", "Canceled."),
}


class JobQuerySet(AsyncQuerySet):
    def of(self, tenant_id: int) -> Self:
        return self.filter(tenant_id=tenant_id)

    def dead_letters(self) -> Self:
        """Jobs that failed for good; a retry queues them again."""
        return self.filter(closed=JobStatus.FAILED)


class Job(WorkRow):
    """A job of a tenant, and its own entry in the work queue."""

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    uuid = models.UUIDField(help_text="its id in the API")
    kind = models.CharField(max_length=100)
    input = models.TextField(help_text="JSON, as its kind reads it")
    sealed = models.BinaryField(null=True, editable=False, help_text="secret fields of the input, encrypted")
    fingerprint = models.BinaryField(editable=False, help_text="hash of the request: the same under one id is a replay")
    status = models.CharField(max_length=10, choices=JobStatus, db_default=JobStatus.QUEUED.value)
    sequence = models.IntegerField(db_default=1, help_text="number of its latest event")
    max_attempts = models.IntegerField()
    timeout = models.FloatField(help_text="seconds of one attempt")
    result_ttl = models.IntegerField(help_text="seconds that the result is kept")
    unique_key = models.CharField(max_length=200, null=True, blank=True)
    callback_url = models.CharField(max_length=2000, db_default="", blank=True)
    schedule_id = models.BigIntegerField(null=True, help_text="the schedule that submitted it")
    due_at = models.DateTimeField(null=True, help_text="the schedule's due time")
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    progress_message = models.CharField(max_length=200, db_default="", blank=True)
    handed_back = models.IntegerField(db_default=0, help_text="attempts that do not count: their worker stopped")
    lost_attempts = models.IntegerField(
        db_default=0, help_text="attempts that do not count either: their worker was killed; a retry resets it"
    )
    cancel_requested = models.BooleanField(db_default=False)
    error_code = models.CharField(max_length=50, db_default="", blank=True)
    error = models.CharField(max_length=1000, db_default="", blank=True, help_text="why the latest attempt failed")
    traceback = models.TextField(db_default="", blank=True, help_text="of that error, for operators")
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, help_text="when the latest attempt was claimed")
    finished_at = models.DateTimeField(null=True)
    # Not NULL once no worker has anything to do. Derived, so that the index of open work has one column for it.
    closed = closed_in(JOB_CLOSED, max_length=10)

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(JobQuerySet)()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["uuid", "tenant"], name="job_once"),
            models.UniqueConstraint(
                fields=["unique_key", "tenant", "kind"],
                condition=models.Q(closed=None, unique_key__isnull=False),
                name="job_open_key",
            ),
        ]
        indexes = [
            open_rows("job_open", "kind"),
            models.Index(fields=["tenant", "-created_at", "-id"], name="job_list"),
            models.Index(fields=["tenant", "-id"], condition=models.Q(closed="failed"), name="job_dead"),
            models.Index(
                fields=["closed", "finished_at", "id"], condition=models.Q(closed__isnull=False), name="job_finished"
            ),
            models.Index(
                fields=["schedule_id", "tenant"],
                condition=models.Q(closed=None, schedule_id__isnull=False),
                name="job_open_of_schedule",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.uuid}"


class JobEvent(AsyncModelMixin, models.Model):
    """A change of a job: `sequence` counts within the job, `position` within the tenant."""

    pk = models.CompositePrimaryKey("tenant_id", "position")
    tenant = tenant_key()
    position = models.BigIntegerField()
    job_id = models.BigIntegerField()
    sequence = models.IntegerField()
    status = models.CharField(max_length=10, choices=JobStatus)
    attempt = models.IntegerField(db_default=0)
    at = models.DateTimeField(db_default=Now())
    code = models.CharField(max_length=50, db_default="")
    detail = models.CharField(max_length=1000, db_default="")
    progress = models.JSONField(null=True, help_text="done, total, message; null: the event is no report of progress")
    callback_due = models.BooleanField(
        db_default=False, help_text="the delivery to the job's callback URL is still to be made"
    )

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job_id", "tenant", "sequence"], name="job_event_once")]
        indexes = [
            models.Index(
                fields=["tenant", "position"], condition=models.Q(callback_due=True), name="job_event_callback"
            )
        ]


class JobStream(AsyncModelMixin, models.Model):
    """A tenant's stream of job events. Locked while events are numbered (migrations/sql/job_numbers.sql), so that numbers follow commit
    order, and not changed then."""

    tenant = models.OneToOneField(Tenant, models.CASCADE, primary_key=True, related_name="+")
    # No deleted event is above it. The latest number is the latest event's.
    position = models.BigIntegerField(default=0)


class JobResult(AsyncModelMixin, models.Model):
    """What a job returned. Deleted when it expires, before the job."""

    pk = models.CompositePrimaryKey("tenant_id", "job_id")
    tenant = tenant_key()
    job_id = models.BigIntegerField()
    body = models.TextField(help_text="JSON")
    expires_at = models.DateTimeField()

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="job_result_expiry")]


class JobScheduleQuerySet(AsyncQuerySet):
    def of(self, tenant_id: int) -> Self:
        return self.filter(tenant_id=tenant_id)


class JobSchedule(AsyncModelMixin, models.Model):
    """A schedule of a tenant: at each due time it submits a job. Its name identifies it."""

    class Overlap(models.TextChoices):
        """Whether a due time submits a job while an earlier one of the schedule is open."""

        SKIP = "skip"
        QUEUE = "queue"

    class CatchUp(models.TextChoices):
        """How many jobs are submitted for due times that passed while no worker was alive."""

        ONE = "one"
        ALL = "all"
        NONE = "none"

    id = models.BigAutoField(primary_key=True)
    tenant = tenant_key()
    name = models.CharField(max_length=100, db_collation="C")
    cron = models.CharField(max_length=100)
    timezone = models.CharField(max_length=64, help_text="IANA name")
    overlap = models.CharField(max_length=5, choices=Overlap)
    catch_up = models.CharField(max_length=4, choices=CatchUp)
    paused = models.BooleanField(db_default=False)
    next_at = models.DateTimeField(null=True, help_text="the next due time; null: it is paused, or there is none")
    last_job = models.UUIDField(null=True, help_text="id of the latest job")

    kind = models.CharField(max_length=100)
    input = models.TextField(help_text="JSON, as its kind reads it")
    sealed = models.BinaryField(null=True, editable=False, help_text="secret fields of the input, encrypted")
    priority = models.SmallIntegerField()
    max_attempts = models.IntegerField()
    timeout = models.FloatField(help_text="seconds of one attempt")
    result_ttl = models.IntegerField(help_text="seconds that a result is kept")
    callback_url = models.CharField(max_length=2000, db_default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(JobScheduleQuerySet)()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="job_schedule_once")]
        indexes = [
            models.Index(fields=["next_at"], condition=models.Q(next_at__isnull=False), name="job_schedule_due"),
        ]

    def __str__(self) -> str:
        return self.name


class JobLimit(AsyncModelMixin, models.Model):
    """The limits of a kind that has any. Its row is locked by claims of that kind, so that they count one after the other."""

    kind = models.CharField(max_length=100, primary_key=True)
    next_start_at = models.DateTimeField(
        db_default=Now(), help_text="of a kind with a rate: when the next job may start"
    )


class JobSlot(AsyncModelMixin, models.Model):
    """A running job of a kind whose concurrency is limited. It counts while the job's lease of that attempt is valid."""

    pk = models.CompositePrimaryKey("tenant_id", "job_id", "attempt")
    tenant = tenant_key()
    job_id = models.BigIntegerField()
    attempt = models.IntegerField()
    kind = models.CharField(max_length=100)

    class Meta:
        indexes = [models.Index(fields=["kind", "tenant"], name="job_slot_kind")]


class JobFile(AsyncModelMixin, models.Model):
    """A file that a job wrote, in the database, so that every host can send it. Complete once the job has succeeded."""

    pk = models.CompositePrimaryKey("tenant_id", "job_id")
    tenant = tenant_key()
    job_id = models.BigIntegerField()
    attempt = models.IntegerField(help_text="the attempt that wrote it")
    name = models.CharField(max_length=200)
    content_type = models.CharField(max_length=100)
    size = models.BigIntegerField(db_default=0, help_text="bytes")
    expires_at = models.DateTimeField()

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="job_file_expiry")]

    def __str__(self) -> str:
        return self.name


class JobFileChunk(AsyncModelMixin, models.Model):
    """A piece of a job's file."""

    pk = models.CompositePrimaryKey("tenant_id", "job_id", "attempt", "number")
    tenant = tenant_key()
    job_id = models.BigIntegerField()
    attempt = models.IntegerField()
    number = models.IntegerField()
    data = models.BinaryField()

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(AsyncQuerySet)()
