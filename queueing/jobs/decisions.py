"""What becomes of a job after an attempt. Pure functions: from a claim and what happened to the settlement that is written."""

import random
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from queueing.jobs.processes.outcomes import LONGEST_ERROR, LONGEST_TRACEBACK, Canceled, Failed, Outcome, Succeeded
from queueing.models import JobStatus
from queueing.work.keyed import Key
from registry.redaction import redact_text

WAITS = (1.0, 5.0, 30.0, 120.0)  # seconds before attempts 2, 3, 4, and all later ones
INTERRUPTED_WAIT = 1.0  # seconds until a job is due again whose attempt was ended by something else than itself
LOST = "worker_lost"  # code of the loss of an attempt with its worker
MOST_LOST = 20  # attempts lost with their workers until a job fails: it may be the job that kills them
LOST_WAITS = (
    1.0,
    5.0,
    30.0,
    120.0,
    600.0,
)  # seconds after the second loss, the third, …; the first one is followed at once
LOST_TOO_OFTEN = f"{MOST_LOST} of its attempts were lost with their workers"
JITTER = 0.2  # share by which a wait varies, so that jobs that failed together are not tried together


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
    over: bool  # it has lost too many attempts, or was canceled: it is only closed
    cut_off: bool  # its attempt before was lost with its worker
    shown: int  # number of the attempt, without those that do not count
    run_at: datetime  # when this attempt was due; of the one before where that was cut off
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
    """The outcome of an attempt, as it is stored."""

    claim: JobClaim
    status: JobStatus
    code: str = ""
    error: str = ""
    traceback: str = ""
    result: str | None = None  # JSON; a result that is null is not stored
    wait: float = 0.0  # seconds until a queued job is due
    uncounted: bool = False  # the attempt does not count
    progress: Progress | None = None

    @property
    def key(self) -> Key:
        return self.claim.key


def after(claim: JobClaim, outcome: Outcome) -> JobSettlement:
    """What is written of an attempt that ended so."""
    match outcome:
        case Succeeded(result=result):
            return JobSettlement(claim, JobStatus.SUCCEEDED, result=None if result == b"null" else result.decode())
        case Failed():
            return failed(
                claim,
                outcome.code,
                redact_text(outcome.detail),
                traceback=redact_text(outcome.traceback),
                permanent=outcome.permanent,
                after=outcome.after,
            )
        case Canceled():
            return canceled(claim)
    return handed_back(claim, wait=INTERRUPTED_WAIT)


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


def handed_back(claim: JobClaim, *, wait: float = 0.0) -> JobSettlement:
    """The worker stops, or something else than the job ended the attempt: another may begin, and this one does not count."""
    return JobSettlement(claim, JobStatus.QUEUED, uncounted=True, wait=wait)


def closed(claim: JobClaim) -> JobSettlement:
    """For a claim that is `over`: too many workers were lost while it ran, or its cancellation was requested."""
    return canceled(claim) if claim.cancel_requested else failed(claim, LOST, LOST_TOO_OFTEN, permanent=True)
