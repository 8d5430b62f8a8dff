"""`manage.py worker` and `manage.py cron` as processes of a test's own, beside a Valkey of its own."""

import os
import signal
from pathlib import Path
from typing import Any

from django.db import connection

from queueing.models import Worker
from queueing.work.table import TABLES
from registry.data import database
from registry.servers import embedded
from registry.servers.processes import children, signal_process
from tests.bed.running import PYTHONPATH
from tests.conftest import eventually
from tests.queueing.forked import ForkedProcess, Forker

START_LIMIT = 90.0  # seconds for a Python with Django and RQ, on a busy machine


class WorkerProcess:
    """`manage.py worker`: the RQ worker, and the horse that drains."""

    def __init__(self, process: ForkedProcess) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def horse(self) -> int:
        return next(iter(children(self.pid)), 0)

    async def end(self) -> None:
        horses = children(self.pid)
        for pid in (self.pid, *horses):
            signal_process(pid, signal.SIGKILL)
        await self.process.wait()


class Processes:
    """Starts them, keeps what they log, ends them all."""

    def __init__(self, forker: Forker, log: Path) -> None:
        self.started: list[WorkerProcess] = []
        self.forker, self.path = forker, log

    async def __call__(self, number: int = 1) -> list[WorkerProcess]:
        """Workers whose drains are at work."""
        before = len(await alive())
        fresh = [await self.run("worker", "--slot", str(len(self.started) + 1)) for _ in range(number)]
        await eventually(lambda: _more_at_work(before + number * len(TABLES)), within=START_LIMIT)
        return fresh

    async def run(self, *arguments: str, level: str = "WARNING") -> WorkerProcess:
        self.started.append(WorkerProcess(await self.forker.start(self.path, level, *arguments)))
        return self.started[-1]

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    async def end(self) -> None:
        for worker in self.started:
            await worker.end()
        print("\n".join(self.lines)[-4000:])


def environment(valkey: embedded.Valkey) -> dict[str, str]:
    """That of programs on the test database and this Valkey."""
    urls = {"DATABASE_URL": database_url(), "REDIS_URL": valkey.url}
    # Tests count the lines of the log; that a busy machine is slow is none of them.
    quiet = {"LOG_SLOW_LOOP_MS": "0", "LOG_SLOW_STATEMENT_MS": "0"}
    return {**os.environ, **urls, **quiet, "PYTHONPATH": PYTHONPATH, "REGISTRY_APPS": "tests.queueing.kinds_app"}


def database_url() -> str:
    settings: dict[str, Any] = connection.settings_dict
    password = f":{settings['PASSWORD']}" if settings.get("PASSWORD") else ""
    return f"postgres://{settings['USER']}{password}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"


async def alive() -> list[Worker]:
    try:
        return [worker async for worker in Worker.async_objects.all().alive()]
    finally:
        await database.release()


async def _more_at_work(number: int) -> bool:
    return len(await alive()) >= number
