"""Run one attempt of a job: its function on the worker's loop, or in a child process."""

import asyncio

import msgspec

from queueing.jobs import secrets
from queueing.jobs.decisions import JobClaim
from queueing.jobs.kinds import Kind
from queueing.jobs.processes import outcomes
from queueing.jobs.processes.children import Children
from queueing.jobs.processes.outcomes import Canceled, Interrupted, Outcome
from queueing.jobs.processes.wire import Assignment
from queueing.jobs.running import RunningJob
from registry.data import database, faults


async def outcome_of(job: RunningJob, kind: Kind, children: Children) -> Outcome:
    """Run the function within its time limit. Raises CancelledError only if the worker stops."""
    try:
        content = secrets.whole(job.claim)
        if kind.runs == "process":
            return await _in_process(job, kind, content, children)
        return await _on_loop(job, kind, content)
    except asyncio.CancelledError:
        if not job.cancelled:
            raise
        asyncio.current_task().uncancel()  # type: ignore[union-attr]  # it did not reach a checkpoint in time
        return Canceled()
    except Exception as error:
        # An error of the server is none of the job: another attempt is made, and this one does not count.
        return Interrupted() if faults.is_temporary(error) else outcomes.of_error(error)


async def _on_loop(job: RunningJob, kind: Kind, content: bytes) -> Outcome:
    try:
        given = kind.decoder.decode(content)
    except msgspec.MsgspecError as error:
        return outcomes.of_bad_input(error)
    timer = asyncio.timeout(job.claim.timeout)
    try:
        async with timer, database.own_connection():
            return outcomes.of_value(await kind.function(job, given))
    except TimeoutError:
        if timer.expired():
            return outcomes.timed_out(job.claim.timeout)
        raise


async def _in_process(job: RunningJob, kind: Kind, content: bytes, children: Children) -> Outcome:
    assignment = _assignment(job.claim, job.key, content, kind.memory)
    return await children.run(assignment, progress=job.note, cancelled=job.stop_requested, kill=job.lost)


def _assignment(claim: JobClaim, key: str, content: bytes, memory: int) -> Assignment:
    return Assignment(
        kind=claim.kind,
        input=content,
        job_id=claim.uuid,
        row_id=claim.job_id,
        tenant_id=claim.tenant_id,
        attempt=claim.shown,
        fence=claim.attempt,
        key=key,
        timeout=claim.timeout,
        memory=memory,
        result_ttl=claim.result_ttl,
    )
