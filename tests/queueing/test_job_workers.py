"""Jobs in real worker processes: killed, stopped, blocked and canceled while they run."""

import asyncio
import os
import signal
import sys
from typing import Any
from uuid import UUID

from queueing.models import Job, JobEvent, JobStatus
from registry.data import database
from registry.models import Tenant
from registry.servers.processes import signal_process
from tests.bed.running import PROJECT
from tests.conftest import Api, eventually
from tests.queueing.test_jobs import get, post, submit

STOP_LIMIT = 7.0  # seconds; `up` kills after that


async def until(api: Api, id: str, *statuses: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        job = await get(api, f"/jobs/{id}")
        return job if job["status"] in statuses else None

    return await eventually(reached)


async def test_a_job_whose_worker_is_killed_runs_again_with_the_next_attempt(api: Api, start) -> None:
    [worker] = await start()
    job = await submit(api, kind="test.wait", input={"seconds": 1.0})
    await until(api, job["id"], "running")

    signal_process(worker.horse, signal.SIGKILL)
    done = await until(api, job["id"], "succeeded")

    assert done["attempts"] == 2
    assert [event.get("code") for event in done["timeline"]] == [None, None, "worker_lost", None]


async def test_a_worker_that_stops_gives_its_jobs_back_and_the_attempt_does_not_count(api: Api, start) -> None:
    [worker] = await start()
    job = await submit(api, kind="test.wait", input={"seconds": 60.0})
    await until(api, job["id"], "running")

    signal_process(worker.pid, signal.SIGTERM)
    async with asyncio.timeout(STOP_LIMIT):
        await worker.process.wait()

    left = await get(api, f"/jobs/{job['id']}")
    assert (left["status"], left["attempts"]) == ("queued", 0)


async def test_a_running_job_is_canceled_at_its_next_checkpoint(api: Api, start) -> None:
    await start()
    job = await submit(api, kind="test.wait", input={"seconds": 60.0})
    await until(api, job["id"], "running")

    asked = await post(api, f"/jobs/{job['id']}/cancel", 202)
    done = await until(api, job["id"], "canceled")

    assert (asked["status"], asked["cancelRequested"], done["attempts"]) == ("running", True, 1)


async def test_a_job_that_takes_longer_than_its_time_is_tried_again(api: Api, start) -> None:
    await start()
    job = await submit(api, kind="test.wait", input={"seconds": 60.0}, timeout=0.2, maxAttempts=1)

    failed = await until(api, job["id"], "failed")

    assert failed["error"]["code"] == "timed_out"


async def test_a_job_that_blocks_the_loop_fails_and_the_other_jobs_go_back_uncounted(api: Api, start) -> None:
    [worker] = await start()
    horse = worker.horse
    other = await submit(api, kind="test.wait", input={"seconds": 8.0})
    await until(api, other["id"], "running")
    blocking = await submit(api, kind="test.block", input={"seconds": 60.0}, maxAttempts=1)

    failed = await until(api, blocking["id"], "failed")
    done = await until(api, other["id"], "succeeded")

    assert failed["error"]["code"] == "blocked_the_loop"
    assert done["attempts"] == 1
    assert [event["status"] for event in done["timeline"]] == ["queued", "running", "queued", "running", "succeeded"]
    assert worker.horse not in (0, horse)


async def test_a_job_that_goes_on_when_its_time_is_over_fails_and_the_other_jobs_go_back_uncounted(
    api: Api, start
) -> None:
    [worker] = await start()
    horse = worker.horse
    other = await submit(api, kind="test.wait", input={"seconds": 13.0})
    stubborn = await submit(api, kind="test.stubborn", timeout=0.5)

    failed = await until(api, stubborn["id"], "failed")
    done = await until(api, other["id"], "succeeded")

    assert failed["error"]["code"] == "timed_out"
    assert (done["attempts"], worker.horse not in (0, horse)) == (1, True)


async def test_a_job_that_goes_on_when_it_is_canceled_is_canceled_all_the_same(api: Api, start) -> None:
    await start()
    stubborn = await submit(api, kind="test.stubborn")
    await until(api, stubborn["id"], "running")

    await post(api, f"/jobs/{stubborn['id']}/cancel", 202)

    assert (await until(api, stubborn["id"], "canceled"))["attempts"] == 1


async def test_a_job_on_the_loop_that_leaves_the_interpreter_fails_and_its_worker_goes_on(api: Api, start) -> None:
    [worker] = await start()
    horse = worker.horse
    at_once = await submit(api, kind="test.exit")
    later = await submit(api, kind="test.exit", input={"seconds": 0.1})

    failed = [await until(api, job["id"], "failed") for job in (at_once, later)]

    assert {job["error"]["detail"] for job in failed} == {
        "RuntimeError: the function wanted to end the process: SystemExit(3)"
    }
    assert worker.horse == horse


async def test_progress_is_shown_while_a_job_runs_and_may_go_back(api: Api, start) -> None:
    await start()
    job = await submit(api, kind="test.echo", input={"text": "x", "steps": 6, "seconds": 0.5})

    async def reported() -> dict[str, Any] | None:
        return (await get(api, f"/jobs/{job['id']}")).get("progress")

    progress = await eventually(reported)
    await until(api, job["id"], "succeeded")

    assert progress["total"] == 6
    assert progress["message"].startswith("step ")
    reports = JobEvent.async_objects.filter(progress__isnull=False)
    assert await reports.acount() >= 1


async def test_a_lease_is_extended_for_as_long_as_the_job_runs(api: Api, start, monkeypatch) -> None:
    await start()
    job = await submit(api, kind="test.wait", input={"seconds": 12.0})
    row = await until(api, job["id"], "running")
    leased = (await Job.async_objects.filter(uuid=UUID(job["id"])).afirst()).leased_until

    async def extended() -> bool:
        found = await Job.async_objects.filter(uuid=UUID(job["id"])).afirst()
        return found.status == JobStatus.RUNNING and found.leased_until > leased

    assert await eventually(extended)
    assert row["attempts"] == 1
    await database.release()


async def test_a_function_that_blocks_runs_in_a_process_of_its_own_beside_other_jobs(api: Api, start) -> None:
    [worker] = await start()
    horse = worker.horse
    blocking = await submit(api, kind="test.sync", input={"text": "slow", "steps": 3, "seconds": 0.7})
    await until(api, blocking["id"], "running")
    quick = await submit(api)

    await until(api, quick["id"], "succeeded")
    during = await get(api, f"/jobs/{blocking['id']}")
    done = await until(api, blocking["id"], "succeeded")
    result = await get(api, f"/jobs/{blocking['id']}/result")

    assert during["status"] == "running"
    assert (done["progress"]["total"], result["text"]) == (3, "slow")
    assert result["pid"] not in (0, horse)


async def test_a_canceled_process_is_killed_and_a_time_limit_kills_what_hangs(api: Api, start) -> None:
    await start()
    canceled = await submit(api, kind="test.sync", input={"steps": 200, "seconds": 0.3})
    hanging = await submit(api, kind="test.sync", input={"steps": 1, "seconds": 600}, timeout=1, maxAttempts=1)
    await until(api, canceled["id"], "running")
    await post(api, f"/jobs/{canceled['id']}/cancel", 202)

    await until(api, canceled["id"], "canceled")
    failed = await until(api, hanging["id"], "failed")

    assert failed["error"]["code"] == "timed_out"


async def test_a_job_that_blocks_the_loop_in_a_task_of_its_own_is_the_one_that_fails(api: Api, start) -> None:
    await start()
    other = await submit(api, kind="test.wait", input={"seconds": 8.0})
    await until(api, other["id"], "running")
    blocking = await submit(api, kind="test.stall", input={"seconds": 60.0}, maxAttempts=1)

    failed = await until(api, blocking["id"], "failed")
    done = await until(api, other["id"], "succeeded")

    assert (failed["error"]["code"], done["attempts"]) == ("blocked_the_loop", 1)


async def test_a_worker_whose_loop_is_blocked_is_replaced_though_a_lock_keeps_its_outcomes_waiting(
    api: Api, start, tenant: Tenant
) -> None:
    [worker] = await start()
    horse = worker.horse
    blocking = await submit(api, kind="test.block", input={"seconds": 60.0})
    await until(api, blocking["id"], "running")

    async with database.transaction() as conn:
        await conn.execute(
            "SET LOCAL idle_in_transaction_session_timeout = 0"
        )  # which ends a lock that waits for this long
        await conn.execute("SELECT FROM queueing_jobstream WHERE tenant_id = %s FOR UPDATE", [tenant.pk])
        await eventually(lambda: worker.horse not in (0, horse), within=25.0)


NOWHERE = "postgres://nobody@127.0.0.1:1/none"
HOLDS = """
import asyncio, ctypes, django
django.setup()
from queueing.jobs import stall
from queueing.jobs.running import RunningJobs

stall.HELD_AFTER = 1.0

async def main():
    guard = stall.LoopGuard(RunningJobs(), None)
    for _ in range(6):  # turns that are made keep it alive
        guard.tick()
        await asyncio.sleep(0.2)
    print("holds", flush=True)
    ctypes.PyDLL(None).sleep(60)  # does not release the interpreter's lock

asyncio.run(main())
"""


async def test_a_function_in_c_that_holds_the_interpreters_lock_ends_its_process_and_is_named() -> None:
    """Else nothing in the process could notice it, and RQ ends it after half an hour."""
    python = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS, cwd=PROJECT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "registry.settings", "DATABASE_URL": NOWHERE, "REDIS_URL": "redis://127.0.0.1:1/0"},
    )  # fmt: skip
    async with asyncio.timeout(40):
        out, trace = await python.communicate()

    assert (python.returncode, out) == (1, b"holds\n")
    assert b"Timeout" in trace and b"in main" in trace
