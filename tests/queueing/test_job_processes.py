"""Jobs in child processes: what they report, and whatever they do instead."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from queueing.jobs import kinds
from queueing.jobs.processes import children as child_processes
from queueing.jobs.processes import forking, output
from queueing.jobs.processes.children import Children
from queueing.jobs.processes.outcomes import LARGEST_RESULT, Canceled, Failed, Interrupted, Succeeded
from queueing.models import JobFile, JobFileChunk
from registry.servers.processes import children as child_pids
from registry.servers.processes import free_port, read_proc
from tests.bed.running import PROJECT, PYTHONPATH
from tests.conftest import eventually
from tests.queueing import child_kinds
from tests.queueing.child_kinds import FAMILY
from tests.queueing.child_runs import MIB, living, run, written_pids
from tests.queueing.processes import database_url

LONG = 2.0  # seconds in which nothing of a killed worker may be left


@pytest.fixture(scope="module", autouse=True)
def _environment(_database: None):
    """What fork servers inherit: they see the test database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url())
        yield


@pytest.fixture(scope="module")
async def children() -> AsyncIterator[Children]:
    """One fork server for the tests that leave it alive."""
    found = Children()
    yield found
    await found.close()


@pytest.fixture
async def own() -> AsyncIterator[Children]:
    """Children of a test that ends its fork server."""
    found = Children()
    yield found
    await found.close()


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """The file to which processes of a job write their ids."""
    return tmp_path / "pids"


def result(outcome: object) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return msgspec.json.decode(outcome.result)


def failure(outcome: object) -> Failed:
    assert isinstance(outcome, Failed), outcome
    return outcome


def fork_servers() -> set[int]:
    return {pid for pid in child_pids(os.getpid()) if b"fork_server" in read_proc(pid, "cmdline")}


async def all_written(pids: Path, number: int) -> list[int]:
    await eventually(lambda: len(written_pids(pids)) == number)
    return written_pids(pids)


# -- What a function gets and returns -----------------------------------------------------------------------------


async def test_a_job_gets_its_input_and_its_context_and_returns_json(children):
    found = result(await run(children, "echo", {"text": "héllo"}, tenant_id=3, attempt=4, key="k4"))

    assert {name: found[name] for name in ("text", "tenant", "attempt", "key")} == {
        "text": "héllo", "tenant": 3, "attempt": 4, "key": "k4",
    }  # fmt: skip


async def test_jobs_that_run_at_once_get_each_its_own_result(children):
    found = await asyncio.gather(*(run(children, "echo", {"text": str(number)}) for number in range(8)))

    assert [result(one)["text"] for one in found] == [str(number) for number in range(8)]


async def test_an_async_function_runs_on_a_loop_whose_resources_are_closed(children, caplog):
    caplog.set_level(logging.INFO)

    assert result(await run(children, "asynchronous")) == {"number": 42, "greeting": "hello"}

    assert "closed hello" in caplog.messages


async def test_an_async_function_may_write_a_file(children, tenant):
    ids = {"tenant_id": tenant.pk, "row_id": 5, "fence": 9}

    assert result(await run(children, "writes", {"text": "1, 2, 3"}, **ids)) == 7

    file = await JobFile.async_objects.aget(tenant_id=tenant.pk, job_id=5)
    chunk = await JobFileChunk.async_objects.aget(tenant_id=tenant.pk, job_id=5, attempt=9)
    assert (file.name, file.attempt, file.size, bytes(chunk.data)) == ("numbers.txt", 9, 7, b"1, 2, 3")


async def test_a_job_has_a_process_group_of_its_own_and_nothing_of_the_workers(children):
    assert result(await run(children, "process")) == {
        "leads": True,
        "threads": 1,
        "files": 6,  # input, output twice, the socket to the worker, the shared page, and the list of files itself
        "oom_score_adj": 1000,
        "core": 0,
        "input": "",
    }


async def test_a_function_that_returns_in_two_processes_has_one_result(children):
    assert result(await run(children, "forks")) == "parent"


async def test_what_json_cannot_say_fails_for_good(children):
    for text in ("object", "half", "circle"):
        found = failure(await run(children, "returns", {"text": text}))

        assert (found.code, found.permanent) == ("result_not_json", True)


