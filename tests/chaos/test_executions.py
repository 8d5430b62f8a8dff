"""The checks of executions report every fault, and report nothing that is allowed."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from queueing.jobs.decisions import JobClaim
from queueing.jobs.running import RunningJob
from tests.bed.jobs import Nap, nap_in_process
from tests.bed.journal import VARIABLE, Moment, What, encode
from tests.chaos.executions import executions, faults, read


def ran(attempt: int, pid: int, began: float, last: float, *, ended: bool = True) -> list[Moment]:
    end = What.ENDED if ended else What.ALIVE
    return [Moment("a", attempt, pid, What.BEGAN, began), Moment("a", attempt, pid, end, last)]


def verdict(*runs: list[Moment], succeeded: bool = True) -> list[str]:
    found = executions(moment for run in runs for moment in run)
    return [fault.partition(" jobs ")[2].partition(":")[0] for fault in faults(found, {"a"} if succeeded else set())]


def test_a_job_that_ran_once_is_no_fault():
    assert verdict(ran(1, 7, 0.0, 0.2)) == []


def test_a_job_whose_worker_was_killed_may_run_again():
    assert verdict(ran(1, 7, 0.0, 0.1, ended=False), ran(2, 8, 5.0, 5.2)) == []


def test_a_job_whose_outcome_was_not_stored_may_run_again():
    assert verdict(ran(1, 7, 0.0, 0.2), ran(2, 8, 5.0, 5.2)) == []


def test_a_job_that_never_ran_is_seen():
    assert verdict() == ["succeeded, and their function never ended"]


def test_a_job_that_only_began_is_seen_where_it_is_said_to_have_succeeded():
    one = ran(1, 7, 0.0, 0.1, ended=False)

    assert "succeeded, and their function never ended" in verdict(one)
    assert verdict(one, succeeded=False) == []


def test_two_runs_at_the_same_time_are_seen_also_where_the_first_began_last_in_the_journal():
    first, second = ran(1, 7, 0.0, 0.2), ran(2, 8, 0.1, 0.3)

    assert verdict(first, second) == verdict(second, first) == ["ran twice at the same time"]


def test_two_runs_of_one_attempt_are_seen():
    assert verdict(ran(1, 7, 0.0, 0.2), ran(1, 8, 5.0, 5.2)) == ["ran twice as the same attempt"]


def test_a_run_that_began_after_the_success_is_seen():
    assert verdict(ran(1, 7, 0.0, 0.2), ran(2, 8, 5.0, 5.1, ended=False)) == ["began again after they had succeeded"]


def test_the_journal_is_read_back(tmp_path: Path):
    journal = tmp_path / "journal"
    journal.write_bytes(b"".join(encode(moment) + b"\n" for moment in ran(1, 7, 0.0, 0.2)))

    assert read(journal) == executions(ran(1, 7, 0.0, 0.2))
    assert read(tmp_path / "none") == {}


def test_an_attempt_that_was_handed_back_after_it_began_and_the_next_one_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = tmp_path / "journal"
    monkeypatch.setenv(VARIABLE, str(journal))

    for fence in (1, 2):
        nap_in_process(RunningJob(claimed(fence, shown=1), lease=30.0), Nap(number=1, ms=1))

    [several] = read(journal).values()
    assert [one.attempt for one in several] == [1, 2]
    assert list(faults(read(journal), set())) == []


def claimed(fence: int, *, shown: int) -> JobClaim:
    name, at = UUID(int=1), datetime.now(UTC)
    numbers = {"attempt": fence, "tries_from": fence - 1, "max_attempts": 5, "timeout": 60.0, "result_ttl": 60}
    flags = {"cancel_requested": False, "over": False, "cut_off": False}
    times = {"created_at": at, "started_at": at, "run_at": at}
    return JobClaim(
        1, 1, name, "bed.nap.process", "{}", None, **numbers, sequence=2, **times, **flags, shown=shown, position=1
    )
