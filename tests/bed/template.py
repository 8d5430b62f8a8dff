"""Originals that are made once and copied: the test database of each process, a PostgreSQL, the data folder of a whole service.

Whoever comes first makes the original, under a lock; every other process of the run copies it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import django
import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import setup_databases

from registry.servers import embedded
from registry.servers.binaries import find_postgres, version_of
from registry.servers.data_folder import DataFolder
from registry.servers.processes import free_port
from tests.bed.running import PROJECT, PYTHONPATH

NOTES = PROJECT / ".data" / "test" / "originals"  # which run made which original
DATABASE = "test_original"
TENANT = "shop"  # the tenant of a copied service
FEES = {"default": "0.05", "fallback": "0.15"}  # of its processors
SERVERS = ("postgres", "valkey")
APPS = ("registry", "queueing", "payments")


def run_name() -> str:
    """The processes of one run share this name."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"alone-{os.getpid()}"


class Original:
    """Which run made it, and where it is."""

    def __init__(self, file: IO[str]) -> None:
        file.seek(0)
        run, _, self.place = file.read().partition(" ")
        self.file, self.made = file, run == run_name()

    def is_made(self, place: str) -> None:
        self.file.truncate(0)
        self.file.write(f"{run_name()} {place}")
        self.place = place


@contextmanager
def original(name: str) -> Iterator[Original]:
    """Hold the lock of an original. The first caller of a run makes it and then calls `is_made`."""
    NOTES.mkdir(parents=True, exist_ok=True)
    with (NOTES / name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Original(file)


# -- The test database ---------------------------------------------------------------------------------------


def make_database() -> list[Any]:
    """The test database of this process: migrated by the first process of a run, copied by the others."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        return setup_databases(verbosity=0, interactive=False)
    with original("database") as found:
        if not found.made:
            _make_original()
            found.is_made(DATABASE)
        return _copy_original()


def _make_original() -> None:
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    migrated = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = name
    end_pooled_sessions(DATABASE, migrated)
    _administer(f'DROP DATABASE IF EXISTS "{DATABASE}"', f'ALTER DATABASE "{migrated}" RENAME TO "{DATABASE}"')


def _copy_original() -> list[Any]:
    name = connection.settings_dict["NAME"]
    copy = connection.creation._get_test_db_name()
    end_pooled_sessions(DATABASE, copy)
    _administer(f'DROP DATABASE IF EXISTS "{copy}"', f'CREATE DATABASE "{copy}" TEMPLATE "{DATABASE}"')
    connection.close()
    connection.settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = copy
    with connection.cursor() as cursor:  # else the processes would receive each other's messages from Redis
        cursor.execute("UPDATE registry_identity SET name = DEFAULT")
    return [(connection, name, True)]


def end_pooled_sessions(*databases: str) -> None:
    """End the connections that a pooler keeps open to a database: while there are any, it cannot be copied, renamed or dropped."""
    if direct := os.environ.get("DATABASE_DIRECT_URL"):
        with psycopg.connect(direct, dbname="postgres", autocommit=True) as server:
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY(%s)",
                [list(databases)],
            )


def _administer(*statements: str) -> None:
    with connection._nodb_cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


# -- A PostgreSQL of a test's own --------------------------------------------------------------------------------


def fill_postgres(folder: Path) -> None:
    """A PostgreSQL with the schema, in an empty folder. The original is kept until the schema changes, also for later runs."""
    with original("postgres"):
        kept = NOTES / f"postgres-{version_of(find_postgres().executable)}-{_schema()}"
        if not kept.exists():
            for old in NOTES.glob("postgres-*"):
                shutil.rmtree(old)
            _make_postgres(folder)
            subprocess.run(["cp", "-a", str(folder), f"{kept}.new"], check=True)
            Path(f"{kept}.new").rename(kept)
            return
    subprocess.run(["cp", "-a", f"{kept}/.", str(folder)], check=True)
    _move(folder)


def _schema() -> str:
    """A digest of what makes the schema."""
    files = sorted(path for app in APPS for path in (PROJECT / app / "migrations").rglob("*") if path.is_file())
    contents = (path.read_bytes() for path in files if path.suffix in (".py", ".sql"))
    return hashlib.sha256(b"".join(contents) + django.__version__.encode()).hexdigest()[:12]


def _make_postgres(folder: Path) -> None:
    DataFolder(folder).open_data()
    server = embedded.Postgres(folder)
    server.start()
    environ = {**os.environ, "DATABASE_URL": server.url}
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=PROJECT, env=environ, check=True)
    server.stop()


# -- The data folder of a whole service ------------------------------------------------------------------------


def fill(folder: Path) -> None:
    """Make everything in an empty folder that `up` would: the schema; and a tenant with a key and two processors."""
    copy_of("service", _make_service, folder)


def copy_of(name: str, make: Callable[[Path], object], folder: Path) -> None:
    """Fill an empty folder from the original of this name, which the first caller of a run makes."""
    with original(name) as found:
        if not found.made:
            shutil.rmtree(found.place or folder / "none", ignore_errors=True)  # of the run before
            place = empty_folder("registry-original-")
            make(place)
            found.is_made(str(place))
    subprocess.run(["cp", "-a", f"{found.place}/.", str(folder)], check=True)
    folder.chmod(0o711)
    _move(folder)


def empty_folder(prefix: str = "registry-test-") -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)  # where root starts it, the servers' user must get in
    return folder


def stop_servers(folder: Path) -> None:
    """Also while the environment names other servers."""
    for server in (embedded.Postgres(folder), embedded.Valkey(folder)):
        server.stop()


def tenant_key(folder: Path) -> str:
    """The key of the tenant in a copied folder."""
    return json.loads((folder / "tenant.json").read_text())["apiKey"]


def set_processors(folder: Path, addresses: dict[str, str]) -> None:
    """Point the processors at these addresses, by name. `up` finds the PostgreSQL that this starts."""
    server = embedded.Postgres(folder)
    server.start()
    with psycopg.connect(server.url) as connection:
        for name, url in addresses.items():
            connection.execute("UPDATE payments_processor SET url = %s WHERE name = %s", [url, name])


def service_environment(folder: Path) -> dict[str, str]:
    """The environment of a command that works in this folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return {**kept, "REGISTRY_DATA": str(folder), "PYTHONPATH": PYTHONPATH}


# One process for all commands: starting one for each would take longer than what they do.
MANAGE = """
import django, json, sys
django.setup()
from django.core.management import call_command
for command in json.loads(sys.argv[1]):
    call_command(*command)
"""


def _make_service(folder: Path) -> None:
    kind = ("--kind", "http", "--url", "http://127.0.0.1:1")
    commands = [
        ["migrate", "--verbosity", "0"],
        ["tenant", "create", TENANT, "--json"],
        *(["processor", "add", TENANT, name, *kind, "--fee", fee] for name, fee in FEES.items()),
    ]
    (folder / "tenant.json").write_text(call_commands(folder, commands).splitlines()[0])


def call_commands(folder: Path, commands: list[list[str]]) -> str:
    """What these commands say, which are called on the servers of a folder that is an original."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("DATABASE_URL", "REDIS_URL"):
            patch.delenv(variable, raising=False)
        with embedded.use(folder) as urls:
            servers = {"DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url, "DB_POOL_MIN": "1"}
            environ = service_environment(folder) | servers | {"DJANGO_SETTINGS_MODULE": "registry.settings"}
            program = [sys.executable, "-c", MANAGE, json.dumps(commands)]
            said = subprocess.run(
                program, cwd=PROJECT, env=environ, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
    for left in folder.glob("identity-*"):  # named after the port, which changes
        left.unlink()
    return said


def _move(folder: Path) -> None:
    """Ports and place of its own: copies run side by side."""
    kept = DataFolder(folder)
    state = kept.state()
    moved = {name: state[name] | {"port": free_port()} for name in SERVERS if name in state}
    kept.keep(state | moved | {"folder": str(folder)})
