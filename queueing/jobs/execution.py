"""Run one attempt of a job: its function on the worker's loop, or in a child process."""

import asyncio
from typing import Any

import msgspec

from queueing.jobs import secrets
from queueing.jobs.decisions import JobClaim
from queueing.jobs.kinds import Context, Kind
from queueing.jobs.processes import outcomes, output
from queueing.jobs.processes.children import Children
from queueing.jobs.processes.outcomes import Canceled, Failed, Interrupted, Outcome
from queueing.jobs.processes.wire import Assignment
from queueing.jobs.running import RunningJob
from registry.data import database, db_breaker


async def outcome_of(job: RunningJob, kind: Kind, children: Children) -> Outcome:
    """Run the function within its time limit. Raises CancelledError only if the worker stops."""
    outcome = await _outcome_of(job, kind, children)
    if isinstance(outcome, Canceled) and job.lost.is_set():
        return Interrupted()  # nobody asked for it, unless the row says so: the lease may have ended by our clock only
    return outcome


async def _outcome_of(job: RunningJob, kind: Kind, children: Children) -> Outcome:
    content = b"{}"
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
        if outcomes.is_outage(error, away=db_breaker.current().away):
            return Interrupted()
        return _cleaned(outcomes.of_error(error), kind, content)


def _cleaned(outcome: Outcome, kind: Kind, content: bytes) -> Outcome:
    """Without the secrets of the input, which whoever was called may have repeated."""
    if isinstance(outcome, Failed) and (hidden := output.secrets_in(kind, content)):
        detail, trace = output.without(hidden, outcome.detail), output.without(hidden, outcome.traceback)
        return msgspec.structs.replace(outcome, detail=detail, traceback=trace)
    return outcome


async def _on_loop(job: RunningJob, kind: Kind, content: bytes) -> Outcome:
    try:
        given = kind.decoder.decode(content)
    except msgspec.MsgspecError as error:
        return outcomes.of_bad_input(error)
    connection = database.new_connection()
    try:
        running = asyncio.Task(_called(kind, job, given), loop=asyncio.get_running_loop(), eager_start=True)
        if not running.done():  # it waits for something, so it needs a timer
            timer = asyncio.timeout(job.claim.timeout)
            try:
                async with timer:
                    await running
            except TimeoutError:
                if timer.expired():
                    return outcomes.timed_out(job.claim.timeout)
                raise
        return outcomes.of_value(running.result())
    finally:
        await connection.close()


async def _called(kind: Kind, context: Context, given: Any) -> Any:
    try:
        return await kind.function(context, given)
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end the loop, and all jobs of the worker with it
        raise RuntimeError(f"the function wanted to end the process: {error!r}") from error


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
