"""Metric files of several processes: the counts of ended processes are kept, their files are deleted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from registry.edge.metric_files import Processes, fold, read

COUNTS = """
from prometheus_client import Counter, Gauge, Histogram
Counter("paid", "payments", ["how"]).labels("well").inc(3)
Histogram("took", "seconds", buckets=(1, 2)).observe(1.5)
Gauge("sockets", "open", multiprocess_mode="livesum").set(7)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path


def count_in_another_process(folder: Path) -> int:
    """A process that counted something and ended; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTS], env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    )
    assert process.wait(30) == 0
    return process.pid


def scraped(folder: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Processes(folder))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_counts_of_ended_processes_stay_and_their_files_are_removed(folder):
    for _ in range(3):
        count_in_another_process(folder)
        fold(folder, is_alive=lambda _: False)

    assert {path.name for path in folder.glob("*.db")} == {"counter_past.db", "histogram_past.db"}
    found = scraped(folder)
    assert found['paid_total{how="well"}'] == 9
    assert (found['took_bucket{le="1.0"}'], found['took_bucket{le="2.0"}'], found["took_sum"]) == (0, 3, 4.5)
    assert "sockets" not in found


def test_a_living_process_keeps_its_files(folder):
    alive, ended = count_in_another_process(folder), count_in_another_process(folder)

    fold(folder, is_alive=lambda pid: pid == alive)

    assert {path.stem.rpartition("_")[2] for path in folder.glob("*.db")} == {str(alive), "past"}
    assert str(ended) not in "".join(os.listdir(folder))
    found = scraped(folder)
    assert (found['paid_total{how="well"}'], found["sockets"]) == (6, 7)


def test_a_truncated_file_is_ignored(folder):
    pid = count_in_another_process(folder)
    path = folder / f"counter_{pid}.db"
    path.write_bytes(path.read_bytes()[:40])

    fold(folder, is_alive=lambda _: False)

    assert "took_sum" in scraped(folder)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["counter", "gauge_livesum", "histogram"])
def test_the_file_of_a_process_that_starts_at_this_moment_has_no_counts_yet(folder, kind):
    count_in_another_process(folder)
    (folder / f"{kind}_123.db").touch()  # prometheus_client gives it its length next

    assert scraped(folder)["took_sum"] == 1.5
    assert [metric.name for metric in read(folder, {"counter"})] == ["paid"]
