"""What becomes of a job after an attempt. Pure functions: from a claim and what happened to the settlement that is written."""

import random
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from queueing.models import JobStatus
from queueing.work.work import Key

WAITS = (1.0, 5.0, 30.0, 120.0)  # seconds before attempts 2, 3, 4, and all later ones
JITTER = 0.2  # share by which a wait varies, so that jobs that failed together are not tried together
LARGEST_RESULT = 64 * 1024  # bytes
LONGEST_ERROR, LONGEST_TRACEBACK = 1000, 16_000  # characters that are stored


class JobClaim(NamedTuple):
    """A claimed job: a row of the statement `take`."""

    tenant_id: int
    job_id: int
    uuid: UUID
    kind: str
    input: str
    sealed: bytes | None
    attempt: int  # the fence
    tries_from: int
    max_attempts: int
    timeout: float
    result_ttl: int
    sequence: int
    created_at: datetime
    started_at: datetime
    cancel_requested: bool
    over: bool  # it has no attempt left, or was canceled: it is only closed
    cut_off: bool  # its attempt before was lost with its worker
    shown: int  # number of the attempt, without those that do not count
    position: int

    @property
    def key(self) -> Key:
        return self.tenant_id, self.job_id

    @property
    def last_attempt(self) -> bool:
        return self.attempt - self.tries_from >= self.max_attempts


class Progress(NamedTuple):
    """A report of progress. `done` may go back: it is shown as given."""

    done: int
    total: int | None = None
    message: str = ""


class JobSettlement(NamedTuple):
    """What is written of an attempt."""

    claim: JobClaim
    status: JobStatus
    code: str = ""
    error: str = ""
    traceback: str = ""
    result: str | None = None  # JSON
    wait: float = 0.0  # seconds until a queued job is due
    uncounted: bool = False  # the attempt does not count
    progress: Progress | None = None

    @property
    def key(self) -> Key:
        return self.claim.key


def succeeded(claim: JobClaim, result: bytes) -> JobSettlement:
    """The function returned. A result that is too large fails the job: the next attempt would return it again."""
    if len(result) > LARGEST_RESULT:
        detail = f"the result has {len(result):,} bytes; at most {LARGEST_RESULT:,} are kept"
        return failed(claim, "result_too_large", detail, permanent=True)
    return JobSettlement(claim, JobStatus.SUCCEEDED, result=result.decode())


def failed(
    claim: JobClaim,
    code: str,
    detail: str,
    *,
    traceback: str = "",
    permanent: bool = False,
    after: float | None = None,
) -> JobSettlement:
    """The attempt failed: the job is queued again, in `after` seconds where the cause names a time, unless this was the last one."""
    over = permanent or claim.last_attempt
    return JobSettlement(
        claim,
        JobStatus.FAILED if over else JobStatus.QUEUED,
        code=code[:50],
        error=detail[:LONGEST_ERROR],
        traceback=traceback[-LONGEST_TRACEBACK:],
        wait=0.0 if over else max(after or 0.0, wait_after(claim.attempt - claim.tries_from)),
    )


def wait_after(attempts: int) -> float:
    """Seconds from the end of attempt number `attempts` to the next one."""
    return WAITS[min(attempts, len(WAITS)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def canceled(claim: JobClaim) -> JobSettlement:
    return JobSettlement(claim, JobStatus.CANCELED)


def handed_back(claim: JobClaim) -> JobSettlement:
    """The worker stops: another one may begin at once, and this attempt does not count."""
    return JobSettlement(claim, JobStatus.QUEUED, uncounted=True)


def closed(claim: JobClaim) -> JobSettlement:
    """For a claim that is `over`: the worker of the last attempt was lost, or of one whose cancellation was requested."""
    if claim.cancel_requested:
        return canceled(claim)
    return failed(claim, "worker_lost", "the worker of the last attempt was lost", permanent=True)
