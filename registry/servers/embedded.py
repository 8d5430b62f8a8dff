"""PostgreSQL and Valkey from wheels: found, started, stopped, one pair per data folder. Knows nothing of Django.

No pid file is ever believed: a server of ours is a process whose working directory is its data folder, and which
answers on our port with our password. `DATABASE_URL` / `REDIS_URL` in the environment take a server's place.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from registry.servers.binaries import EmbeddedError, find_postgres, find_valkey, version_of
from registry.servers.data_folder import LOCK_LIMIT, Place, lock_within, locked
from registry.servers.processes import (
    command_of,
    holds_within,
    parent_of,
    port_is_free,
    processes_in,
    read_proc,
    signal_process,
)

__all__ = ["EmbeddedError", "Postgres", "Server", "Urls", "Valkey", "ensure", "servers", "stop", "urls", "use"]

log = logging.getLogger(__name__)

START_LIMIT = 120.0  # seconds; crash recovery replays up to max_wal_size before the first answer
STOP_LIMIT = 2.0  # seconds for a clean stop; the log makes a hard one safe, and `up` owes its exit within 10 s
HARD_STOP_LIMIT = 5.0  # seconds from the hard stop until nothing is left
TROUBLE_LIMIT = 5.0  # seconds for a Valkey that runs to answer, before a command goes on without it
ANSWER_LIMIT = 2.0  # seconds for a server on loopback to answer at all
PORT_TRIES = 5  # somebody may take the port between our look and the server's bind
LOG_SIZE = 10 * 1024 * 1024  # bytes of an output file before it is set aside at the next start

_children: list[subprocess.Popen] = []  # kept, so that an ended server is reaped and a living one draws no warning

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 200,
    # What was answered with 202 is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A small machine, shared with the web process and the workers.
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",
    "autovacuum_naptime": "15s",  # queue tables turn over many times a minute
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One file per weekday, overwritten a week later.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_size": 0,
    "log_line_prefix": "%m [%p] %a ",
    # No values: statements and details hold sessions and payers' data. The service logs its own errors.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # the append-only file is the persistence
    "maxmemory-policy": "noeviction",
}


@dataclass(frozen=True)
class Urls:
    database_url: str
    redis_url: str


class Server:
    """One server of one data folder. `start` and `stop` may be called by anybody at any time, from any process."""

    name: ClassVar[str]
    variable: ClassVar[str]
    processes: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[int]
    hard_signal: ClassVar[int]

    def __init__(self, data: Path) -> None:
        self.place = Place(data)

    @property
    def folder(self) -> Path:
        return self.place.folder / self.name

    @property
    def url(self) -> str:
        """Where the server answers, or will. Chooses port and password the first time."""
        raise NotImplementedError

    @property
    def taken_over(self) -> bool:
        """The user named a server of their own in the environment."""
        given = os.environ.get(self.variable)
        return bool(given) and (self.name not in self.place.state() or given != self.url)

    @property
    def port(self) -> int:
        return self.place.secrets_of(self.name)["port"]

    @property
    def password(self) -> str:
        return self.place.secrets_of(self.name)["password"]

    def answers(self) -> bool:
        """It accepts our password on our port, and serves our folder."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Every living process of this server. Asking chooses nothing: a folder never used has none."""
        if not self.place.is_chosen:
            return []
        return [pid for pid in processes_in(self.folder) if command_of(pid) in self.processes]

    def pid(self) -> int | None:
        """The server's main process; None when only orphans, or nobody, lives."""
        pids = self.pids()
        return next((pid for pid in pids if parent_of(pid) not in pids and not self.is_child(pid)), None)

    def is_child(self, pid: int) -> bool:
        return False

    def start(self) -> None:
        """Find it running or start it, on the port and with the password it always had. Raises EmbeddedError."""
        with self.place.lock():
            if self.answers() or self.lives_in_trouble():
                return
            self.clear_leftovers()
            if not self.answers():
                self.prepare()
                self.launch()
                self.after_start()

    def lives_in_trouble(self) -> bool:
        """It runs, answers nothing, and is not needed to go on."""
        return False

    def stop(self) -> None:
        """Cleanly within STOP_LIMIT, else hard; nothing is left afterwards."""
        with self.place.lock():
            self.ask_to_stop()
            self.see_gone()

    def ask_to_stop(self) -> None:
        if pid := self.pid():
            signal_process(pid, self.stop_signal)

    def see_gone(self) -> None:
        for limit, number in ((STOP_LIMIT, self.hard_signal), (HARD_STOP_LIMIT, signal.SIGKILL)):
            if holds_within(limit, lambda: not self.pids()):
                return
            for pid in self.pids():
                signal_process(pid, number)
        if not holds_within(HARD_STOP_LIMIT, lambda: not self.pids()):
            raise EmbeddedError(f"{self.name} does not stop: {self.pids()}")

    def clear_leftovers(self) -> None:
        """Wait for one that starts or stops right now; end the orphans of one that was killed."""
        pid = self.pid()
        settled = lambda: self.answers() or self.pid() != pid  # noqa: E731
        if pid and not holds_within(TROUBLE_LIMIT, settled):
            log.warning("%s runs as process %d and does not answer; waiting %.0f s", self.name, pid, START_LIMIT)
        if pid and not holds_within(START_LIMIT, settled):
            raise EmbeddedError(f"{self.name} runs as process {pid} but does not answer on port {self.port}")
        if self.pid() is None:
            for pid in self.pids():
                signal_process(pid, self.hard_signal)
            self.see_gone()

    def prepare(self) -> None:
        """Make the folder what the server needs it to be."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def after_start(self) -> None:
        """What is made once the server answers for the first time."""

    def launch(self) -> None:
        for _ in range(PORT_TRIES):
            if not port_is_free(self.port):
                self.place.move_port(self.name)
                log.warning("port of %s is taken by another program, moving to %d", self.name, self.port)
            self.configure()
            if self.comes_up(self.spawn()):
                return
            if port_is_free(self.port):  # so the port was not what ended it
                break
        raise EmbeddedError(f"{self.name} ended at start\n{self.last_words()}")

    def comes_up(self, process: subprocess.Popen) -> bool:
        """It answers; False if it ended instead."""
        if not holds_within(START_LIMIT, lambda: self.answers() or process.poll() is not None):
            raise EmbeddedError(f"{self.name} does not answer after {START_LIMIT:.0f} s\n{self.last_words()}")
        return process.poll() is None

    def configure(self) -> None:
        raise NotImplementedError

    @property
    def output(self) -> Path:
        return self.place.folder / f"{self.name}.log"

    def spawn(self) -> subprocess.Popen:
        set_aside(self.output)
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # the terminal's Ctrl-C is for us; we stop the servers in order
                **self.place.as_process,
            )
        _children.append(process)
        return process

    def last_words(self) -> str:
        return self.output.read_text(errors="replace")[-2000:] if self.output.exists() else ""


class Postgres(Server):
    name = "postgres"
    variable = "DATABASE_URL"
    processes = ("postgres",)
    stop_signal = signal.SIGINT  # fast: roll back, checkpoint, leave
    hard_signal = signal.SIGQUIT  # immediate: recovery at the next start

    @property
    def url(self) -> str:
        return f"postgres://registry:{self.password}@127.0.0.1:{self.port}/registry"

    def answers(self) -> bool:
        import psycopg

        try:
            with self.connect() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]) == self.folder

    def connect(self):
        """To the maintenance database, so that a missing `registry` is no obstacle."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="registry",
            password=self.password,
            dbname="postgres",
            connect_timeout=int(ANSWER_LIMIT),
            autocommit=True,
        )

    def is_child(self, pid: int) -> bool:
        return read_proc(pid, "cmdline").startswith(b"postgres: ")

    def prepare(self) -> None:
        self.binary = self.place.usable(find_postgres())
        if not self.folder.exists():
            self.initialise()
        have = (self.folder / "PG_VERSION").read_text().strip()
        if have != (want := str(version_of(self.binary))):
            raise EmbeddedError(f"{self.folder} was written by PostgreSQL {have}, {self.binary} is {want}")
        (self.folder / "postmaster.pid").unlink(missing_ok=True)  # nobody lives here: we looked

    def initialise(self) -> None:
        """initdb beside the final place, renamed when whole: a start that was killed leaves nothing half made."""
        for wreck in self.place.folder.glob("postgres.new-*"):
            shutil.rmtree(wreck, ignore_errors=True)
        fresh = self.place.make_folder(f"postgres.new-{secrets.token_hex(4)}")
        password = self.place.folder / f"{fresh.name}.password"
        self.place.write(password, self.password)
        try:
            self.initdb(fresh, "--no-sync", f"--pwfile={password}", *self.options())
            self.initdb(fresh, "--sync-only")
        finally:
            password.unlink()
        fresh.rename(self.folder)
        sync(self.place.folder)

    def options(self) -> list[str]:
        builtin = ["--locale-provider=builtin"] if version_of(self.binary) >= 17 else []
        access = ["--username=registry", "--auth=scram-sha-256"]
        return [*access, "--encoding=UTF8", "--locale=C.UTF-8", *builtin, "--data-checksums"]

    def initdb(self, folder: Path, *options: str) -> None:
        command = [str(self.binary.parent / "initdb"), "-D", str(folder), *options]
        done = subprocess.run(
            command, cwd=folder, env=server_environment(), capture_output=True, text=True, **self.place.as_process
        )
        if done.returncode:
            raise EmbeddedError(f"initdb failed\n{done.stdout}\n{done.stderr}")

    def configure(self) -> None:
        settings = POSTGRES_SETTINGS | {"port": self.port}
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        lines = ["# Written at every start; put your own settings into local.conf.", *lines]
        self.place.write(self.folder / "postgresql.conf", "\n".join([*lines, "include_if_exists = 'local.conf'", ""]))

    def command(self) -> list[str]:
        return [str(self.binary), "-D", str(self.folder)]

    def after_start(self) -> None:
        with self.connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'registry'").fetchone():
                connection.execute("CREATE DATABASE registry")

    def last_words(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return super().last_words() + "".join(path.read_text(errors="replace")[-2000:] for path in logs[-1:])


class Valkey(Server):
    name = "valkey"
    variable = "REDIS_URL"
    processes = ("valkey-server", "redis-server")
    stop_signal = signal.SIGTERM
    hard_signal = signal.SIGKILL

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        question = f"AUTH {self.password}\r\nCONFIG GET dir\r\nQUIT\r\n".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_LIMIT) as connection:
                connection.sendall(question)
                reply = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return False
        return f"\r\n{self.folder}\r\n".encode() in reply

    def lives_in_trouble(self) -> bool:
        """It hangs, loads much, or refuses clients. Nothing waits for it: the service goes on without Redis."""
        pid = self.pid()
        if not pid or holds_within(TROUBLE_LIMIT, lambda: self.answers() or self.pid() != pid):
            return False
        log.warning("valkey runs as process %d but does not answer; going on without it", pid)
        return True

    def prepare(self) -> None:
        self.binary = self.place.usable(find_valkey())
        self.place.make_folder(self.name)

    def configure(self) -> None:
        settings = VALKEY_SETTINGS | {"port": self.port, "requirepass": self.password, "dir": f'"{self.folder}"'}
        lines = [f"{name} {value}" for name, value in settings.items()]
        self.place.write(self.folder / "valkey.conf", "\n".join([*lines, ""]))

    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "valkey.conf")]


