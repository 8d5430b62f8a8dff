"""What counts as flat, and one short run of everything."""

import os
import subprocess
import sys

import pytest

from tests.bed.running import PROJECT
from tests.depth import DEEP
from tests.soak.readings import Change, Reading, changes


def readings(*values: float) -> list[Reading]:
    return [Reading(float(minute), {"memory": value}) for minute, value in enumerate(values)]


def test_growth_during_the_warm_up_does_not_count():
    [change] = changes(readings(10, 20, 30, 40, 40, 40, 40, 40), begin=3)

    assert change == Change("memory", 40, 40)
    assert change.flat


def test_a_value_that_grows_steadily_is_not_flat():
    [change] = changes(readings(*range(100, 200)), begin=20)

    assert not change.flat
    assert change.ratio == pytest.approx(191.5 / 127.5, abs=0.01)


def test_less_than_half_a_mebibyte_is_no_growth():
    assert Change("size of a table of one row, MiB", 0.02, 0.42).flat
    assert not Change("memory, MiB", 5, 6).flat
    assert not Change("dead per live rows", 0.02, 0.42).flat


def test_a_single_peak_does_not_count():
    [change] = changes(readings(*[10] * 30, 500, *[10] * 30), begin=5)

    assert change.flat


def test_what_is_there_only_later_is_judged_from_then_on():
    found = [*readings(1, 1), *[Reading(float(at), {"memory": 1, "leak": 3}) for at in range(2, 20)]]

    assert {change.name: change.flat for change in changes(found, begin=0)} == {"memory": True, "leak": True}
    assert not Change("leak", 0, 3).flat


@pytest.mark.skipif(not DEEP, reason="a minute: part of the deep run")
def test_a_short_run_reads_every_part_and_finds_nothing_wrong():
    command = [sys.executable, "-m", "tests.soak", "--hours", "0.01", "--rate", "50"]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": "client/src"}, text=True, capture_output=True
    )

    assert "memory of web" in done.stdout, done.stdout + done.stderr
    assert "booked" not in done.stdout
