"""Environment of a benchmark: a fresh database, a tenant, the service's processes; removed afterwards."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.bed import RemoteProcessor

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("REGISTRY_DATA", ROOT / ".data")).resolve() / "bench"
REDIS_NUMBER = 13  # Redis database that benchmarks empty
START_LIMIT = 60.0  # seconds until a process answers
STOP_LIMIT = 15.0  # seconds from SIGTERM to SIGKILL; `up` must exit within 10
DEFAULT_FEE, FALLBACK_FEE = 0.05, 0.15

console = Console(width=None if sys.stdout.isatty() else 160)


@dataclass
class Place:
    """A separate database, and the environment variables that select it."""

    name: str
    database_url: str
    environment: dict[str, str]
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.database_url, autocommit=True)

    def ask(self, sql: str, params: Any = None) -> Any:
        """Value of the first column of the first row."""
        with self.connect() as connection:
            row = connection.execute(sql, params).fetchone()
            return row[0] if row else None

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def settle_in(self) -> None:
        """The tenant of the benchmark, and its key."""
        self.key = json.loads(self.manage("tenant", "create", "bench", "--json").splitlines()[-1])["apiKey"]
        self.headers = {"Authorization": f"Bearer {self.key}"}

    def add_processors(self, default: RemoteProcessor, fallback: RemoteProcessor) -> None:
        for name, processor, fee in (("default", default, DEFAULT_FEE), ("fallback", fallback, FALLBACK_FEE)):
            self.manage("processor", "add", "bench", name, "--kind", "http", "--url", processor.url, "--fee", str(fee))


@contextmanager
def place(name: str, *, migrated: bool = True) -> Iterator[Place]:
    """A fresh database on the servers of DATABASE_URL, dropped afterwards, and an empty Redis."""
    server = os.environ["DATABASE_URL"]
    redis_url = with_path(os.environ["REDIS_URL"], str(REDIS_NUMBER))
    database = f"bench_{name}"
    url = with_path(server, database)
    recreate(server, database)
    empty(redis_url)
    environment = os.environ | {
        "DATABASE_URL": url,
        "REDIS_URL": redis_url,
        "REGISTRY_DATA": str(DATA / "service"),
        "DJANGO_SETTINGS_MODULE": "registry.settings",
        "LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(ROOT),
    }
    (DATA / "service").mkdir(parents=True, exist_ok=True)
    here = Place(name, url, environment)
    try:
        if migrated:
            here.manage("migrate", "--verbosity", "0")
            here.settle_in()
        yield here
    finally:
        drop(server, database)
        empty(redis_url)


def with_path(url: str, path: str) -> str:
    return urlsplit(url)._replace(path=f"/{path}").geturl()


def recreate(server: str, database: str) -> None:
    drop(server, database)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")


def drop(server: str, database: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


def empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


# -- Processes -------------------------------------------------------------------------------------------


@dataclass
class Process:
    popen: subprocess.Popen
    log: Path
    port: int = 0

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def memory(self) -> float:
        """Resident MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def check(self) -> None:
        if self.popen.poll() is not None:
            raise RuntimeError(f"ended with {self.popen.returncode}: {self.log.read_text()[-2000:]}")


@contextmanager
def process(here: Place, name: str, *command: str, **environment: str) -> Iterator[Process]:
    """A process of the service in a session of its own, its output in DATA/logs; stopped at the end."""
    log = DATA / "logs" / f"{here.name}-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        popen = subprocess.Popen(
            command, cwd=ROOT, env=here.environment | environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield Process(popen, log)
    finally:
        stop(popen)


def stop(popen: subprocess.Popen) -> None:
    if popen.poll() is None:
        popen.send_signal(signal.SIGTERM)
    try:
        popen.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        console.print(f"[red]process {popen.pid} did not stop within {STOP_LIMIT:.0f} s[/]")
    try:
        os.killpg(popen.pid, signal.SIGKILL)  # remaining child processes
    except ProcessLookupError:
        pass
    popen.wait()


@contextmanager
def uvicorn(
    here: Place, name: str, application: str, *, http: str = "httptools", **environment: str
) -> Iterator[Process]:
    """One web process: uvloop, httptools or the given protocol, no access log."""
    port = free_port()
    options = [
        "--loop",
        "uvloop",
        "--http",
        http,
        "--no-access-log",
        "--log-level",
        "warning",
        "--port",
        str(port),
    ]
    with process(here, name, sys.executable, "-m", "uvicorn", application, *options, **environment) as web:
        web.port = port
        wait_until(lambda: web.check() or answers(f"http://127.0.0.1:{port}/health/live"), f"{name} answers")
        yield web


@contextmanager
def web(here: Place) -> Iterator[Process]:
    """A web process with the service's own protocol and its limits on heads."""
    protocol = "registry.edge.protocol:BoundedProtocol"
    with uvicorn(here, "web", "registry.asgi:application", http=protocol) as found:
        yield found


@contextmanager
def worker(here: Place, *options: str) -> Iterator[Process]:
    with process(here, "worker", sys.executable, "manage.py", "worker", "--slot", "0", *options) as found:
        yield found


@contextmanager
def service(here: Place) -> Iterator[Process]:
    """The whole service, as an operator starts it, without the demo."""
    port = free_port()
    command = [sys.executable, "manage.py", "up", "--no-demo", "--port", str(port)]
    with process(here, "up", *command) as up:
        up.port = port
        wait_until(lambda: up.check() or "ready http://" in up.log.read_text(), "up is ready")
        yield up


@contextmanager
def processors() -> Iterator[tuple[RemoteProcessor, RemoteProcessor]]:
    with RemoteProcessor(fee=DEFAULT_FEE) as default, RemoteProcessor(fee=FALLBACK_FEE) as fallback:
        yield default, fallback


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return candidate.getsockname()[1]


def answers(url: str) -> bool:
    """Whether the address responds at all."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def wait_until(question: Callable[[], object], what: str, limit: float = START_LIMIT, every: float = 0.05) -> None:
    deadline = time.monotonic() + limit
    while not question():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:.0f} s: {what}")
        time.sleep(every)


# -- Progress ----------------------------------------------------------------------------------------------


def progress(*, still: bool = False) -> Progress:
    """A progress bar. `still`: drawn on request only, without a thread that would disturb measurements of this process."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, auto_refresh=not still, refresh_per_second=2)
