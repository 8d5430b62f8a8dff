"""The laboratory: its network, its servers, two web and two worker hosts, two processors, and how all of it is.

It answers what tests/chaos and tests/histories ask of a service: where it is ready, what is settled, what is in its books.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import psycopg

from tests.bed import RemoteProcessor, template
from tests.bed.running import PROJECT
from tests.bed.sentinels import NAME
from tests.bed.template import FEES, TENANT
from tests.chaos.service import DELAY, OPEN, spilled
from tests.histories.disks import mounting
from tests.hosts.estate import Host
from tests.lab.network import Machine, Network, left_behind, standing_in, take_down
from tests.lab.servers import (
    ASK_LIMIT,
    PATRONI,
    POSTGRES,
    PRIMARY_PORT,
    SENTINEL,
    SUPERUSER,
    Etcd,
    Postgres,
    Proxy,
    Server,
    Valkey,
    password,
)
from tests.waiting import SCALE, eventually

START_LIMIT = 180.0 * SCALE  # seconds for each part of the start
SPILL = "32m"  # the disk of a web host, in memory
WAYS = ("direct", "haproxy")  # to the primary
PAIR, THREE = (1, 2), (1, 2, 3)
FOLDER = "registry-lab-"


class LabHost(Host):
    """An `up` on a machine of its own. A web host's spill is on a small disk."""

    def __init__(self, lab: "Laboratory", machine: Machine, role: str, **settings: str) -> None:
        self.lab, self.machine, self.role = lab, machine, role
        options = ("--no-demo", "--role", role, "--web", "1", "--workers", "1", "--max-workers", "1")
        # DEEP: with the product's own limits, not those that tests shorten.
        own = {"ALLOWED_HOSTS": f"{machine.address},127.0.0.1", "WEBHOOK_ALLOW_PRIVATE": "true", "DEEP": "1"}
        address = machine.address
        super().__init__(lab, machine.name, *options, "--host", address, address=address, **own, **settings)  # type: ignore[arg-type]
        self.disk = self.data / "spill"
        if role == "web":
            self.disk.mkdir()
            subprocess.run(mounting(self.disk, SPILL), check=True)

    def start(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return self.machine.start(command, log=log, environ=self.environ)

    def boot(self) -> None:
        self.up()

    def is_ready(self) -> bool:
        try:
            return self.is_up and self.ask("/health/ready")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        self.machine.kill()
        if self.popen:
            self.popen.wait()


class Laboratory:
    def __init__(self, way: str = WAYS[0], say: Callable[[str], None] = lambda _: None) -> None:
        """`way`: how the service reaches the primary; `say`: what is being done."""
        self.way, self.say = way, say
        self.network = Network()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.passwords = {name: password() for name in (SUPERUSER, "replicator", "registry", "redis")}
        self.key = ""
        self.hosts: list[LabHost] = []
        self.processors: dict[str, RemoteProcessor] = {}
        self.servers: list[Server] = []
        self.closing = ExitStack()
        last_first = (
            (shutil.rmtree, self.folder),
            (self._close_hosts,),
            (unmount_below, self.folder),
            (self._stop_processors,),
        )
        for what, *words in last_first:
            self.closing.callback(what, *words)
        self.closing.callback(self.network.close)
        self.struck = ""  # the machine that was struck last

    # -- Starting and stopping -------------------------------------------------------------------------------

    def build(self) -> None:
        """Everything but the service: machines, and servers that were not started yet."""
        self.network.open()
        machine, folder = self.network.machine, self.folder
        self.load = machine("load")
        self.closing.enter_context(standing_in(self.load))
        self.etcd = [Etcd(machine(f"etcd-{n}"), folder) for n in THREE]
        for one in self.etcd:
            one.members = self.etcd
        self.databases = [Postgres(machine(f"pg-{n}"), folder, self.etcd, self.passwords) for n in THREE]
        places = [machine(f"redis-{n}") for n in THREE]
        first = places[0].address
        self.caches = [Valkey(place, folder, self.passwords["redis"], first) for place in places]
        self.proxy = Proxy(machine("haproxy"), folder, self.databases)
        self.servers = [*self.etcd, *self.databases, *self.caches, self.proxy]
        place = machine("processors")
        for name, fee in FEES.items():
            self.processors[name] = RemoteProcessor(fee=float(fee), host=place.address, within=place.within)
        self.places = {f"{role}-{n}": machine(f"{role}-{n}") for role in ("web", "worker") for n in PAIR}

    async def start(self) -> None:
        self.build()  # in this thread, whose network the threads have that it starts later
        await self._servers()
        await self._service()

    async def _servers(self) -> None:
        self.say("starting etcd")
        for server in self.etcd:
            server.boot()
        await self._until(lambda: all(map(self._is_well, self.etcd)), "etcd", self.etcd)
        self.say("starting PostgreSQL under Patroni, Valkey with Sentinels, HAProxy")
        for server in self.servers[len(self.etcd) :]:
            server.boot()
        for processor in self.processors.values():
            await asyncio.to_thread(processor.__enter__)
            await asyncio.to_thread(processor.delays, DELAY)
        await self._until(lambda: self.postgres_is_whole() and self.redis_is_whole(), "the servers", self.servers)
        await asyncio.to_thread(self._make_database)

    def _make_database(self) -> None:
        with self.primary().connect() as connection:
            secret = self.passwords["registry"]
            connection.execute(f"CREATE ROLE registry LOGIN PASSWORD '{secret}'")
            connection.execute("CREATE DATABASE registry OWNER registry")

    async def _service(self) -> None:
        self.say("migrating")
        commands = [
            ["migrate", "--verbosity", "0"],
            ["tenant", "create", TENANT, "--json"],
            *(
                ["processor", "add", TENANT, name, "--kind", "http", "--url", one.url, "--fee", FEES[name]]
                for name, one in self.processors.items()
            ),
        ]
        program = [sys.executable, "-c", template.MANAGE, json.dumps(commands)]
        said = await self._command(program, DJANGO_SETTINGS_MODULE="registry.settings")
        self.key = json.loads(said.splitlines()[0])["apiKey"]
        self.say("starting two web and two worker hosts")
        for name, place in self.places.items():
            self.hosts.append(await asyncio.to_thread(LabHost, self, place, name.partition("-")[0]))
            self.hosts[-1].up()
        await self._until(self.is_ready, "the hosts", self.hosts)

    async def _until(self, question: Callable[[], bool], what: str, parts: Any) -> None:
        try:
            await eventually(lambda: asyncio.to_thread(question), within=START_LIMIT)
        except TimeoutError:
            words = "\n".join(f"--- {one}\n{one.log[-1500:]}" for one in parts)
            raise TimeoutError(f"{what}: not ready after {START_LIMIT:g} s\n{words}") from None

    def keep_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for host in self.hosts:
            (folder / f"{host.name}.log").write_text(host.log)
        for server in self.servers:
            (folder / f"{server}.log").write_text(server.log)

    def close(self) -> None:
        """Everything is gone afterwards, however far the start came, and although one of these fails."""
        self.closing.close()

    def _stop_processors(self) -> None:
        for processor in self.processors.values():
            if hasattr(processor, "process"):
                processor.stop()

    def _close_hosts(self) -> None:
        """This looks for secrets in their logs."""
        for host in self.hosts:
            if host.popen:
                host.popen.wait(ASK_LIMIT)
            host.close()

    # -- Settings --------------------------------------------------------------------------------------------------

    @property
    def direct(self) -> str:
        places = ",".join(f"{one.address}:{POSTGRES}" for one in self.databases)
        return f"postgres://registry:{self.passwords['registry']}@{places}/registry?target_session_attrs=read-write"

    @property
    def shared(self) -> dict[str, str]:
        """Of every host."""
        through = f"postgres://registry:{self.passwords['registry']}@{self.proxy.address}:{PRIMARY_PORT}/registry"
        sentinels = ",".join(f"{one.address}:{SENTINEL}" for one in self.caches)
        secret = self.passwords["redis"]
        return {
            "DATABASE_URL": self.direct if self.way == "direct" else through,
            "REDIS_URL": f"redis+sentinel://:{secret}@{sentinels}/{NAME}/0?sentinel_password={secret}",
            "SECRET_KEY": f"lab-{self.passwords['registry'] * 2}",
            "DB_POOL_MIN": "1",
        }

    # -- What tests/chaos and tests/histories ask ---------------------------------------------------------------------

    @property
    def web(self) -> list[LabHost]:
        return [host for host in self.hosts if host.role == "web"]

    @property
    def workers(self) -> list[LabHost]:
        return [host for host in self.hosts if host.role == "worker"]

    def is_ready(self) -> bool:
        return all(host.is_ready() for host in self.hosts)

    def is_settled(self, before: datetime) -> bool:
        return not self.spilled() and self.has_closed(before)

    def has_closed(self, before: datetime) -> bool:
        """Whether every stored payment that was accepted up to `before` is settled."""
        try:
            with self.connect() as connection:
                return connection.execute(OPEN, [before]).fetchone() == (0,)
        except psycopg.OperationalError:
            return False

    def spilled(self) -> int:
        return sum(spilled(host.data) for host in self.web)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.direct, autocommit=True, connect_timeout=int(ASK_LIMIT))

    def get(self, path: str) -> Any:
        return self.web[0].get(path, key=self.key)

    async def manage(self, *arguments: str) -> str:
        return await self._command([sys.executable, "manage.py", *arguments])

    async def _command(self, command: list[str], **more: str) -> str:
        """In the network of the load, which is this process's. Raises RuntimeError with its complaint."""
        environ = {**template.service_environment(self.folder), **self.shared, "REGISTRY_HOST": "load", **more}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=PROJECT, env=environ, start_new_session=True,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, complaint = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command[1:3])}: {complaint.decode()}{out.decode()}")
        return out.decode()

    def last_words(self) -> str:
        return "\n".join(f"--- {host.name}\n{host.log[-2000:]}" for host in self.hosts)

    def booked(self) -> set[str]:
        return {name for processor in self.processors.values() for name in processor.booked}

    # -- How the servers are -----------------------------------------------------------------------------------------

    def _is_well(self, etcd: Etcd) -> bool:
        return self._asked(f"http://{etcd.client}/health").get("health") == "true"

    def _asked(self, url: str) -> dict[str, Any]:
        with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=ASK_LIMIT) as answer:
            return json.load(answer)
        return {}

    def members(self) -> dict[str, dict[str, Any]]:
        """Of the cluster, by name, as the first Patroni that answers knows them."""
        for one in self.databases:
            if found := self._asked(f"http://{one.address}:{PATRONI}/cluster").get("members"):
                return {member["name"]: member for member in found}
        return {}

    def primary(self) -> Postgres:
        """Raises LookupError while nobody is."""
        for one in self.databases:
            if self._asked(f"http://{one.address}:{PATRONI}/primary").get("role") in ("master", "primary"):
                return one
        raise LookupError("no server is the primary")

    def replicas(self) -> list[Postgres]:
        primary = self.primary()
        return [one for one in self.databases if one is not primary]

    def postgres_is_whole(self) -> bool:
        """A primary, a synchronous standby, and a third that follows as well."""
        members = self.members()
        roles = sorted(member["role"] for member in members.values())
        running = all(member.get("state") in ("running", "streaming") for member in members.values())
        return running and roles == ["leader", "replica", "sync_standby"] and self._all_stream()

    def _all_stream(self) -> bool:
        try:
            with self.primary().connect() as connection:
                said = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
                return said.fetchone() == (len(self.databases) - 1,)
        except (LookupError, psycopg.OperationalError):
            return False

    def cache_master(self) -> Valkey:
        for one in self.caches:
            if one.role() == "master":
                return one
        raise LookupError("no Valkey is the master")

    def cache_replicas(self) -> list[Valkey]:
        master = self.cache_master()
        return [one for one in self.caches if one is not master]

    @property
    def database_machines(self) -> list[Machine]:
        """The ways to PostgreSQL too."""
        return [one.machine for one in (*self.databases, self.proxy)]

    def redis_is_whole(self) -> bool:
        return sorted(one.role() for one in self.caches) == ["master", "slave", "slave"]

    def is_whole(self) -> bool:
        """Every server, so that the next strike meets one trouble only."""
        return all(map(self._is_well, self.etcd)) and self.postgres_is_whole() and self.redis_is_whole()

    async def switch_over(self) -> None:
        """Planned: Patroni makes the synchronous standby the primary."""
        primary, members = self.primary(), self.members()
        [candidate] = [name for name, member in members.items() if member["role"] == "sync_standby"]
        words = ("switchover", "--master", str(primary), "--candidate", candidate, "--force")
        process = await asyncio.create_subprocess_exec(
            "patronictl", "-c", str(primary.configuration), *words, start_new_session=True,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"patronictl: {out.decode()}")


@asynccontextmanager
async def laboratory(way: str = WAYS[0], say: Callable[[str], None] = lambda _: None) -> AsyncIterator[Laboratory]:
    """Built and started; taken down at the end of the block, also where the start failed."""
    clear_away()
    lab = Laboratory(way, say)
    try:
        await lab.start()
        yield lab
    finally:
        say("taking everything down")
        with _undisturbed():
            lab.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second ^C does not end what cleans up after the first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clear_away() -> None:
    """What a laboratory left that was killed."""
    for name in left_behind():
        take_down(name)
        number = name.rpartition("-")[2]
        for folder in Path("/tmp").glob(f"{FOLDER}{number}-*"):
            unmount_below(folder)
            shutil.rmtree(folder)


def unmount_below(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in mounts:
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)