async def test_a_result_above_the_limit_fails_for_good(children):
    largest = await run(children, "returns", {"text": "text", "number": LARGEST_RESULT - 2})
    found = failure(await run(children, "returns", {"text": "text", "number": LARGEST_RESULT - 1}))

    assert len(largest.result) == LARGEST_RESULT
    assert (found.code, found.permanent) == ("result_too_large", True)
    assert f"{LARGEST_RESULT + 1:,} bytes" in found.detail


@pytest.mark.parametrize("given", [b'{"number": "x"}', b'{"other": 1}', b"{"])
async def test_input_that_does_not_fit_fails_for_good(children, given: bytes):
    found = failure(await run(children, "echo", given))

    assert (found.code, found.permanent) == ("invalid_input", True)


async def test_a_kind_that_the_process_does_not_know_may_be_tried_again(children):
    found = failure(await run(children, "registered_later"))

    assert (found.code, found.permanent) == ("unknown_kind", False)


# -- Progress and cancellation --------------------------------------------------------------------------------------


async def test_progress_is_seen_while_the_job_runs_and_its_last_value_at_the_end(children):
    seen: list[tuple[int, int | None, str]] = []

    done = result(
        await run(children, "steps", {"number": 100_000, "password": "x"}, progress=lambda *one: seen.append(one))
    )

    assert seen[-1] == (done, 100_000, f"step {done} password=[redacted]")
    assert seen == sorted(seen)


async def test_a_job_that_reports_without_end_is_seen_a_few_times_only_and_ends_when_it_is_canceled(children):
    seen: list[int] = []
    cancelled = asyncio.Event()

    def progress(done: int, total: int | None, message: str) -> None:
        seen.append(done)
        if len(seen) == 3:
            cancelled.set()

    assert await run(children, "steps", progress=progress, cancelled=cancelled) == Canceled()
    assert len(seen) <= 4
    assert seen[-1] > 1000


async def test_a_canceled_job_that_has_no_checkpoint_is_killed_after_a_while(children, pids, monkeypatch):
    monkeypatch.setattr(child_processes, "CANCEL_GRACE", 0.1)
    cancelled = asyncio.Event()
    running = asyncio.create_task(run(children, "hangs", {"path": str(pids)}, cancelled=cancelled))
    await all_written(pids, 1)

    cancelled.set()

    assert await running == Canceled()
    assert living(written_pids(pids)) == []


async def test_a_job_that_was_canceled_already_is_not_started(children, pids):
    cancelled = asyncio.Event()
    cancelled.set()

    assert await run(children, "hangs", {"path": str(pids)}, cancelled=cancelled) == Canceled()
    assert not pids.exists()


# -- Killed as a whole ------------------------------------------------------------------------------------------------


async def test_a_function_that_hangs_and_ignores_signals_is_killed_at_its_time_limit(children, pids):
    found = failure(await run(children, "hangs", {"path": str(pids)}, timeout=0.5))

    assert (found.code, found.permanent) == ("timed_out", False)
    assert "0.5 s" in found.detail
    assert len(written_pids(pids)) == 1
    assert living(written_pids(pids)) == []


@pytest.mark.parametrize("how", ["returns", "dies"])
async def test_what_a_job_leaves_behind_is_killed_when_it_ends(children, pids, how):
    await run(children, "family", {"path": str(pids), "text": how})

    assert len(written_pids(pids)) == FAMILY
    assert living(written_pids(pids)) == []


async def test_a_lost_lease_kills_the_job_and_its_descendants_at_once(children, pids):
    kill = asyncio.Event()
    running = asyncio.create_task(run(children, "family", {"path": str(pids), "text": "hangs"}, kill=kill))
    family = await all_written(pids, FAMILY)
    assert living(family) == family

    kill.set()

    assert await running == Canceled()
    assert living(family) == []


async def test_a_job_that_is_killed_while_its_process_begins_ends_as_well(children):
    await run(children, "echo")
    servers = fork_servers()

    for _ in range(5):
        kill = asyncio.Event()
        asyncio.get_running_loop().call_soon(kill.set)
        assert await run(children, "hangs", {"path": "/dev/null"}, kill=kill) == Canceled()

    assert fork_servers() == servers  # it did its work: nobody had to kill it


