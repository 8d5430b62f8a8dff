"""A program under test as a child process: `up` and its parts."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from registry.servers.processes import descendants, read_proc
from tests import secret_forms

PROJECT = Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join([str(PROJECT / "tests" / "bed" / "child"), str(PROJECT)])  # with short limits
EXIT_LIMIT = 10.0  # seconds from the signal to the end of `up`, as promised
LIMIT = 120.0  # seconds for what takes one or two, and very much longer beside other tests on a slow machine


class Running:
    """A program whose output goes to files, so that nobody has to drain it; killed at the end of the test."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
            self.popen = subprocess.Popen(command, cwd=PROJECT, env=environ, stdout=out, stderr=log)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until[Answer](self, question: Callable[[], Answer]) -> Answer:
        """The first answer that is true, within LIMIT; what the program said, otherwise."""
        deadline = time.monotonic() + LIMIT
        while not (answer := question()):
            assert time.monotonic() < deadline and self.popen.poll() is None, f"{self.out}\n{self.log}"
            time.sleep(0.01)
        return answer

    def says(self, text: str, times: int = 1) -> bool:
        return self.until(lambda: self.log.count(text) >= times)

    def url(self) -> str:
        return self.until(lambda: self.out.partition("\n")[0].removeprefix("ready ") if "\n" in self.out else "")

    def number(self, name: str, word: str = "pid", time: int = 1) -> int:
        """What part `name` said after `word`, the nth time."""
        lead = f"[{name}] {word} "
        self.says(lead, time)
        return int(self.log.split(lead)[time].split()[0])

    def panel(self) -> dict[str, str]:
        """What a demo says of itself, once it is prepared."""
        self.until(lambda: "the data stays" in self.out)
        return dict(re.findall(r"│ (\w[\w ]*?) {2,}(\S+)", self.out))

    def exit(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Its status, and the seconds it took to leave."""
        started = time.monotonic()
        self.popen.send_signal(number)
        return self.popen.wait(LIMIT), time.monotonic() - started

    def close(self) -> None:
        if self.popen.poll() is None:
            left = descendants(self.popen.pid)
            for pid in [self.popen.pid, *left]:
                with suppress(ProcessLookupError):  # a short one has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            self.popen.wait(LIMIT)
            for pid in left:  # they write into the folder that goes next
                gone_within_limit(pid)
        for data in (self.folder, self.folder / "data"):
            assert secret_forms.in_log(data, self.log) == []


def is_alive(pid: int) -> bool:
    """Whether it runs. A zombie does not: how soon its new parent, process 1, reaps it is that one's affair."""
    state = read_proc(pid, "stat").rpartition(b")")[2].split()[:1]
    return state not in ([], [b"Z"], [b"X"])


def gone_within_limit(pid: int) -> bool:
    deadline = time.monotonic() + LIMIT
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def processes_naming(data: Path) -> list[int]:
    """Everything that was started for this data folder."""
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    text = str(data).encode()
    return [number for number in numbers if any(text in read_proc(number, name) for name in ("environ", "cmdline"))]


def clean_environment(**own: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return {**kept, "PYTHONPATH": PYTHONPATH, **own}
