"""The laboratory: what a seed decides, the refusal where a machine lacks something, slow links, and in depth a run of it."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry.servers.processes import holds_within
from tests.bed.running import PROJECT
from tests.depth import DEEP
from tests.lab import needs
from tests.lab.laboratory import WAYS
from tests.lab.load import longest_pause
from tests.lab.network import DELAY, HELD, PREFIX
from tests.lab.relay import Way
from tests.lab.strikes import plan, strikes
from tests.waiting import SCALE

RUN_LIMIT = 900.0 * SCALE  # seconds; it takes four minutes on two busy cores, most of them to start
REFUSED = "import os, sys; from tests.lab.__main__ import start; os.geteuid() or os.seteuid(65534); sys.exit(start([]))"


def test_a_seed_decides_what_is_struck_when_and_for_how_long():
    first, again, other = (plan(seed, number=20, way="direct") for seed in (7, 7, 8))

    assert first == again != other
    assert len({one.strike.name for one in first}) == len(first) == 20


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_of_many_strikes_has_every_one(way: str):
    every = {one.name for one in strikes(way)}

    assert {one.strike.name for one in plan(1, number=len(every), way=way)} == every
    assert any("HAProxy" in name for name in every) is (way == "haproxy")


def test_strikes_can_be_named():
    chosen = plan(1, number=5, way="direct", held=60.0, only=["cut from PostgreSQL: worker host"])

    assert [(one.strike.name, one.held) for one in chosen] == [("cut from PostgreSQL: worker host", 60.0)]


def test_it_refuses_without_root_and_says_why():
    done = refused(REFUSED)

    assert done.returncode == 2
    assert "root: it makes network namespaces" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_says_which_packages_are_missing(tmp_path: Path):
    done = refused("import sys; from tests.lab.__main__ import start; sys.exit(start([]))", PATH=str(tmp_path))

    assert done.returncode == 2
    for package in ("etcd-server", "haproxy", "iproute2", "patroni"):
        assert f" {package}" in done.stderr
    assert "apt-get install" in done.stderr


def refused(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=PROJECT, env={**os.environ, **environ}, capture_output=True, text=True)


def test_a_slow_link_delays_every_packet_holds_some_and_keeps_their_order():
    way, sent = Way(random.Random(1)), [(number / 1000, str(number).encode()) for number in range(1000)]
    for moment, packet in sent:
        way.take(packet, moment)

    assert way.due(DELAY / 1000 - 0.001) == []
    due = [at for at, _ in way.waiting]
    late = [at - moment for at, (moment, _) in zip(due, sent, strict=True)]
    assert due == sorted(due)
    assert min(late) == pytest.approx(DELAY / 1000)
    assert max(late) == pytest.approx((DELAY + HELD) / 1000)
    assert way.due(10.0) == [packet for _, packet in sent]


@pytest.mark.parametrize(
    ("began", "ended", "longest"),
    [(0.0, 9.0, 4.0), (0.0, 1.5, 1.0), (3.0, 4.0, 4.0), (7.0, 9.0, 1.0), (20.0, 30.0, 0.0)],
)
def test_the_longest_pause_is_one_that_lies_partly_in_the_time(began: float, ended: float, longest: float):
    assert longest_pause([7.0, 0.0, 1.0, 2.0, 6.0, 8.0], began, ended) == longest


LACKS = needs.missing()


@pytest.mark.skipif(not DEEP, reason="several minutes: part of the deep run")
@pytest.mark.skipif(bool(LACKS), reason=f"the laboratory needs {'; '.join(LACKS)}")
@pytest.mark.parametrize("way", WAYS)
def test_strikes_lose_nothing_book_nothing_twice_and_leave_nothing(way: str):
    command = [sys.executable, "-m", "tests.lab", "--seed", "7", "--strikes", "3", "--rate", "30", "--way", way]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=RUN_LIMIT)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, twice 0" in done.stdout and "books equal" in done.stdout
    assert left_of() == []


@pytest.mark.skipif(not DEEP, reason="part of the deep run, as all that builds a laboratory")
@pytest.mark.skipif(bool(LACKS), reason=f"the laboratory needs {'; '.join(LACKS)}")
def test_it_leaves_nothing_where_it_is_interrupted_twice():
    command = [sys.executable, "-m", "tests.lab", "--seed", "7"]
    lab = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert holds_within(RUN_LIMIT, lambda: any(name.endswith("-worker-2") for name in left_of(lab.pid)))
        for _ in range(2):
            lab.send_signal(signal.SIGINT)
        said, _ = lab.communicate(timeout=RUN_LIMIT)
    finally:
        lab.kill()

    assert lab.returncode == 130 and "interrupted" in said
    assert left_of(lab.pid) == []


def left_of(pid: int | str = "") -> list[str]:
    """Namespaces and mounts of a laboratory, or of all."""
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.splitlines()
    found += Path("/proc/mounts").read_text().splitlines()
    return [name for name in (line.partition(" (")[0] for line in found) if f"{PREFIX}{pid}" in name]
