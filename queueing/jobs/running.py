"""The jobs that a worker runs now: their contexts, progress, leases and cancellation."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import cached_property
from uuid import UUID

from queueing.jobs.decisions import JobClaim, Progress
from queueing.jobs.files import JobFileWriter
from queueing.jobs.kinds import JobCanceled, JobLog
from queueing.jobs.processes.outcomes import storable

log = logging.getLogger("queueing.jobs")

CANCEL_GRACE = 5.0  # seconds from a request to cancel until the function is interrupted at whatever it waits for
REPORT_EVERY = 1.0  # seconds between stored reports of progress of one job
REPORT_SHARE = 0.01  # of the job's age: a long job stores its progress less often, about 100 times in ten times its age
LONGEST_MESSAGE = 200  # characters of a report
MOST = 2**63 - 1  # that a report counts


CURRENT: ContextVar["RunningJob | None"] = ContextVar(
    "running job", default=None
)  # also in tasks that its function starts


class RunningJob:
    """An attempt that runs. It is the context of a function on the loop, and the handle of one in a child process."""

    def __init__(self, claim: JobClaim, *, lease: float) -> None:
        self.claim = claim
        self.job_id: UUID = claim.uuid
        self.tenant_id, self.attempt = claim.tenant_id, claim.shown
        self.stop_requested = asyncio.Event()  # the function should end at its next checkpoint
        self.lost = asyncio.Event()  # the lease has ended: whatever it still does is refused
        self.leased_until = time.monotonic() + lease
        self.task: asyncio.Task | None = None
        self._interruption: asyncio.TimerHandle | None = None
        self._progress: Progress | None = None
        self._began = self._reported_at = time.monotonic()

    # -- For the function ----------------------------------------------------------------------------------------

    @cached_property
    def key(self) -> str:
        return f"{self.claim.uuid}:{self.claim.attempt}"

    @cached_property
    def log(self) -> JobLog:
        return JobLog(log, {"job": str(self.claim.uuid), "kind": self.claim.kind})

    @property
    def cancelled(self) -> bool:
        return self.stop_requested.is_set()

    def check(self) -> None:
        if self.cancelled:
            raise JobCanceled

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        self.check()
        self.note(done, total, message)

    def file(self, name: str, content_type: str, *, gzip: bool = False) -> JobFileWriter:
        claim = self.claim
        return JobFileWriter(
            tenant_id=claim.tenant_id,
            job_id=claim.job_id,
            attempt=claim.attempt,
            name=name,
            content_type=content_type,
            gzip=gzip,
            seconds=claim.result_ttl,
        )

    # -- For the worker ------------------------------------------------------------------------------------------

    def note(self, done: int, total: int | None, message: str) -> None:
        counted = None if total is None else _bounded(total)
        self._progress = Progress(_bounded(done), counted, storable(message)[:LONGEST_MESSAGE])

    def take_progress(self) -> Progress | None:
        """The latest report that was not taken before."""
        taken, self._progress = self._progress, None
        return taken

    def reports_now(self) -> bool:
        """Whether a report is there, and the latest one was stored long enough ago."""
        now = time.monotonic()
        pause = max(REPORT_EVERY, (now - self._began) * REPORT_SHARE)
        if self._progress is None or now - self._reported_at < pause:
            return False
        self._reported_at = now
        return True

    @property
    def is_late(self) -> bool:
        """Whether its time limit is over."""
        return time.monotonic() - self._began >= self.claim.timeout

    def cancel(self) -> None:
        """Ask the function to end; interrupt it after CANCEL_GRACE."""
        if not self.cancelled:
            self.stop_requested.set()
            self._interruption = asyncio.get_running_loop().call_later(CANCEL_GRACE, self._interrupt)

    def lose(self) -> None:
        """The lease has ended."""
        self.lost.set()
        self.cancel()

    def ended(self) -> None:
        """The function has ended: what its task does now is to write the outcome."""
        self.task = None  # whose context has this job: a cycle would be left to the garbage collector
        if self._interruption:
            self._interruption.cancel()

    def _interrupt(self) -> None:
        if self.task and not self.task.done():
            self.task.cancel()


def _bounded(number: float) -> int:
    return max(-MOST, min(int(number), MOST))


class RunningJobs:
    """The running jobs of a worker, by tenant and row id."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[int, int], RunningJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[RunningJob]:
        return iter(list(self._jobs.values()))

    def add(self, job: RunningJob) -> None:
        """An earlier attempt that runs here still has lost its lease: it would not be claimed otherwise."""
        if former := self._jobs.get(job.claim.key):
            former.lose()
        self._jobs[job.claim.key] = job

    def remove(self, job: RunningJob) -> None:
        job.ended()
        if self._jobs.get(job.claim.key) is job:
            del self._jobs[job.claim.key]

    def get(self, key: tuple[int, int]) -> RunningJob | None:
        return self._jobs.get(key)

    def expired(self) -> Iterable[RunningJob]:
        """Jobs whose lease this worker could not extend in time."""
        now = time.monotonic()
        return [job for job in self if job.leased_until < now]
