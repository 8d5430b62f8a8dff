"""A guard of a worker's event loop: if a job blocks it, or goes on after it was interrupted, the process is killed, and RQ starts another.

A function on the loop that never awaits stops everything in its process: heartbeats, leases, all other jobs. The loop's watch notices
that in its thread; then the guard gives the other jobs back at once, writes the failed attempt of the one that blocks, and kills the
process. A function in C that holds the interpreter's lock stops that thread too: then faulthandler, which needs no lock, says where it
is and ends the process. A function that catches its cancellation and goes on would run for ever; nothing else can end it.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from queueing.jobs import decisions, events
from queueing.jobs.decisions import JobSettlement
from queueing.jobs.kinds import KINDS
from queueing.jobs.running import CURRENT, RunningJob, RunningJobs
from registry.data import arrays, loop_watch
from registry.telemetry import changes

log = logging.getLogger(__name__)

STALLED_AFTER = 5.0  # seconds without a turn of the loop
TICK_EVERY = 0.5  # seconds between signs of life of the loop, for HELD_AFTER
HELD_AFTER = 60.0  # seconds without a turn of the loop; longer than a lease, so that a suspended process loses nothing
IGNORED_FOR = 10.0  # seconds in which a function that was interrupted may end: it may have to clean up
WRITE_LIMIT = 3  # seconds for the connection of the thread, which has none open
KILL_LIMIT = 2.0 * WRITE_LIMIT  # seconds for that and for the statement, which may wait for a lock of the blocked loop


class LoopGuard:
    """The guard of the running loop, from `start` to `stop`."""

    def __init__(
        self, jobs: RunningJobs, settle: Callable[[Sequence[JobSettlement]], tuple[str, dict[str, Any]]]
    ) -> None:
        self._jobs, self._settle = jobs, settle
        self._parameters: dict[str, Any] = {}
        self._interrupted: dict[RunningJob, int] = {}  # ticks since it was
        self.started = self._stopped = False

    def start(self, parameters: dict[str, Any]) -> None:
        """`parameters`: of a connection to the database."""
        self.started, self._parameters = True, parameters

        def stalled(task: asyncio.Task[Any] | None) -> None:
            if len(self._jobs) and not self._stopped:
                culprit = _culprit(task, list(self._jobs))
                outcomes = [_outcome(job, blocks=job is culprit) for job in self._jobs]
                self._replace("a job blocked the event loop: this worker process is replaced", outcomes)

        loop_watch.watches.get().when_still(STALLED_AFTER, stalled)

    def tick(self) -> None:
        """The loop has had a turn."""
        faulthandler.dump_traceback_later(HELD_AFTER, exit=True)
        # Counted in turns: a process that was suspended has not waited.
        self._interrupted = {job: self._interrupted.get(job, 0) + 1 for job in self._jobs if _is_interrupted(job)}
        if any(ticks * TICK_EVERY >= IGNORED_FOR for ticks in self._interrupted.values()) and not self._stopped:
            outcomes = [_outcome_of_interrupted(job) for job in self._jobs]
            said = "a job went on after it was interrupted: this worker process is replaced"
            threading.Thread(target=self._replace, args=(said, outcomes), daemon=True).start()
            self._stopped = True

    def stop(self) -> None:
        self._stopped = True
        faulthandler.cancel_dump_traceback_later()

    def _replace(self, said: str, outcomes: Sequence[JobSettlement]) -> None:
        killing = threading.Timer(KILL_LIMIT, _kill)
        killing.daemon = True
        killing.start()
        log.error(said, extra={"jobs": [str(outcome.claim.uuid) for outcome in outcomes if not outcome.uncounted]})
        try:
            statement, columns = self._settle(outcomes)
            own = {"connect_timeout": WRITE_LIMIT, "cursor_factory": psycopg.Cursor}
            with psycopg.connect(**{**self._parameters, **own}) as connection:
                arrays.register(connection)
                rows = connection.execute(statement, columns, binary=True).fetchall()
            written = {outcome.claim.key: outcome for outcome in outcomes}
            changes.record(events.settled_line(written[row[0], row[1]], row) for row in rows)
        except Exception:  # then their leases end by themselves
            log.exception("jobs could not be given back")
        finally:
            _kill()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _culprit(task: asyncio.Task[Any] | None, jobs: Sequence[RunningJob]) -> RunningJob | None:
    """The job to which the task belongs that has the loop: its own, or one that its function started. A job that runs alone is
    the culprit in any case."""
    if len(jobs) == 1:
        return jobs[0]
    return task.get_context().get(CURRENT) if task else None


def _outcome(job: RunningJob, *, blocks: bool) -> JobSettlement:
    if not blocks:
        return decisions.handed_back(job.claim)
    detail = f"blocked the event loop of its worker for {STALLED_AFTER:g} s"
    return decisions.failed(job.claim, "blocked_the_loop", detail)


def _is_interrupted(job: RunningJob) -> bool:
    """Whether its function on the loop was told to end, by whatever: its time limit, a request, a worker that stops."""
    return KINDS[job.claim.kind].runs == "loop" and job.task is not None and job.task.cancelling() > 0


def _outcome_of_interrupted(job: RunningJob) -> JobSettlement:
    if _is_interrupted(job) and job.is_late:
        detail = f"did not end within {job.claim.timeout:g} s, and went on when it was interrupted"
        return decisions.failed(job.claim, "timed_out", detail)
    return decisions.canceled(job.claim) if _is_interrupted(job) and job.cancelled else decisions.handed_back(job.claim)