def set_aside(path: Path) -> None:
    if path.exists() and path.stat().st_size > LOG_SIZE:
        path.rename(path.with_suffix(".log.1"))


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def server_environment() -> dict[str, str]:
    """Ours without what would steer PostgreSQL past its configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "REGISTRY_"))}
    return {name: value for name, value in kept.items() if not name.endswith("_URL")} | {"LC_ALL": "C"}


# The interface --------------------------------------------------------------------------------------------------


def servers(data: Path) -> list[Server]:
    """Those of this data folder that the environment does not replace by servers of the user's own."""
    return [server for kind in (Postgres, Valkey) if not (server := kind(data)).taken_over]


def ensure(data: Path) -> Urls:
    """Servers that answer, found or started; safe with any number of callers at once. Raises EmbeddedError."""
    for server in servers(data):
        server.start()
    return urls(data)


def urls(data: Path) -> Urls:
    """Where the servers are, or would be: the environment first."""
    return Urls(*(os.environ.get(kind.variable) or kind(data).url for kind in (Postgres, Valkey)))


def stop(data: Path) -> None:
    """Stop both at the same time; their data stays."""
    running = servers(data)
    with Place(data).lock():
        for server in running:
            server.ask_to_stop()
        for server in running:
            server.see_gone()


@contextmanager
def use(data: Path) -> Iterator[Urls]:
    """The servers for as long as the block runs, their URLs in the environment; the last user stops them."""
    missing = [kind for kind in (Postgres, Valkey) if not os.environ.get(kind.variable)]
    if not missing:
        yield urls(data)
        return
    Place(data).open_data()
    owner = os.getpid()
    with open(data / "users.lock", "a") as users:
        lock_within(LOCK_LIMIT, users, fcntl.LOCK_SH)
        try:
            found = ensure(data)
            os.environ.update({kind.variable: kind(data).url for kind in missing})
            yield found
        finally:
            if os.getpid() == owner and locked(users, fcntl.LOCK_EX):  # a forked child shares our lock, not our duty
                stop(data)
            for kind in missing:
                os.environ.pop(kind.variable, None)


def main(arguments: list[str]) -> int:
    """`python -m registry.servers.embedded start|stop|status FOLDER`: how the supervisor starts a server while it watches."""
    action, folder = arguments[0], Path(arguments[1])
    if action == "start":
        ensure(folder)
    elif action == "stop":
        stop(folder)
    else:
        for server in servers(folder):
            print(f"{server.name} port {server.port} process {server.pid() or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