async def test_the_descendants_of_another_job_are_left_alone(children, tmp_path):
    kill, mine, others = asyncio.Event(), tmp_path / "mine", tmp_path / "others"
    running = asyncio.create_task(run(children, "family", {"path": str(others), "text": "hangs"}, kill=kill))
    family = await all_written(others, FAMILY)

    await run(children, "family", {"path": str(mine), "text": "returns"})

    assert living(family) == family
    kill.set()
    await running


async def test_a_worker_that_stops_kills_its_jobs(own, pids):
    running = asyncio.create_task(run(own, "family", {"path": str(pids), "text": "hangs"}))
    family = await all_written(pids, FAMILY)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await own.close()

    assert living(family) == []
    assert failure(await run(own, "echo")).code == "process_not_started"


async def child_worker(kind: str, **given: Any) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "tests.queueing.child_worker", kind, msgspec.json.encode(given))
    return await asyncio.create_subprocess_exec(
        *command, cwd=PROJECT, env=os.environ | {"PYTHONPATH": PYTHONPATH}, stdout=asyncio.subprocess.PIPE
    )


async def test_a_worker_that_is_killed_takes_its_jobs_with_it(pids):
    worker = await child_worker("family", path=str(pids), text="hangs")
    family = await all_written(pids, FAMILY)
    [server] = child_pids(worker.pid)

    worker.kill()
    await worker.wait()

    await eventually(lambda: living([server, *family]) == [], within=LONG)


async def test_a_process_ends_even_if_the_fork_server_and_the_worker_die_at_once(pids):
    worker = await child_worker("hangs", path=str(pids))
    await all_written(pids, 1)
    [server] = child_pids(worker.pid)

    worker.send_signal(signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)

    await eventually(lambda: living(written_pids(pids)) == [], within=LONG)
    worker.kill()
    await worker.wait()


async def test_a_worker_on_uvloop_runs_jobs_and_ends_in_order(pids):
    worker = await child_worker("family", path=str(pids), text="returns")
    said, _ = await worker.communicate()

    assert said.decode() == f"{Succeeded(b'null')}\n"
    assert worker.returncode == 0
    assert living(written_pids(pids)) == []


# -- Memory ----------------------------------------------------------------------------------------------------------


async def test_a_job_that_needs_more_memory_than_its_limit_fails(children):
    found = failure(await run(children, "eats", memory=64 * MIB))

    assert (found.code, found.permanent) == ("out_of_memory", False)
    assert "bytearray(MIB)" in found.traceback


async def test_a_job_whose_processes_need_more_memory_together_is_killed(children):
    found = failure(await run(children, "feeds", {"number": 4}, memory=64 * MIB))

    assert found.code == "out_of_memory"
    assert "64 MiB" in found.detail


async def test_memory_that_processes_of_a_job_share_counts_once(children):
    assert result(await run(children, "shares", {"number": 4}, memory=64 * MIB)) == "done"


# -- Errors and deaths -------------------------------------------------------------------------------------------------


async def test_an_error_that_cannot_be_pickled_is_told_with_its_text_and_without_secrets(children):
    found = failure(await run(children, "raises", {"text": "hunter2"}))

    assert (found.code, found.permanent) == ("error", False)
    assert "Unpicklable: it broke: password=[redacted]" in found.detail
    assert "in raises" in found.traceback
    assert "hunter2" not in found.traceback


async def test_an_error_without_text_is_told_by_its_name(children):
    assert "Unspeakable" in failure(await run(children, "raises_unspeakable")).detail


async def test_a_job_may_fail_for_good_with_a_code_of_its_own(children):
    found = await run(children, "gives_up", {"number": 9})

    assert found == Failed("no_shelf", "there is no shelf 9", permanent=True)


async def test_a_job_may_name_the_time_of_its_next_attempt(children):
    assert await run(children, "waits_for_stock") == Failed("no_stock", "none left", after=30.0)


async def test_an_attempt_that_an_outage_of_the_database_ended_does_not_count_in_a_process_either(children):
    assert await run(children, "outage", {"number": free_port()}) == Interrupted()


