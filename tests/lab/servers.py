"""The servers beside the service, one to a machine: etcd, PostgreSQL with Patroni, Valkey with a Sentinel, HAProxy."""

import json
import os
import secrets
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis

from registry.servers.binaries import find_valkey, unprivileged_account
from tests.bed.sentinels import CONFIGURATION, DOWN_AFTER, NAME
from tests.histories.disks import mounting
from tests.lab.needs import postgres_folder
from tests.lab.network import Machine

POSTGRES, PATRONI, PRIMARY_PORT = 5432, 8008, 5000
ETCD, ETCD_PEERS = 2379, 2380
REDIS, SENTINEL = 6379, 26379
DISK = "512m"  # of each PostgreSQL, in memory: its data is about 100 MB
ASK_LIMIT = 2.0  # seconds for one question
SUPERUSER = "postgres"


class Server(ABC):
    """A machine with its programs and its folder. `boot` starts them, also after `machine.kill`."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder / machine.name
        self.folder.mkdir(mode=0o711)

    def __str__(self) -> str:
        return self.machine.name

    @property
    def address(self) -> str:
        return self.machine.address

    @abstractmethod
    def boot(self) -> None: ...

    def run(self, *command: str | Path, **options: Any) -> None:
        with (self.folder / "log").open("ab") as log:
            self.machine.start(command, log=log, cwd=self.folder, **options)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


class Etcd(Server):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.members: Sequence[Etcd] = ()

    @property
    def client(self) -> str:
        return f"{self.address}:{ETCD}"

    @property
    def peer(self) -> str:
        return f"http://{self.address}:{ETCD_PEERS}"

    def boot(self) -> None:
        """Its limits are wide: a machine that is everybody's host is slow now and then."""
        all_of_them = ",".join(f"{one}={one.peer}" for one in self.members)
        own, client = (
            ("--initial-advertise-peer-urls", "--listen-peer-urls"),
            ("--advertise-client-urls", "--listen-client-urls"),
        )
        self.run(
            "etcd", "--name", str(self), "--data-dir", self.folder / "data", "--logger", "zap", "--log-level", "warn",
            *(word for option in own for word in (option, self.peer)),
            *(word for option in client for word in (option, f"http://{self.client}")),
            "--initial-cluster", all_of_them, "--initial-cluster-state", "new", "--initial-cluster-token", "lab",
            "--enable-v2", "--heartbeat-interval", "250", "--election-timeout", "2500", "--auto-compaction-retention", "1h",
        )  # fmt: skip


class Postgres(Server):
    """A PostgreSQL that Patroni starts, stops and promotes."""

    def __init__(self, machine: Machine, folder: Path, etcd: Sequence[Etcd], passwords: Mapping[str, str]) -> None:
        super().__init__(machine, folder)
        self.user = unprivileged_account().as_process
        self.passwords = passwords
        os.chown(self.folder, self.user["user"], self.user["group"])
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        subprocess.run(mounting(self.disk, DISK), check=True)
        os.chown(self.disk, self.user["user"], self.user["group"])
        self.disk.chmod(0o700)
        self.configuration = self.folder / "patroni.yml"
        self.configuration.write_text(json.dumps(self._configured(etcd), indent=1))  # JSON is YAML too
        os.chown(self.configuration, self.user["user"], self.user["group"])
        self.configuration.chmod(0o600)

    def boot(self) -> None:
        self.run("patroni", self.configuration, user=self.user, environ={**os.environ, "HOME": str(self.folder)})

    def _configured(self, etcd: Sequence[Etcd]) -> dict[str, Any]:
        """docs/scale.md names those that a service needs. `etcd`, by its second version's API: with the third's, Patroni 3.0 takes
        the leader's key back when it was frozen and another one has it."""
        users = {
            "superuser": {"username": SUPERUSER, "password": self.passwords[SUPERUSER]},
            "replication": {"username": "replicator", "password": self.passwords["replicator"]},
        }
        access = [
            "local all all trust",
            "host all all 10.77.0.0/24 scram-sha-256",
            "host replication all 10.77.0.0/24 scram-sha-256",
        ]
        dynamic = {
            "ttl": 20, "loop_wait": 5, "retry_timeout": 5, "master_start_timeout": 0,
            "synchronous_mode": True, "failsafe_mode": True, "maximum_lag_on_failover": 33554432,
            "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
        }  # fmt: skip
        return {
            "scope": "registry", "name": str(self),
            "restapi": {"listen": f"{self.address}:{PATRONI}", "connect_address": f"{self.address}:{PATRONI}"},
            "etcd": {"hosts": [one.client for one in etcd]},
            "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"]},
            "postgresql": {
                "listen": f"{self.address}:{POSTGRES}", "connect_address": f"{self.address}:{POSTGRES}",
                "data_dir": str(self.disk / "data"), "bin_dir": str(postgres_folder()), "pgpass": str(self.folder / "pgpass"),
                "authentication": users, "pg_hba": access, "parameters": {"unix_socket_directories": str(self.folder)},
                "remove_data_directory_on_rewind_failure": True, "remove_data_directory_on_diverged_timelines": True,
            },
        }  # fmt: skip

    def connect(self) -> psycopg.Connection:
        """As the superuser, to this server and no other."""
        place = {"host": self.address, "port": POSTGRES, "user": SUPERUSER, "password": self.passwords[SUPERUSER]}
        return psycopg.connect(**place, dbname="postgres", autocommit=True, connect_timeout=int(ASK_LIMIT))


