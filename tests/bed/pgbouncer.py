"""A PgBouncer in transaction mode before a PostgreSQL. As a pytest plugin (`-p tests.bed.pgbouncer`) it stands before the bed's own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from registry.servers import embedded
from registry.servers.binaries import EmbeddedError, unprivileged_account
from registry.servers.processes import free_port, holds_within
from registry.servers.testing import forgo_durability

START_LIMIT = 10.0  # seconds

CONNECT = "SET statement_timeout = 30000; SET idle_in_transaction_session_timeout = 5000; SET random_page_cost = 1.1"
# What docs/scale.md asks for, and the pool's size.
CONFIGURATION = """\
[databases]
* = host={host} port={port} connect_query='{connect}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = {authentication}
auth_file = {folder}/users
admin_users = {user}
pool_mode = transaction
default_pool_size = {servers}
max_db_connections = {servers}
max_client_conn = {clients}
server_login_retry = 1
server_lifetime = 3600
max_prepared_statements = {prepared}
"""


def is_installed() -> bool:
    return shutil.which("pgbouncer") is not None


def version() -> tuple[int, ...]:
    said = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.split()[1].split("."))


class PgBouncer:
    """A running pooler: its URL, and that of the server behind it."""

    def __init__(self, server_url: str, folder: Path, *, servers: int, clients: int, authentication: str) -> None:
        self.behind = urlsplit(server_url)
        self.folder, self.port = folder, free_port()
        self.url = self.behind._replace(netloc=f"{self.behind.netloc.rpartition(':')[0]}:{self.port}").geturl()
        self.direct_url = self.behind._replace(path="").geturl()
        account = unprivileged_account() if os.geteuid() == 0 else None
        configuration = CONFIGURATION.format(
            host=self.behind.hostname,
            port=self.behind.port,
            own_port=self.port,
            folder=folder,
            user=self.behind.username,
            servers=servers,
            clients=clients,
            prepared=0,
            connect=CONNECT,
            authentication=authentication,
        )
        if version() < (1, 21):  # it does not know the setting, and refuses to start
            configuration = configuration.replace("max_prepared_statements = 0\n", "")
        (folder / "pgbouncer.ini").write_text(configuration)
        (folder / "users").write_text(f'"{self.behind.username}" "{self.behind.password}"\n')
        for path in (folder, *folder.iterdir()):
            if account:
                os.chown(path, account.uid, account.gid)
        with (folder / "log").open("w") as output:
            self.process = subprocess.Popen(
                ["pgbouncer", str(folder / "pgbouncer.ini")],
                cwd=folder, stdout=output, stderr=output, start_new_session=True,
                **(account.as_process if account else {}),
            )  # fmt: skip
        if not holds_within(START_LIMIT, self._answers):
            raise EmbeddedError(f"PgBouncer does not start\n{(folder / 'log').read_text()[-2000:]}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with self.console():
                return True
        except psycopg.OperationalError:
            return False

    def console(self) -> psycopg.Connection:
        """PgBouncer's own database, for SHOW and RELOAD."""
        url = urlsplit(self.url)._replace(path="/pgbouncer").geturl()
        return psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor, connect_timeout=5)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@contextmanager
def pgbouncer(
    server_url: str, *, servers: int = 40, clients: int = 3000, authentication: str = "scram-sha-256"
) -> Iterator[PgBouncer]:
    folder = Path(tempfile.mkdtemp(prefix="registry-pgbouncer-", dir="/tmp"))
    pooler = PgBouncer(server_url, folder, servers=servers, clients=clients, authentication=authentication)
    try:
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(folder)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Start the bed's PostgreSQL and a PgBouncer before it, before registry.servers.testing finds an address in the environment."""
    if os.environ.get("DATABASE_DIRECT_URL"):  # a process of xdist: the first one has started it
        return (yield)
    data = Path(os.environ.setdefault("REGISTRY_DATA", str(early_config.rootpath / ".data" / "test"))).resolve()
    stack = ExitStack()
    early_config.add_cleanup(stack.close)
    urls = stack.enter_context(embedded.use(data))
    forgo_durability(embedded.Postgres(data))
    pooler = stack.enter_context(pgbouncer(urls.database_url))
    os.environ.update(DATABASE_URL=pooler.url, DATABASE_DIRECT_URL=pooler.direct_url)
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only tests that call the service over HTTP: others look at sessions, at statements that are prepared, or at servers of their own."""
    others = [item for item in items if "server" not in getattr(item, "fixturenames", ())]
    if os.environ.get("DATABASE_DIRECT_URL"):
        items[:] = [item for item in items if item not in set(others)]
        config.hook.pytest_deselected(items=others)
