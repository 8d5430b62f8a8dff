"""Jobs as a source of webhook events, and of callbacks to the addresses that their submissions named. Progress is no event."""

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from queueing.jobs.events import STREAM, JobChange, status_body
from queueing.models import JobStatus
from queueing.outbound import sources
from queueing.outbound.sources import WebhookEvent
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "webhooks.sql")

TYPES = tuple(f"job.{status.value}" for status in JobStatus)
EXAMPLES = ("job.queued", "job.running", "job.succeeded")


def message_id(event: WebhookEvent) -> str:
    """One id per event, which the job's callback and every subscribed endpoint share: an address may be both."""
    assert isinstance(event, JobChange)
    return f"msg_{uuid5(event.uuid, str(event.sequence)).hex}"


def example(type: str, subject: UUID, sequence: int, at: datetime) -> dict[str, Any]:
    """The `data` of an invented event, for the test kit of receivers."""
    status = type.partition(".")[2]
    return status_body(JobChange(0, 0, 0, subject, "http", status, 1, at, at, at, at, sequence))


sources.register(
    sources.EventSource(
        stream=STREAM,
        noun="job",
        subject_field="jobId",
        page="job",
        types=TYPES,
        unread=SQL["unread"],
        events=SQL["events"],
        owed=SQL["owed"],
        callbacks=SQL["callbacks"],
        event=lambda row: JobChange(*row),
        message_id=message_id,
        examples=EXAMPLES,
        example=example,
    )
)