async def test_another_database_that_is_away_fails_the_attempt(children):
    outcome = await run(children, "elsewhere", {"number": free_port()})

    assert isinstance(outcome, Failed)
    assert (outcome.code, "refused" in outcome.detail) == ("error", True)


async def test_a_function_that_leaves_the_interpreter_has_failed(children):
    assert failure(await run(children, "leaves", {"number": 0})).detail == "SystemExit: 0"


@pytest.mark.parametrize("status", [0, 3])
async def test_a_process_that_exits_without_a_result_has_died(children, status: int):
    found = failure(await run(children, "exits", {"number": status}))

    assert (found.code, found.permanent) == ("process_died", False)
    assert f"status {status}" in found.detail


async def test_a_process_that_crashes_has_died_and_the_log_says_where(children, caplog):
    caplog.set_level(logging.INFO)

    found = failure(await run(children, "crashes"))

    assert (found.code, "SIGSEGV" in found.detail) == ("process_died", True)
    assert any("in crashes" in message for message in caplog.messages)


async def test_a_process_that_somebody_kills_has_died(children, pids):
    running = asyncio.create_task(run(children, "hangs", {"path": str(pids)}))
    [pid] = await all_written(pids, 1)

    os.kill(pid, signal.SIGKILL)

    assert "SIGKILL" in failure(await running).detail


async def test_a_process_that_closes_its_files_and_works_on_is_killed(children, monkeypatch):
    monkeypatch.setattr(child_processes, "EXIT_LIMIT", 0.1)

    found = failure(await run(children, "closes", {"number": 60}))

    assert found.code == "process_died"
    assert "closed its socket" in found.detail


async def test_a_process_that_closes_its_files_and_returns_has_died(children):
    assert failure(await run(children, "closes")).code == "process_died"


# -- Output ------------------------------------------------------------------------------------------------------------


def output_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that processes printed."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == output.__name__ and record.levelno == logging.INFO
    ]


async def test_output_goes_to_the_log_without_secrets_and_names_its_job(children, caplog):
    caplog.set_level(logging.INFO)

    await run(children, "prints", {"text": "hunter2-hunter2", "password": "sk_live_0123456789"})

    assert output_of(caplog) == [
        "Authorization: Bearer [redacted]",
        "password=[redacted]",
        "sk_live_[redacted]",
        r"postgres://user:[redacted]@host/\udcff",
    ]
    lines = [record for record in caplog.records if record.name == "queueing.jobs.processes.output"]
    assert {(record.kind, record.tenant, record.attempt) for record in lines} == {("child.prints", 7, 2)}


async def test_what_the_kind_calls_a_secret_is_shown_nowhere(children, caplog):
    caplog.set_level(logging.INFO)
    seen: list[str] = []

    found = await run(children, "keeps_secret", {"password": "swordfish"}, progress=lambda *one: seen.append(one[2]))

    assert output_of(caplog) == ["it is [redacted]"]
    assert seen == ["with [redacted]"]
    assert failure(found).detail == "not with [redacted]"


async def test_the_log_of_a_job_is_the_workers_with_level_fields_and_traceback(children, caplog):
    caplog.set_level(logging.INFO)

    await run(children, "logs", {"text": "hunter2"})

    note, error = caplog.records
    assert (note.name, note.levelname, note.shelf) == ("queueing.jobs", "WARNING", 7)
    assert note.getMessage() == "note password=[redacted]"
    assert note.api_key == "[redacted]"
    assert (error.name, error.levelname) == ("shop.stock", "ERROR")
    assert "counted badly\nTraceback" in error.getMessage()
    assert "token=[redacted]" in error.getMessage()


def test_the_log_of_a_job_on_the_loop_keeps_fields_of_its_records_beside_the_job(caplog):
    log = kinds.JobLog(logging.getLogger("queueing.jobs"), {"kind": "shop.greet"})

    log.warning("counted", extra={"shelf": 7})

    [record] = caplog.records
    assert (record.kind, record.shelf) == ("shop.greet", 7)


@pytest.mark.parametrize("kind", ["chats", "logs_much"])
async def test_a_job_that_writes_too_much_still_ends_and_its_log_is_bounded(children, caplog, kind):
    caplog.set_level(logging.INFO)

    assert result(await run(children, kind, {"number": 2000, "text": "x" * 1023})) == "done"

    lines = [message for message in caplog.messages if message != "more output of this attempt is dropped"]
    assert output.OUTPUT_LIMIT * 0.9 < sum(map(len, lines)) < output.OUTPUT_LIMIT + output.LINE_LIMIT
    assert len(caplog.messages) == len(lines) + 1


