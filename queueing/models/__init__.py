"""The tables of queueing: workers, the message queue, outbound webhooks, background jobs."""

from queueing.models.broker import (
    Consumer,
    DeadMessage,
    Group,
    Maintenance,
    Message,
    Partition,
    Queue,
    Trace,
    Traffic,
)
from queueing.models.jobs import (
    JOB_CLOSED,
    Job,
    JobEvent,
    JobFile,
    JobFileChunk,
    JobLimit,
    JobResult,
    JobSchedule,
    JobSlot,
    JobStatus,
    JobStream,
)
from queueing.models.outbound import JobSecret, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from queueing.models.workers import SILENT_AFTER, Worker

__all__ = [
    "JOB_CLOSED",
    "SILENT_AFTER",
    "Consumer",
    "DeadMessage",
    "Group",
    "Job",
    "JobEvent",
    "JobFile",
    "JobFileChunk",
    "JobLimit",
    "JobResult",
    "JobSecret",
    "JobSchedule",
    "JobSlot",
    "JobStatus",
    "JobStream",
    "Maintenance",
    "Message",
    "Partition",
    "Queue",
    "Trace",
    "Traffic",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
