"""Two Valkey servers, one of which follows the other, and three Sentinels that decide which is the master."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from registry.servers import embedded
from registry.servers.data_folder import DataFolder
from registry.servers.processes import free_port, holds_within, signal_process
from registry.servers.server import server_environment
from tests.bed.template import empty_folder

NAME = "payments"  # of the master
HOST = "127.0.0.1"
LIMIT = 30.0  # seconds until the Sentinels know each other and both servers
IN_STEP = 200  # milliseconds for a replica to have a write
DOWN_AFTER = 1000  # milliseconds without an answer, after which a Sentinel takes a server for dead

CONFIGURATION = """\
bind {own_host}
port {own_port}
dir {folder}
requirepass {password}
sentinel sentinel-pass {password}
sentinel monitor {name} {host} {port} 2
sentinel auth-pass {name} {password}
sentinel down-after-milliseconds {name} {down_after}
sentinel failover-timeout {name} 5000
"""


class Sentinels:
    """Everything of one master's name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.password = folder, secrets.token_hex(24)
        self.servers = [self._server("first"), self._server("second")]
        self.ports = [free_port() for _ in range(3)]
        self.processes: dict[int, subprocess.Popen] = {}

    def _server(self, name: str) -> embedded.Valkey:
        """The password is the same for both, as Sentinels want it."""
        folder = self.folder / name
        folder.mkdir(mode=0o711)
        DataFolder(folder).keep({"folder": str(folder), "valkey": {"port": free_port(), "password": self.password}})
        return embedded.Valkey(folder)

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://:{self.password}@{places}/{NAME}/0?sentinel_password={self.password}"

    def start(self) -> None:
        first, second = self.servers
        for server in self.servers:
            server.start()
            with self.client(server.port) as client:
                client.config_set("masterauth", self.password)
        with self.client(second.port) as client:
            client.replicaof("127.0.0.1", first.port)
        for port in self.ports:
            self._start_sentinel(port)
        assert holds_within(LIMIT, self._know_each_other)

    def _start_sentinel(self, port: int) -> None:
        kept = self.servers[0].data_folder
        folder = kept.make_folder(f"sentinel-{port}")
        values = {"own_port": port, "folder": folder, "password": self.password, "name": NAME}
        values |= {"port": self.servers[0].port, "down_after": DOWN_AFTER, "host": HOST, "own_host": HOST}
        kept.write(folder / "sentinel.conf", CONFIGURATION.format(**values))
        self.processes[port] = subprocess.Popen(
            [str(self.servers[0].binary), str(folder / "sentinel.conf"), "--sentinel"],
            cwd=folder, env=server_environment(), stdout=subprocess.DEVNULL, start_new_session=True, **kept.as_process,
        )  # fmt: skip

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, password=self.password, socket_timeout=1, socket_connect_timeout=1)

    def _know_each_other(self) -> bool:
        for port in self.ports:
            try:
                with self.client(port) as sentinel:
                    state = sentinel.sentinel_master(NAME)
            except redis.RedisError:
                return False
            if state["num-other-sentinels"] < 2 or state["num-slaves"] < 1 or state["is_odown"]:
                return False
        return True

    def master(self) -> embedded.Valkey | None:
        """As a Sentinel sees it, and as the server itself does."""
        for server in self.servers:
            try:
                with self.client(server.port) as client:
                    role = client.role()[0]
                with self.client(self.ports[0]) as sentinel:
                    known = sentinel.sentinel_get_master_addr_by_name(NAME)
            except redis.RedisError:
                continue
            if role in (b"master", "master") and known and int(known[1]) == server.port:
                return server
        return None

    def follows(self) -> bool:
        """Whether the other server is a replica that is in step: it has what the master has just written. One that the master
        calls online may not acknowledge anything yet."""
        master = self.master()
        if not master:
            return False
        try:
            with self.client(master.port) as client:
                client.set("in-step", secrets.token_hex(8))
                return client.wait(1, IN_STEP) == 1 and self._know_each_other()
        except redis.RedisError:  # it has just become a replica
            return False

    def bring_back(self, server: embedded.Valkey) -> None:
        """A server that was struck runs again; the Sentinels make it a replica."""
        thaw(server.pids())
        server.start()
        with self.client(server.port) as client:
            client.config_set("masterauth", self.password)

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        for server in self.servers:
            thaw(server.pids())
            server.stop()


def freeze(server: embedded.Valkey) -> list[int]:
    pids = server.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def thaw(pids: list[int]) -> None:
    for pid in pids:
        signal_process(pid, signal.SIGCONT)


def kill(server: embedded.Valkey) -> None:
    for pid in server.pids():
        os.kill(pid, signal.SIGKILL)
    assert holds_within(LIMIT, lambda: not server.pids())


@contextmanager
def sentinels() -> Iterator[Sentinels]:
    folder = empty_folder("registry-sentinels-")
    made = Sentinels(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
