"""Jobs: submit, read, wait, follow the progress, fetch the result, cancel, retry."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack
from uuid import UUID, uuid4

from registry_client._calls import LONGEST_POLL, get, post
from registry_client._jobs import JobBatchResults, JobFields, JobFilters, accepted_job, details_of
from registry_client._payments import filters_of
from registry_client._responses import decode
from registry_client._retry import Deadline, Retry, Safety
from registry_client._sync.http import Http
from registry_client._sync.live import Feed
from registry_client._sync.pages import items_of
from registry_client._sync.sockets import Sockets
from registry_client._sync.waiting import until
from registry_client.errors import JobNotSuccessful
from registry_client.models.common import Page
from registry_client.models.jobs import (
    AcceptedJob,
    Job,
    JobBatchResult,
    JobChange,
    JobChanges,
    JobDetails,
    JobStatus,
    NewJob,
)

BATCH_AT_MOST = 1000  # jobs
WAIT = 60.0  # seconds that `wait` waits


class Jobs:
    """The jobs of a tenant."""

    def __init__(self, http: Http, sockets: Sockets) -> None:
        self._http, self._sockets = http, sockets

    # -- Submitting ------------------------------------------------------------------------------------------------

    def submit(
        self,
        kind: str,
        input: Mapping[str, Any],
        *,
        idempotency_key: UUID | str | None = None,
        **fields: Unpack[JobFields],
    ) -> AcceptedJob:
        """Submit a job; returns once it is durable. Its key is made before the first try, so that a retry cannot run it twice.

        A job with the same `unique_key` that is at work is returned instead. Raises ValidationFailed, Conflict (other content
        under the same key).
        """
        headers = {"Idempotency-Key": str(idempotency_key or uuid4())}
        response = self._http.request(post("/jobs", NewJob(kind=kind, input=input, **fields), headers))
        return accepted_job(response)

    def batch(self, jobs: Iterable[NewJob]) -> list[JobBatchResult]:
        """Submit up to 1,000 jobs; one result per job, in order. Raises ValueError for more.

        Jobs in a batch have no idempotency key: the batch is not tried again if the service may have executed it. After a
        ConnectionFailed, jobs with a `unique_key` can be sent again.
        """
        items = list(jobs)
        if not 1 <= len(items) <= BATCH_AT_MOST:
            raise ValueError(f"a batch has 1 to {BATCH_AT_MOST} jobs, not {len(items)}")
        call = post("/jobs/batch", {"items": items}, safety=Safety.ONCE)
        return (self._http.get_as(JobBatchResults, call)).results

    # -- Reading ---------------------------------------------------------------------------------------------------

    def status(self, job_id: UUID) -> Job:
        """The state of a job. Raises NotFound."""
        return self._http.get_as(Job, get(f"/jobs/{job_id}"))

    def get(self, job_id: UUID) -> JobDetails:
        """A job with its request and its timeline. Raises NotFound."""
        return details_of(self._http.request(get(f"/jobs/{job_id}")))

    def page(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[JobFilters]) -> Page[Job]:
        """A page of the list, newest first."""
        return self._http.get_as(Page[Job], get("/jobs", {**filters_of(filters), "limit": limit, "cursor": cursor}))

    def list(self, *, page_size: int = 50, **filters: Unpack[JobFilters]) -> Generator[Job]:
        """All jobs, newest first, page by page."""
        return items_of(lambda cursor: self.page(limit=page_size, cursor=cursor, **filters))

    def result(self, job_id: UUID) -> Any:
        """The result of a job that succeeded. Raises Conflict while it is unfinished, Gone once the result has expired."""
        return decode(self._http.request(get(f"/jobs/{job_id}/result")), object)

    # -- Changing --------------------------------------------------------------------------------------------------

    def cancel(self, job_id: UUID) -> Job:
        """Cancel a job; one that is running ends at its next checkpoint. Raises Conflict if it has ended."""
        return self._http.get_as(Job, post(f"/jobs/{job_id}/cancel"))

    def retry(self, job_id: UUID) -> Job:
        """Run a failed job again. Raises Conflict if it has not failed. Not tried again if the service may have executed it."""
        return self._http.get_as(Job, post(f"/jobs/{job_id}/retry", safety=Safety.ONCE))

    # -- Waiting and watching --------------------------------------------------------------------------------------

    def wait(self, job_id: UUID, *, timeout: float = WAIT) -> Job:
        """Wait until the job succeeded, failed or was canceled. Raises WaitTimeout."""
        deadline = Deadline(timeout, self._http.options.retry)
        current = self._http.get_as(Job, get(f"/jobs/{job_id}", retry=deadline.retry))

        def later(after: int, wait: int, deadline: Deadline) -> tuple[Sequence[Job], int]:
            found = self._later(job_id, after, wait, deadline.retry)
            return [change.job for change in found.events], found.next

        return until(current, current.sequence, ended=lambda job: job.status.is_final, later=later, deadline=deadline)

    def wait_result(self, job_id: UUID, *, timeout: float = WAIT) -> Any:
        """Wait until the job ends, and return its result. Raises WaitTimeout, JobNotSuccessful."""
        job = self.wait(job_id, timeout=timeout)
        if job.status is not JobStatus.SUCCEEDED:
            raise JobNotSuccessful(f"the job is {job.status}: {job.error.detail if job.error else 'no error'}", job)
        return self.result(job_id)

    def progress(self, job_id: UUID, *, after: int = 0) -> Generator[Job]:
        """The job at each of its events above the number `after`, until it has ended: progress, tries, the end."""
        wait = 0 if after else int(LONGEST_POLL)  # it may have ended with that event
        while True:
            found = self._later(job_id, after, wait, self._http.options.reconnect)
            for change in found.events:
                yield change.job
                if change.job.status.is_final:
                    return
            if not found.events and self._has_ended(job_id, after):
                return
            after, wait = found.next, int(LONGEST_POLL)

    def _has_ended(self, job_id: UUID, after: int) -> bool:
        """Whether it has no event above `after`, and none to come unless somebody retries it."""
        job = self._http.get_as(Job, get(f"/jobs/{job_id}", retry=self._http.options.reconnect))
        return job.status.is_final and job.sequence <= after

    def watch_all(self, *, after: int | None = None) -> Generator[JobChange]:
        """Every change of every job of the tenant from now on, or above the number `after`. It ends only by an error."""
        feed = Feed(
            JobChange,
            opened=partial(self._sockets.opened, "/ws/jobs"),
            check=partial(self.page, limit=1),
            reconnect=self._http.options.reconnect,
        )
        return feed.changes(after)

    def _later(self, job_id: UUID, after: int, wait: int, retry: Retry | None = None) -> JobChanges:
        call = get(f"/jobs/{job_id}/events", {"after": after, "wait": wait}, wait=wait, retry=retry)
        return self._http.get_as(JobChanges, call)