PARAMETERS = {
    "max_connections": 200, "shared_buffers": "32MB", "wal_sender_timeout": "5s", "wal_receiver_timeout": "5s",
    "min_wal_size": "32MB", "max_wal_size": "96MB", "wal_keep_size": "32MB", "max_slot_wal_keep_size": "96MB",
    "tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": "10s",
}  # fmt: skip


class Valkey(Server):
    """A Valkey, and a Sentinel beside it. The first follows nobody at its first start; then the Sentinels decide."""

    def __init__(self, machine: Machine, folder: Path, password: str, first: str) -> None:
        super().__init__(machine, folder)
        self.password = password
        self.binary = find_valkey().executable
        lines = [
            f"bind {self.address}", f"port {REDIS}", f"dir {self.folder}", f"requirepass {password}", f"masterauth {password}",
            "appendonly yes", "appendfsync everysec", "save ''", "repl-timeout 10",
        ]  # fmt: skip
        if first != self.address:
            lines.append(f"replicaof {first} {REDIS}")
        (self.folder / "valkey.conf").write_text("\n".join(lines).replace("''", '""') + "\n")
        values = {"own_host": self.address, "own_port": SENTINEL, "folder": self.folder, "password": password}
        values |= {"name": NAME, "host": first, "port": REDIS, "down_after": DOWN_AFTER}
        (self.folder / "sentinel.conf").write_text(CONFIGURATION.format(**values))

    def boot(self) -> None:
        self.run(self.binary, self.folder / "valkey.conf")
        self.run(self.binary, self.folder / "sentinel.conf", "--sentinel")

    def ask(self, port: int = REDIS) -> redis.Redis:
        return redis.Redis(self.address, port, password=self.password, socket_timeout=1, socket_connect_timeout=1)

    def role(self) -> str:
        """`master`, `slave`; nothing where it does not answer."""
        try:
            with self.ask() as client:
                said = client.role()
        except redis.RedisError:
            return ""
        name = said[0].decode() if isinstance(said[0], bytes) else said[0]
        linked = name == "master" or said[3] in (b"connected", "connected")
        return name if linked else ""


class Proxy(Server):
    """HAProxy: one port for the primary, by what Patroni says of each server."""

    def __init__(self, machine: Machine, folder: Path, servers: Sequence[Postgres]) -> None:
        super().__init__(machine, folder)
        places = "".join(f"    server {one} {one.address}:{POSTGRES} check port {PATRONI}\n" for one in servers)
        (self.folder / "haproxy.cfg").write_text(PROXY.format(port=PRIMARY_PORT) + places)

    def boot(self) -> None:
        self.run("haproxy", "-db", "-f", self.folder / "haproxy.cfg")


PROXY = """\
global
    maxconn 2000
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout check 2s
listen primary
    bind *:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
"""


def password() -> str:
    return secrets.token_hex(16)
