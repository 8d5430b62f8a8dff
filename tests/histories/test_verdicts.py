"""Each seed ends with a verdict, whatever happens in its run, and what was recorded is kept where it failed."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.bed.running import PROJECT, clean_environment
from tests.histories import __main__ as command
from tests.histories import entries
from tests.histories.__main__ import Runs
from tests.histories.entries import Line, Struck
from tests.histories.phases import STRUCK, Phases
from tests.histories.run import Run

STRIKE = Struck(name="kill: web", began=1.0, healed=2.0)


class Broken(Run):
    """Its recording ends with an error, or never."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(1)
        self.error = error

    async def record(self) -> list[Line]:
        self.recorder.add(STRIKE)
        if self.error:
            raise self.error
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody ends it")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "KEPT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.CancelledError(), BaseExceptionGroup("", [GeneratorExit()])])
async def test_an_error_of_the_run_is_its_verdict(kept: Path, error: BaseException):
    assert not await Runs([1], Console(quiet=True))._one(Broken(error))
    assert entries.read(kept / "1.jsonl") == [STRIKE]


async def test_a_run_that_is_interrupted_from_outside_has_no_verdict(kept: Path):
    running = asyncio.create_task(Runs([1], Console(quiet=True))._one(Broken(None)))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [*kept.iterdir()]


def test_the_seconds_of_all_strikes_are_one_sum():
    times = iter([0.0, 3.0, 5.0, 5.2, 12.0, 13.0])
    phases = Phases("starting", clock=lambda: next(times))
    for what, under in (("kill: web", STRUCK), ("load", ""), ("pause: web", STRUCK), ("healing", "")):
        phases.begin(what, under=under)

    assert (phases.now, str(phases)) == ("healing", "starting 3, strikes 9, healing 1")


@pytest.mark.parametrize("program", ["tests.histories", "tests.chaos"])
def test_a_program_that_starts_services_needs_no_servers_itself(program: str):
    asked = subprocess.run([sys.executable, "-m", program, "--help"], cwd=PROJECT, env=clean_environment())

    assert asked.returncode == 0
