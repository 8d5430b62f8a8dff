"""A part of the service as a child process: start it, pass its log lines on, restart it when it dies. The list of parts is
in plan.py."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from registry.redaction import redact_text
from registry.servers.processes import signal_process
from registry.telemetry import changes
from registry.telemetry.output import stderr

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]
STOP_LIMIT = 7.0  # seconds a part has to finish or hand back; the servers need the rest of the 10 s `up` promises
FIRST_PAUSE = 0.2  # seconds before a part that died is started again
LONGEST_PAUSE = 5.0  # seconds between restarts of a part that dies again and again
STEADY_AFTER = 10.0  # seconds of life after which the next restart waits FIRST_PAUSE again
LONGEST_LINE = 64 * 1024  # bytes of a log line before it is broken
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Part:
    """A child process that is kept running; `handles` are file descriptors it inherits."""

    name: str
    command: tuple[str, ...]
    handles: tuple[int, ...] = ()


class PartState(NamedTuple):
    """A part as operators see it."""

    name: str
    pid: int  # 0: it does not run now
    starts: int


class Process:
    """A running part. Its lines go to the log under its name; its process group ends with it, and it ends with us."""

    def __init__(self, part: Part, environ: dict[str, str], on_line: Callable[[bytes], None] | None = None) -> None:
        self.part = part
        self.started = time.monotonic()
        self.popen = subprocess.Popen(
            part.command,
            cwd=PROJECT,
            env={**environ, "REGISTRY_PROCESS": part.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=part.handles,
            start_new_session=True,
            preexec_fn=dying_with(os.getpid()),
        )
        self.pid = self.popen.pid
        show = lambda line: write_line(part.name, line)  # noqa: E731
        self.readers = [follow(self.popen.stdout, on_line or show), follow(self.popen.stderr, show)]

    async def ended(self) -> int:
        """Wait for its end. Returns the exit status, negative for a signal; kills what is left of its process group."""
        await gone(self.pid)
        self.signal_group(
            signal.SIGKILL
        )  # before wait(): until then the kernel cannot give this process id to another process
        status = self.popen.wait()
        for read in self.readers:
            read()
        return status

    def terminate(self) -> None:
        signal_process(self.pid, signal.SIGTERM)

    def signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def dying_with(parent: int) -> Callable[[], None]:
    """A function for the child to run before exec: the kernel sends it SIGTERM when its parent dies, even by kill -9."""

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare


async def gone(pid: int) -> None:
    """Wait until the process has ended; returns at once if there is none. It need not be our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def follow(pipe, on_line: Callable[[bytes], None]) -> Callable[[], None]:
    """Call `on_line` for each line of a pipe. Returns a function that reads what is left; it may be called at any time."""
    loop = asyncio.get_running_loop()
    os.set_blocking(pipe.fileno(), False)
    pending = bytearray()

    def read() -> None:
        while not pipe.closed:
            try:
                chunk = os.read(pipe.fileno(), LONGEST_LINE)
            except BlockingIOError:
                return
            pending.extend(chunk)
            *lines, rest = pending.split(b"\n")
            if rest and (not chunk or len(rest) > LONGEST_LINE):
                lines, rest = [*lines, rest], bytearray()
            pending[:] = rest
            for line in lines:
                on_line(bytes(line))
            if not chunk:
                loop.remove_reader(pipe.fileno())
                pipe.close()

    loop.add_reader(pipe.fileno(), read)
    return read


def write_line(name: str, line: bytes) -> None:
    """Write a part's line to our stderr, without secrets: tracebacks and servers' messages have not passed the part's own log."""
    if not line.startswith(changes.PREFIX):
        line = redact_text(line.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    stderr.write(b"[%s] %s\n" % (name.encode(), line))


class Keeper:
    """Keeps one part running until told to stop. `on_line` takes the lines of its stdout in place of the log."""

    def __init__(self, part: Part, environ: dict[str, str], on_line: Callable[[bytes], None] | None = None) -> None:
        self.part, self.environ, self.on_line = part, environ, on_line
        self.process: Process | None = None
        self.starts = 0
        self.stopping = asyncio.Event()
        self.task = asyncio.create_task(self.keep())

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def state(self) -> PartState:
        return PartState(self.part.name, self.process.pid if self.process else 0, self.starts)

    async def keep(self) -> None:
        pause = FIRST_PAUSE
        while not self.stopping.is_set():
            lived, ending = await self.live_once()
            if self.stopping.is_set():
                return
            pause = FIRST_PAUSE if lived > STEADY_AFTER else pause
            log.warning("%s ended (%s), starting it again in %.1f s", self.part.name, ending, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def live_once(self) -> tuple[float, str]:
        """Start it and wait for its end. Returns its lifetime in seconds and how it ended."""
        self.starts += 1
        try:
            self.process = Process(self.part, self.environ, self.on_line)
        except OSError as error:  # no memory or no process ids: both are temporary
            return 0.0, str(error)
        status = await self.process.ended()
        lived = time.monotonic() - self.process.started
        self.process = None
        return lived, f"signal {-status}" if status < 0 else f"status {status}"

    def restart(self) -> None:
        if self.process:
            self.process.terminate()

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after STOP_LIMIT."""
        self.stopping.set()
        if self.process:
            self.process.terminate()
        done, _ = await asyncio.wait([self.task], timeout=STOP_LIMIT)
        if not done and self.process:
            log.warning("%s does not stop, killing it", self.part.name)
            self.process.signal_group(signal.SIGKILL)
        await self.task
