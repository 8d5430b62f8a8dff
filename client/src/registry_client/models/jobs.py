"""Jobs and schedules: what is sent, and what the service says about them."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal
from uuid import UUID

import msgspec

from registry_client.models.common import Time, aware
from registry_client.models.payments import TimelineEntry

type Overlap = Literal["skip", "queue"]
type CatchUp = Literal["one", "all", "none"]


class JobStatus(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


class NewJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job to submit; times are seconds."""

    kind: str
    input: Mapping[str, Any] = {}
    priority: int = 0
    run_at: datetime | None = None
    unique_key: str | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    result_ttl: int | None = None
    callback_url: str | None = None

    def __post_init__(self) -> None:
        aware(self.run_at)


class AcceptedJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job that is durable."""

    id: UUID
    kind: str
    status: JobStatus
    created_at: Time
    status_url: str = ""
    replayed: bool = False  # the service had accepted it before, maybe in a first try of the same call
    at_work: bool = False  # it is an earlier job with the same unique key


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job says that it is; it may go back."""

    done: int
    total: int | None = None
    message: str = ""


class JobFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed: `code` is for programs, `detail` for people."""

    code: str = ""
    detail: str = ""


class JobFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file that a job wrote; `url` is a signed link."""

    name: str
    content_type: str
    size: int
    url: str
    expires_at: Time


class Job(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a job. Of two objects, the one with the higher `sequence` is newer."""

    id: UUID
    kind: str
    status: JobStatus
    attempts: int
    progress: JobProgress | None = None
    created_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None
    updated_at: Time
    sequence: int
    error: JobFault | None = None


class JobDetails(Job, frozen=True, kw_only=True, rename="camel"):
    """A job with its request and its timeline."""

    input: Any = None
    priority: int = 0
    run_at: Time | None = None
    unique_key: str | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    result_ttl: int | None = None
    callback_url: str | None = None
    cancel_requested: bool = False
    file: JobFile | None = None
    timeline: list[TimelineEntry] = []


class JobBatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one item of a batch: `queued`, `at_work` (an earlier job with its unique key), or refused with an `error`."""

    id: UUID | None = None
    status: str
    error: dict[str, Any] | None = None

    @property
    def accepted(self) -> bool:
        return self.id is not None


class JobChange(msgspec.Struct, frozen=True, kw_only=True):
    """A live event: the job as it was then. `sequence` is the number by which the watched stream resumes."""

    kind: ClassVar[str] = "job"
    sequence: int
    job: Job


class JobChanges(msgspec.Struct, frozen=True):
    """The answer of a long poll."""

    events: list[JobChange]
    next: int


class NewSchedule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A schedule to save: its due times, and the job that each of them submits."""

    cron: str
    kind: str
    input: Mapping[str, Any] = {}
    timezone: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    priority: int = 0
    max_attempts: int | None = None
    timeout: float | None = None
    result_ttl: int | None = None
    callback_url: str | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A saved schedule. `next` and `last_job` are there where one schedule is read, not in lists."""

    name: str
    cron: str
    timezone: str
    overlap: str
    catch_up: str
    paused: bool
    next_at: Time | None = None
    kind: str
    input: Any = None
    priority: int = 0
    max_attempts: int | None = None
    timeout: float | None = None
    result_ttl: int | None = None
    callback_url: str | None = None
    created_at: Time
    updated_at: Time
    next: list[Time] = []
    last_job: Job | None = None
