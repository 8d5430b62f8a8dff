"""Periodic tasks of several hosts: each runs once per interval, whoever enqueued it and whatever their clocks say."""

import asyncio
from datetime import timedelta

import pytest
import time_machine
from django.db.models.functions import Now

from queueing.models import ChoreRun
from queueing.work import chore_runs, entry
from registry.data import chores, database
from registry.data.clock import now
from registry.data.lease import HeldLease
from registry.data.loop import background

HOUR = 3600


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs of the only registered chore, which is due every hour."""
    done: list[str] = []

    async def work() -> None:
        done.append("began")
        await asyncio.sleep(0.05)
        done.append("ended")

    monkeypatch.setattr(chores, "CHORES", {"work": chores.Chore(HOUR, work)})
    return done


async def run_by(hosts: int) -> None:
    async def one() -> None:
        async with database.own_connection():
            await entry._run_chore("work")

    await asyncio.gather(*(background(one()) for _ in range(hosts)))


async def began(ago: timedelta, *, finished: bool = True) -> None:
    await ChoreRun.async_objects.acreate(
        name="work", started_at=Now() - ago, finished_at=Now() - ago + timedelta(seconds=1) if finished else None
    )


async def test_a_chore_that_several_hosts_enqueued_runs_once(runs: list[str]):
    await run_by(hosts=5)
    await run_by(hosts=1)

    assert runs == ["began", "ended"]


async def test_a_chore_is_due_an_interval_after_its_last_run_of_any_host(runs: list[str]):
    assert await chore_runs.due(["work"]) == ["work"]  # it never ran
    await began(timedelta(seconds=HOUR - 30))
    assert await chore_runs.due(["work"]) == []
    await ChoreRun.async_objects.aupdate(started_at=Now() - timedelta(seconds=HOUR))
    assert await chore_runs.due(["work"]) == ["work"]


@pytest.mark.parametrize("wrong", [-60, 60])
async def test_a_wrong_clock_of_a_host_changes_nothing_about_that(runs: list[str], wrong: int):
    await began(timedelta(seconds=HOUR - 30))
    with time_machine.travel(now() + timedelta(seconds=wrong)):
        assert await chore_runs.due(["work"]) == []
    await ChoreRun.async_objects.aupdate(started_at=Now() - timedelta(seconds=HOUR + 30))
    with time_machine.travel(now() + timedelta(seconds=wrong)):
        assert await chore_runs.due(["work"]) == ["work"]


async def test_a_chore_that_a_process_runs_is_not_due_for_others_however_long_it_takes(runs: list[str]):
    await began(timedelta(seconds=2 * HOUR), finished=False)
    lease = HeldLease("chore work")

    assert await lease.hold()
    assert await chore_runs.due(["work"]) == []
    await run_by(hosts=2)
    assert runs == []
    assert await chore_runs.due(["work"], holder=lease.holder) == ["work"]


@pytest.mark.parametrize(
    ("seconds", "due"), [(chore_runs.RUN_AGAIN_AFTER - 20, []), (chore_runs.RUN_AGAIN_AFTER + 1, ["work"])]
)
async def test_a_run_that_ended_with_its_host_is_repeated_after_a_minute(
    runs: list[str], seconds: float, due: list[str]
):
    await began(timedelta(seconds=seconds), finished=False)

    assert await chore_runs.due(["work"]) == due
