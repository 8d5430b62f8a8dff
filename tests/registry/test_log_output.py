"""A reader of the log that stands still delays nothing; what it does not take is kept up to a limit, then counted."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.servers.processes import holds_within
from registry.telemetry import metrics, output
from registry.telemetry.output import LogOutput

PROJECT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds until a thread that should go on has gone on
MANY = 300  # lines of 1 kB: more than a pipe of 64 kB takes


def numbered(number: int) -> bytes:
    return b"%06d %s\n" % (number, b"x" * 1000)


@pytest.fixture(params=["pipe", "socket"])
def reader_and_output(request) -> Iterator[tuple[int, LogOutput]]:
    if request.param == "socket":
        ours, theirs = socket.socketpair()
        reading, writing = ours.detach(), theirs.detach()
    else:
        reading, writing = os.pipe()
    yield reading, LogOutput(writing, lambda number: b"%d dropped\n" % number)
    os.close(writing)
    os.close(reading)


def read(reading: int, until: Callable[[bytes], bool]) -> bytes:
    said = b""
    while not until(said):
        said += os.read(reading, 65536)
    return said


def test_lines_that_the_reader_does_not_take_wait_and_come_in_order(reader_and_output):
    reading, out = reader_and_output
    for number in range(MANY):
        out.write(numbered(number))

    expected = b"".join(numbered(number) for number in range(MANY))
    assert read(reading, lambda said: len(said) >= len(expected)) == expected
    out.flush(PATIENCE)
    assert "log output" not in {thread.name for thread in threading.enumerate()}


def test_beyond_the_limit_lines_are_dropped_counted_and_the_next_reader_hears_how_many(reader_and_output, monkeypatch):
    reading, out = reader_and_output
    monkeypatch.setattr(output, "LIMIT", 100_000)
    before = metrics.LOG_DROPPED._value.get()
    for number in range(2 * MANY):
        out.write(numbered(number))
    dropped = int(metrics.LOG_DROPPED._value.get() - before)

    said = read(reading, lambda said: said.endswith(b"dropped\n")).splitlines(keepends=True)
    assert dropped > 0
    assert said == [*map(numbered, range(2 * MANY - dropped)), b"%d dropped\n" % dropped]
    out.flush(PATIENCE)
    out.write(b"later\n")
    assert os.read(reading, 100) == b"later\n"


def test_a_child_that_is_forked_meanwhile_writes_its_own_lines_and_none_of_its_parents(reader_and_output):
    reading, out = reader_and_output
    for number in range(MANY):
        out.write(numbered(number))
    child = os.fork()
    if child == 0:
        try:
            out.write(b"child\n")
            out.flush(PATIENCE)
        finally:
            os._exit(0)

    size = len(numbered(0)) * MANY + len(b"child\n")
    said = read(reading, lambda said: len(said) >= size)
    os.waitpid(child, 0)
    out.flush(PATIENCE)
    assert said.count(b"child\n") == 1
    assert (
        sum(line.count(b"x" * 1000) for line in said.splitlines()) >= MANY - 1
    )  # one line may be cut in two by the child's


def test_a_closed_reader_is_no_error():
    reading, writing = os.pipe()
    out = LogOutput(writing)
    os.close(reading)
    out.write(b"nobody reads\n")
    os.close(writing)


def test_a_file_is_appended_to_where_it_is(tmp_path: Path):
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        LogOutput(file.fileno()).write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


LOGS = """
import os, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "registry.settings"
import django; django.setup()
import logging
for number in range(400): logging.getLogger("some.room").warning("%s", "x" * 1000)
print("done", flush=True)
sys.stdin.read()
"""


def test_a_process_whose_log_nobody_reads_goes_on_and_ends_in_time():
    process = subprocess.Popen(
        [sys.executable, "-c", LOGS], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        assert process.stdout.readline() == b"done\n"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


async def test_up_that_is_suspended_delays_no_line_of_its_parts_and_passes_them_on_afterwards(tmp_path: Path):
    """Two processes as `up` and a part are: the first reads what the second logs."""
    log = tmp_path / "log"
    code = f"""
import asyncio, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "registry.settings"
import django; django.setup()
from registry.servers.child import Part, Process
async def main():
    process = Process(Part("part", (sys.executable, "-c", {PART!r}, {str(tmp_path / "wrote")!r})), dict(os.environ))
    print(process.pid, flush=True)
    await process.ended()
asyncio.run(main())
"""
    with log.open("wb") as file:
        up = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, stderr=file)
    assert up.stdout
    try:
        await asyncio.to_thread(up.stdout.readline)
        up.send_signal(signal.SIGSTOP)
        assert await asyncio.to_thread(holds_within, PATIENCE, (tmp_path / "wrote").exists)
        up.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(up.wait, PATIENCE) == 0
    finally:
        up.kill()
        up.wait()
        up.stdout.close()
    assert log.read_bytes().count(b"[part] ") == MANY


PART = f"""
import pathlib, sys, time
from registry.telemetry.output import stderr
for number in range({MANY}): stderr.write(b"%06d %s\\n" % (number, b"x" * 1000))
pathlib.Path(sys.argv[1]).touch()
stderr.flush(10)
"""
