"""The embedded PostgreSQL: initdb, its configuration, its database."""

import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from registry.servers.binaries import EmbeddedError, find_postgres, version_of
from registry.servers.data_folder import sync
from registry.servers.processes import read_proc
from registry.servers.server import ANSWER_LIMIT, Server, server_environment

POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 200,
    # A payment answered with 202 is on the disk.
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
    # No statements and no details: they contain sessions and payers' data. The service logs its own errors.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


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
        """Connect to the maintenance database: `registry` may not exist yet."""
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
        self.binary = self.data_folder.usable(find_postgres())
        if not self.folder.exists():
            self.initialise()
        have = (self.folder / "PG_VERSION").read_text().strip()
        if have != (want := str(version_of(self.binary))):
            raise EmbeddedError(f"{self.folder} was written by PostgreSQL {have}, {self.binary} is {want}")
        (self.folder / "postmaster.pid").unlink(missing_ok=True)  # no server of this folder runs: pids() was checked

    def initialise(self) -> None:
        """Run initdb in a folder beside the final one and rename it at the end, so that a killed start leaves nothing half made."""
        for wreck in self.data_folder.folder.glob("postgres.new-*"):
            shutil.rmtree(wreck, ignore_errors=True)
        fresh = self.data_folder.make_folder(f"postgres.new-{secrets.token_hex(4)}")
        password = self.data_folder.folder / f"{fresh.name}.password"
        self.data_folder.write(password, self.password)
        try:
            self.initdb(fresh, "--no-sync", f"--pwfile={password}", *self.options())
            self.initdb(fresh, "--sync-only")
        finally:
            password.unlink()
        fresh.rename(self.folder)
        sync(self.data_folder.folder)

    def options(self) -> list[str]:
        builtin = ["--locale-provider=builtin"] if version_of(self.binary) >= 17 else []
        access = ["--username=registry", "--auth=scram-sha-256"]
        return [*access, "--encoding=UTF8", "--locale=C.UTF-8", *builtin, "--data-checksums"]

    def initdb(self, folder: Path, *options: str) -> None:
        command = [str(self.binary.parent / "initdb"), "-D", str(folder), *options]
        done = subprocess.run(
            command, cwd=folder, env=server_environment(), capture_output=True, text=True, **self.data_folder.as_process
        )
        if done.returncode:
            raise EmbeddedError(f"initdb failed\n{done.stdout}\n{done.stderr}")

    def configure(self) -> None:
        settings = POSTGRES_SETTINGS | {"port": self.port}
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        lines = ["# Written at every start; put your own settings into local.conf.", *lines]
        self.data_folder.write(
            self.folder / "postgresql.conf", "\n".join([*lines, "include_if_exists = 'local.conf'", ""])
        )

    def command(self) -> list[str]:
        return [str(self.binary), "-D", str(self.folder)]

    def after_start(self) -> None:
        with self.connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'registry'").fetchone():
                connection.execute("CREATE DATABASE registry")

    def last_words(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        return super().last_words() + "".join(path.read_text(errors="replace")[-2000:] for path in logs[-1:])