async def test_the_lines_of_a_job_are_counted_as_well_and_long_ones_are_cut(children, caplog):
    caplog.set_level(logging.INFO)

    await run(children, "chats", {"number": output.LINES_LIMIT + 500, "text": "x"})
    short = len(output_of(caplog))
    caplog.clear()
    await run(children, "chats", {"number": 1, "text": "x" * 100_000})

    assert short == output.LINES_LIMIT
    assert list(map(len, output_of(caplog))) == [output.LINE_LIMIT]


# -- The fork server ----------------------------------------------------------------------------------------------------


async def test_a_worker_without_such_jobs_has_no_fork_server():
    before = child_pids(os.getpid())
    children = Children()

    assert child_pids(os.getpid()) == before
    await children.close()


async def test_the_fork_server_has_one_thread_and_no_connection(children):
    await run(children, "asynchronous")
    [pid] = fork_servers()
    server = Path(f"/proc/{pid}")

    sockets = [os.readlink(one) for one in (server / "fd").iterdir() if os.readlink(one).startswith("socket:")]
    assert len(list((server / "task").iterdir())) == 1
    assert len(sockets) == 1


async def test_nothing_is_left_open_in_the_worker(children, pids):
    await run(children, "echo")
    before = len(os.listdir("/proc/self/fd"))

    for kind in ("echo", "exits", "closes", "chats"):
        await run(children, kind)
    await run(children, "hangs", {"path": str(pids)}, timeout=0.1)

    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_fork_server_that_is_killed_takes_its_jobs_with_it_and_is_started_again(own, pids):
    before = fork_servers()
    running = asyncio.create_task(run(own, "family", {"path": str(pids), "text": "hangs"}))
    family = await all_written(pids, FAMILY)
    in_its_group = family[:2]

    [server] = fork_servers() - before
    os.kill(server, signal.SIGKILL)

    assert failure(await running).code == "process_died"
    await eventually(lambda: living(in_its_group) == [], within=LONG)
    assert result(await run(own, "echo", {"text": "again"}))["text"] == "again"
    for pid in living(family):  # of what left the group nobody knows any more
        os.kill(pid, signal.SIGKILL)


async def test_a_fork_server_that_hangs_is_killed_and_started_again(own, pids, monkeypatch):
    before = fork_servers()
    monkeypatch.setattr(child_processes, "KILL_LIMIT", 0.2)
    running = asyncio.create_task(run(own, "hangs", {"path": str(pids)}, timeout=0.5))
    await all_written(pids, 1)

    [server] = fork_servers() - before
    os.kill(server, signal.SIGSTOP)

    assert failure(await running).code == "timed_out"
    await eventually(lambda: living(written_pids(pids)) == [], within=LONG)
    assert result(await run(own, "echo", {"text": "again"}))["text"] == "again"


async def test_a_fork_server_that_cannot_load_the_apps_fails_the_job_and_is_tried_again_later(own, monkeypatch):
    def lost(context: object, given: object) -> None: ...

    lost.__module__ = "shop.no_such_module"
    kind = kinds.Kind(name="child.lost", function=lost, input=child_kinds.Given, runs="process")
    monkeypatch.setitem(kinds.KINDS, "child.lost", kind)
    monkeypatch.setattr(child_processes, "RESTART_PAUSE", 60.0)

    first, second = await run(own, "echo"), await run(own, "echo")
    monkeypatch.delitem(kinds.KINDS, "child.lost")
    monkeypatch.setattr(child_processes, "RESTART_PAUSE", 0.0)

    assert first == second
    assert (failure(first).code, failure(first).permanent) == ("process_not_started", False)
    assert result(await run(own, "echo", {"text": "now"}))["text"] == "now"


async def test_a_fork_server_that_does_not_become_ready_is_given_up(own, monkeypatch):
    monkeypatch.setattr(forking, "START_LIMIT", 0.01)

    assert "not ready within 0.01 s" in failure(await run(own, "echo")).detail
