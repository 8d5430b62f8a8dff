"""Requests of jobs that both halves share."""

from datetime import datetime
from typing import TypedDict

import httpx2
import msgspec

from registry_client._payments import is_replayed
from registry_client._responses import decode
from registry_client.models.jobs import AcceptedJob, CatchUp, JobBatchResult, JobDetails, JobStatus, Overlap


class JobFields(TypedDict, total=False):
    """Optional fields of a new job; times are seconds."""

    priority: int
    run_at: datetime
    unique_key: str
    max_attempts: int
    timeout: float
    result_ttl: int
    callback_url: str


class JobFilters(TypedDict, total=False):
    """Filters of the list of jobs; times of creation, both inclusive."""

    status: JobStatus
    kind: str
    from_: datetime
    to: datetime


class ScheduleFields(TypedDict, total=False):
    """Optional fields of a schedule."""

    timezone: str
    overlap: Overlap
    catch_up: CatchUp
    priority: int
    max_attempts: int
    timeout: float
    result_ttl: int
    callback_url: str


class JobBatchResults(msgspec.Struct, frozen=True):
    """The answer to a batch of jobs."""

    results: list[JobBatchResult]


def accepted_job(response: httpx2.Response) -> AcceptedJob:
    """The accepted job, or (200) the one that has its unique key."""
    found = decode(response, AcceptedJob)
    return msgspec.structs.replace(
        found,
        status_url=str(response.url.join(found.status_url or f"/jobs/{found.id}")),
        replayed=is_replayed(response.headers),
        at_work=response.status_code == 200,
    )


def details_of(response: httpx2.Response) -> JobDetails:
    """The job; the link to its file has a host also if the service does not know its own address."""
    found = decode(response, JobDetails)
    if found.file is None:
        return found
    file = msgspec.structs.replace(found.file, url=str(response.url.join(found.file.url)))
    return msgspec.structs.replace(found, file=file)
