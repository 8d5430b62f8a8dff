"""What a seed decides, what passed already, and the strikes that need something of the machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bed.clocks import LIBRARIES, VARIABLE, reset_clock, set_clock
from tests.bed.running import PYTHONPATH
from tests.histories.__main__ import Passed
from tests.histories.disks import filled, may_mount, small_disks
from tests.histories.run import Run
from tests.histories.strikes import STRIKES, no_clocks, no_disks

CLOCK = "import time; print(time.time(), time.monotonic())"


def test_a_seed_decides_what_is_struck_and_when():
    assert Run(7).strikes == Run(7).strikes
    assert Run(7).strikes != Run(8).strikes


def test_a_hundred_seeds_plan_every_strike_and_some_purges():
    runs = [Run(seed) for seed in range(1, 101)]

    assert {planned.strike.name for run in runs for planned in run.strikes} == {strike.name for strike in STRIKES}
    assert min(len(run.strikes) for run in runs) >= 3
    assert 10 < sum(run.purges_after is not None for run in runs) < 40


def test_seeds_that_passed_are_known_for_this_commit_only(tmp_path: Path):
    file = tmp_path / "passed.json"
    Passed(file, lambda: "one").add(3)
    changes = Passed(file, lambda: "")
    changes.add(4)

    assert Passed(file, lambda: "one").seeds == [3]
    assert Passed(file, lambda: "other").seeds == []
    assert Passed(file, lambda: "").seeds == []


def test_a_seed_does_not_pass_where_files_changed_while_it_ran(tmp_path: Path):
    file, commits = tmp_path / "passed.json", iter(["one", ""])
    Passed(file, lambda: next(commits)).add(3)

    assert Passed(file, lambda: "one").seeds == []


@pytest.mark.skipif(not may_mount(), reason=no_disks())
def test_a_filled_disk_takes_not_one_byte_more_until_it_is_healed(tmp_path: Path):
    with small_disks(tmp_path):
        spill = tmp_path / "spill"
        with filled(spill), pytest.raises(OSError, match="No space left"):
            (spill / "record").write_bytes(b"x" * 5000)
        (spill / "record").write_bytes(b"x" * 5000)

        assert (spill / "record").read_bytes() == b"x" * 5000


@pytest.mark.skipif(not LIBRARIES, reason=no_clocks())
@pytest.mark.parametrize("seconds", [-60, 60])
def test_a_program_whose_clock_is_set_begins_again_under_it(tmp_path: Path, seconds: int):
    folder = tmp_path / "clocks"
    set_clock(folder, "struck", seconds)

    struck, other = clocks(folder, "struck"), clocks(folder, "other")
    reset_clock(folder, "struck")
    healed = clocks(folder, "struck")

    assert struck[0] == pytest.approx(time.time() + seconds, abs=30)
    assert struck[1] == pytest.approx(time.monotonic(), abs=30)
    assert [other[0], healed[0]] == pytest.approx([time.time()] * 2, abs=30)


def clocks(folder: Path, word: str) -> tuple[float, float]:
    """What a program says of the time of day, and of the time since the machine was started."""
    environ = {**os.environ, VARIABLE: str(folder), "PYTHONPATH": PYTHONPATH}
    said = subprocess.check_output([sys.executable, "-c", CLOCK, word], env=environ, text=True)
    wall, monotonic = map(float, said.split())
    return wall, monotonic
