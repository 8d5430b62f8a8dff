"""Several hosts of one service: each an `up` with a data folder of its own, on one PostgreSQL and one Valkey."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Self

import psycopg

from registry.servers import embedded
from registry.servers.processes import children, descendants, free_port, read_proc
from tests import secret_forms
from tests.bed import RemoteProcessor, clocks, template
from tests.bed.running import PROJECT
from tests.waiting import SCALE

LIMIT = 120.0 * SCALE  # seconds for what takes a few, and several times that while other tests run beside
PROBE_LIMIT = 5.0 * SCALE  # seconds for one answer


class Host:
    """One `up`. Its name, its folder, and where it answers."""

    def __init__(
        self, estate: "Estate", name: str, *options: str, clock: int = 0, address: str = "127.0.0.1", **settings: str
    ) -> None:
        """`clock`: seconds by which its wall clock is wrong; `settings`: environment variables."""
        self.estate, self.name, self.options = estate, name, options
        self.data = estate.folder / name.replace(" ", "-")
        self.data.mkdir()
        self.port = free_port()
        self.url = f"http://{address}:{self.port}"
        self.environ = {**template.service_environment(self.data), **estate.shared, "REGISTRY_HOST": name, **settings}
        if clock:
            self.environ |= clocks.variables(clock)
        self.popen: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def up(self) -> Self:
        self.starts += 1
        with (self.data / "up.log").open("ab") as log:
            command = [sys.executable, "manage.py", "up", "--port", str(self.port), *self.options]
            self.popen = self.start(command, log)
        return self

    def start(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=PROJECT, env=self.environ, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return (self.data / "up.log").read_text(errors="replace")

    @property
    def is_up(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    async def says(self, text: str, *, within: float = LIMIT) -> None:
        deadline = time.monotonic() + within
        while text not in self.log:
            assert time.monotonic() < deadline and self.is_up, f"{self.name} does not say {text!r}\n{self.log[-6000:]}"
            await asyncio.sleep(0.05)

    async def ready(self) -> Self:
        await self.says(f"ready {self.url}")
        return self

    async def ready_again(self) -> Self:
        """After another start, whose lines follow those of the ones before."""
        deadline = time.monotonic() + LIMIT
        while self.log.count(f"ready {self.url}") < self.starts:
            assert time.monotonic() < deadline and self.is_up, f"{self.name} is not ready again\n{self.log[-6000:]}"
            await asyncio.sleep(0.05)
        return self

    def get(self, path: str, *, key: str = "", body: Any = None) -> Any:
        status, text = self.ask(path, key=key, body=body)
        assert status < 300, (status, text)
        return json.loads(text)

    def ask(self, path: str, *, key: str = "", body: Any = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        data = None if body is None else json.dumps(body).encode()
        if data:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PROBE_LIMIT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def asks(self, path: str, *, body: Any = None) -> Any:
        return await asyncio.to_thread(self.get, path, key=self.estate.key, body=body)

    def parts(self, *words: str) -> list[int]:
        """The child processes whose command lines have all of `words`."""
        assert self.popen
        said = {pid: read_proc(pid, "cmdline").split(b"\0") for pid in children(self.popen.pid)}
        return [pid for pid, line in said.items() if all(word.encode() in line for word in words)]

    def kill(self) -> None:
        """As a host that loses its power: every process at once."""
        assert self.popen
        for pid in [self.popen.pid, *descendants(self.popen.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()

    async def stop(self) -> int:
        assert self.popen
        self.popen.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.popen.wait, LIMIT)

    def ended(self) -> str:
        """What an `up` that does not start says."""
        assert self.popen and self.popen.wait(LIMIT) == 1
        return self.log

    def close(self) -> None:
        if self.is_up:
            self.kill()
        if (self.data / "up.log").exists():
            assert secret_forms.in_log(self.data, self.log, self.estate.key) == []


class Estate:
    """The servers that all hosts share, two processors, and a tenant with a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = folder / "servers"
        self.hosts: list[Host] = []
        self.default, self.fallback = RemoteProcessor(fee=0.05), RemoteProcessor(fee=0.15)
        self.key = ""
        self.shared: dict[str, str] = {}
        self._session: psycopg.Connection | None = None  # tests ask a hundred times a second

    def open(self) -> None:
        for one in (self.default, self.fallback):
            one.__enter__()
        self.servers.mkdir(mode=0o711)
        template.fill(self.servers)
        self.key = template.tenant_key(self.servers)
        template.set_processors(self.servers, {"default": self.default.url, "fallback": self.fallback.url})
        found = embedded.ensure(self.servers) if not os.environ.get("DATABASE_URL") else self._own_servers()
        self.shared = {
            "DATABASE_URL": found.database_url,
            "REDIS_URL": found.redis_url,
            "SECRET_KEY": (self.servers / "secret_key").read_text().strip(),
            "DB_POOL_MIN": "1",
        }

    def _own_servers(self) -> embedded.Urls:
        """Also while the environment of the tests names other servers."""
        for server in (embedded.Postgres(self.servers), embedded.Valkey(self.servers)):
            server.start()
        return embedded.Urls(embedded.Postgres(self.servers).url, embedded.Valkey(self.servers).url)

    def host(self, name: str, *options: str, clock: int = 0, **settings: str) -> Host:
        self.hosts.append(Host(self, name, *options, clock=clock, **settings))
        return self.hosts[-1]

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        self._session = self._session or psycopg.connect(self.shared["DATABASE_URL"], autocommit=True)
        cursor = self._session.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []

    async def command(self, *arguments: str) -> Any:
        """What a command of manage.py says, as JSON."""
        environ = {**template.service_environment(self.servers), **self.shared}
        command = [sys.executable, "manage.py", *arguments]
        said = await asyncio.to_thread(
            subprocess.run, command, cwd=PROJECT, env=environ, check=True, stdout=subprocess.PIPE, text=True
        )
        return json.loads(said.stdout)

    async def pay(self, host: Host, **more: Any) -> str:
        """Returns the id of the accepted payment."""
        return (await host.asks("/payments", body={"amount": "19.90", **more}))["correlationId"]

    async def settled(self, host: Host, payment: str) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT
        while (found := await host.asks(f"/payments/{payment}/status"))["status"] in ("queued", "processing"):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        return found

    def close(self) -> None:
        try:
            for host in self.hosts:
                host.close()
        finally:
            if self._session:
                self._session.close()
            template.stop_servers(self.servers)
            for one in (self.default, self.fallback):
                one.stop()
            shutil.rmtree(self.folder)


@asynccontextmanager
async def estate() -> AsyncIterator[Estate]:
    """Servers for the block's hosts."""
    found = Estate(template.empty_folder("registry-hosts-"))
    try:
        await asyncio.to_thread(found.open)
        yield found
    finally:
        await asyncio.to_thread(found.close)
