"""The service as `manage.py up` runs it, on a folder of its own, with two processors of the bed beside it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psycopg

from registry.servers import embedded
from registry.servers.processes import children, descendants, free_port, read_proc
from tests import secret_forms
from tests.bed import RemoteProcessor, clocks, journal, template
from tests.waiting import SCALE

PROJECT = Path(__file__).resolve().parents[2]
START_LIMIT = 60.0 * SCALE  # seconds for initdb, migrations and the first health check, with others on the machine
RETURN = 60.0 * SCALE  # seconds until PostgreSQL is back and what waited flows again: its own recovery is most of that
PROBE_LIMIT = 2.0 * SCALE  # seconds for one look
DELAY = 20  # milliseconds that the processors take, so that there is always something in flight to be struck

OPEN = "SELECT count(*) FROM payments_payment WHERE closed IS NULL AND created_at <= %s"


class Service:
    """Where it answers, the key of its one tenant, and its processes by what they do."""

    def __init__(self, data: Path, *options: str, others: Mapping[str, str] | None = None, **settings: str) -> None:
        """`options`: of `up`; `others`: addresses of other processors that it has, by name; `settings`: environment variables."""
        self.data, self.others = data, others or {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.postgres, self.valkey = embedded.Postgres(data), embedded.Valkey(data)
        self.default, self.fallback = RemoteProcessor(fee=0.05), RemoteProcessor(fee=0.15)
        self.journal = data / "journal"  # of the bed's jobs
        self.clocks = data / "clocks"
        self.options, self.settings = options, settings
        self.key = ""
        self.popen: subprocess.Popen[bytes] | None = None  # `up`, once it was started

    @property
    def processors(self) -> dict[str, RemoteProcessor]:
        return {"default": self.default, "fallback": self.fallback}

    def calm(self) -> None:
        """End what troubles the processors."""
        for processor in self.processors.values():
            processor.recovers()
            processor.delays(DELAY)

    def booked(self) -> set[str]:
        """Ids of the payments that the processors have booked so far."""
        return {name for processor in self.processors.values() for name in processor.booked}

    # -- Starting and stopping -----------------------------------------------------------------------------

    async def start(self) -> Self:
        """Everything up, a tenant with both processors in it."""
        await asyncio.gather(*(asyncio.to_thread(one.__enter__) for one in self.processors.values()))
        await asyncio.to_thread(self.calm)
        addresses = {name: one.url for name, one in self.processors.items()}
        await asyncio.to_thread(template.set_processors, self.data, {**addresses, **self.others})
        self.key = template.tenant_key(self.data)
        self.up()
        await self.until_ready()
        return self

    def up(self) -> None:
        """Also after a kill: the log goes on in the same file."""
        with (self.data / "up.log").open("ab") as log:
            command = [sys.executable, "manage.py", "up", "--port", str(self.port), *self.options]
            self.popen = subprocess.Popen(command, cwd=PROJECT, env=self.environ, stdout=log, stderr=log)

    @property
    def environ(self) -> dict[str, str]:
        own = {"REGISTRY_APPS": "tests.bed", journal.VARIABLE: str(self.journal), clocks.VARIABLE: str(self.clocks)}
        return {**template.service_environment(self.data), **own, **self.settings}

    async def manage(self, *arguments: str) -> str:
        """What a command says. Raises RuntimeError with its complaint."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "manage.py",
            *arguments,
            cwd=PROJECT,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)}: {complaint.decode()}{out.decode()}")
        return out.decode()

    async def until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not await asyncio.to_thread(self.is_ready):
            assert self.popen.poll() is None and time.monotonic() < deadline, f"not ready\n{self.last_words()}"
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Told to stop first, as its operator would; nothing is left in any case."""
        if self.popen and self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(START_LIMIT)
            except subprocess.TimeoutExpired:
                for pid in [*descendants(self.popen.pid), self.popen.pid]:
                    os.kill(pid, signal.SIGKILL)
                self.popen.wait()
        self.postgres.stop()
        self.valkey.stop()
        for processor in self.processors.values():
            processor.stop()
        if self.popen:
            said = (self.data / "up.log").read_text(errors="replace")
            assert secret_forms.in_log(self.data, said, *filter(None, [self.key])) == []

    # -- Its processes ---------------------------------------------------------------------------------------

    def servers(self) -> list[int]:
        """Main processes of the servers that run."""
        return [pid for server in (self.postgres, self.valkey) if (pid := server.pid())]

    def parts(self, *words: str) -> list[int]:
        """The children whose command lines have all of `words`, just now."""
        said = {pid: read_proc(pid, "cmdline").split(b"\0") for pid in children(self.popen.pid)}
        return [pid for pid, line in said.items() if all(word.encode() in line for word in words)]

    def part(self, *words: str) -> int | None:
        return next(iter(self.parts(*words)), None)

    def horse(self) -> int | None:
        worker = self.part("worker", "--slot")
        return next(iter(children(worker)), None) if worker else None

    def backend(self) -> int | None:
        """A PostgreSQL process that serves one connection of the service."""
        for pid in self.postgres.pids():
            if read_proc(pid, "cmdline").startswith(b"postgres: registry registry"):
                return pid
        return None

    # -- How it is ---------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        try:
            return self.get("/health/ready")["status"] == "healthy"
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=PROBE_LIMIT) as answer:
            return json.load(answer)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.postgres.url, autocommit=True, connect_timeout=int(PROBE_LIMIT))

    def is_settled(self, before: datetime) -> bool:
        """Nothing that was accepted up to `before` is still open, nor waits in the spill."""
        if self.spilled():
            return False
        try:
            with self.connect() as connection:
                return connection.execute(OPEN, [before]).fetchone() == (0,)
        except psycopg.OperationalError:
            return False

    def spilled(self, kind: str = "payment") -> int:
        """Bytes of one kind on the disk that wait for PostgreSQL."""
        return spilled(self.data, kind)

    def postgres_says(self, question: str) -> Any:
        with self.connect() as connection:
            [[answer]] = connection.execute(question)
        return answer

    def last_words(self) -> str:
        return (self.data / "up.log").read_text(errors="replace")[-6000:]


def spilled(data: Path, kind: str = "payment") -> int:
    """Bytes of one kind in the spill of a host with this data folder."""
    size = 0
    for path in data.glob(f"spill/{kind}-*/0*"):
        with suppress(FileNotFoundError):  # drained at this moment
            size += path.stat().st_size if path.suffix != ".done" else 0
    return size


@asynccontextmanager
async def running(
    *options: str,
    others: Mapping[str, str] | None = None,
    fill: Callable[[Path], None] = template.fill,
    disks: Callable[[Path], AbstractContextManager[object]] = nullcontext,
    **settings: str,
) -> AsyncIterator[Service]:
    """A service of its own for as long as the block runs. `options`, `others`, `settings`: as above; `fill` makes what is in its folder,
    after `disks` has mounted disks there."""
    data = template.empty_folder("registry-chaos-")
    try:
        with disks(data):
            await asyncio.to_thread(fill, data)
            service = Service(data, *options, others=others, **settings)
            try:
                yield await service.start()
            finally:
                await asyncio.to_thread(service.close)
    finally:
        shutil.rmtree(data)
