"""Commands of `manage.py` as forks of a process that has imported the service: each starts at once instead of in a second.

`python -m tests.queueing.forked` is that process. It reads one request a line from stdin, a JSON array of the file for the log,
its level and the arguments; and tells on stdout, a JSON array a line, each process that it forked and each that ended, with
its status.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self

import django
from django.conf import settings

import manage

PROJECT = Path(manage.__file__).parent


class ForkedProcess:
    """A command under way, with the names of asyncio's Process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        return self.ended.result() if self.ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)


class Forker:
    """The process that forks, as its client sees it; started by the first command."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.running: dict[int, ForkedProcess] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._forked: asyncio.Queue[ForkedProcess] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self._process.wait()
            await self._listening

    async def start(self, log: Path, level: str, *arguments: str) -> ForkedProcess:
        """Run `manage.py` with these arguments; its output goes to `log`."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__), env=self.environ, cwd=PROJECT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            self._listening = asyncio.create_task(self._listen(self._process))
        assert self._process.stdin
        self._process.stdin.write(json.dumps([str(log), level, *arguments]).encode() + b"\n")
        return await self._forked.get()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            what, pid, status = json.loads(line)
            if what == "forked":
                self.running[pid] = ForkedProcess(pid)
                self._forked.put_nowait(self.running[pid])
            else:
                self.running.pop(pid).ended.set_result(status)


# -- The process that forks ------------------------------------------------------------------------------------


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
    django.setup()
    from queueing.management.commands import worker  # noqa: F401 - with all that it needs

    ended, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _tell_ended()
        if sys.stdin.fileno() in ready:
            line = _line()
            if not line:
                return
            _fork(*json.loads(line))


def _line() -> bytes:
    """The next request, read without a buffer, which would hide from `select` that there is another."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte
    return line


def _tell(what: str, pid: int, status: int = 0) -> None:
    os.write(sys.stdout.fileno(), json.dumps([what, pid, status]).encode() + b"\n")


def _tell_ended() -> None:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _tell("ended", found[0], os.waitstatus_to_exitcode(found[1]))


def _fork(log: str, level: str, *arguments: str) -> None:
    if pid := os.fork():
        _tell("forked", pid)
    else:
        settings.LOGGING["level"] = level  # the command configures logging
        _become(log, arguments)


def _become(log: str, arguments: tuple[str, ...]) -> NoReturn:
    """Be the command, as if it had been started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    output: Any = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.argv = ["manage.py", *arguments]
    status = 1
    try:
        manage.main()
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(bool(left.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
