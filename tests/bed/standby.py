"""Two PostgreSQL servers, one of which follows the other by streaming replication; and what happens to the first."""

import os
import shutil
import signal
import subprocess

import psycopg

from registry.servers import embedded
from registry.servers.binaries import find_postgres
from registry.servers.data_folder import DataFolder
from registry.servers.processes import free_port, holds_within, signal_process
from registry.servers.server import server_environment
from tests.bed.template import empty_folder

FOLLOW_LIMIT = 60.0  # seconds until a standby streams
FOLLOWED = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"


class Pair:
    """A primary and its standby; which is which changes. `synchronous`: a commit waits for the standby's disk."""

    def __init__(self, primary: embedded.Postgres, *, synchronous: bool) -> None:
        """`primary` runs; the standby is made and started here."""
        self.primary, self.synchronous = primary, synchronous
        folder = empty_folder("registry-standby-")
        kept = DataFolder(folder)
        kept.keep({"folder": str(folder), "postgres": {"port": free_port(), "password": primary.password}})
        self.folders = [primary.data_folder.data, folder]
        self.standby = embedded.Postgres(folder)
        self.servers = (self.primary, self.standby)  # in the order of the URL, always
        self.follow()

    @property
    def url(self) -> str:
        """Both hosts, in an order that does not change."""
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"postgres://registry:{self.primary.password}@{places}/registry?target_session_attrs=read-write"

    def follow(self) -> None:
        """Make the standby anew from the primary, and wait until it streams."""
        standby, primary = self.standby, self.primary
        if standby.folder.exists():
            standby.stop()
            shutil.rmtree(standby.folder)
        source = (
            f"host=127.0.0.1 port={primary.port} user=registry password={primary.password} application_name=standby"
        )
        tool = standby.data_folder.usable(find_postgres()).parent / "pg_basebackup"
        standby.data_folder.folder.chmod(0o711)
        standby.data_folder.make_folder("postgres")
        subprocess.run(
            [str(tool), "-d", source, "-D", str(standby.folder), "-R", "--checkpoint=fast", "--no-sync"],
            cwd=standby.folder, env=server_environment(), check=True, capture_output=True, **standby.data_folder.as_process,
        )  # fmt: skip
        standby.data_folder.write(standby.folder / "local.conf", "synchronous_standby_names = ''\n")
        standby.start()
        wanted = "sync" if self.synchronous else "async"
        with primary.connect() as connection:
            if self.synchronous:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
                connection.execute("SELECT pg_reload_conf()")
            sql = f"{FOLLOWED} AND sync_state = %s"
            assert holds_within(FOLLOW_LIMIT, lambda: connection.execute(sql, [wanted]).fetchone() is not None)

    def is_followed(self) -> bool:
        with self.primary.connect() as connection:
            return connection.execute(FOLLOWED).fetchone() is not None

    def promote(self) -> None:
        """What a manager of fail-overs does once it has decided; the servers change their parts."""
        with self.standby.connect() as connection:
            connection.execute(
                "ALTER SYSTEM RESET synchronous_standby_names"
            )  # copied from the primary: nobody follows yet
            connection.execute("SELECT pg_reload_conf()")
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)
        self.primary, self.standby = self.standby, self.primary

    def kill(self) -> None:
        """Kill every process of the primary."""
        for pid in self.primary.pids():
            signal_process(pid, signal.SIGKILL)
        assert holds_within(FOLLOW_LIMIT, lambda: not self.primary.pids())

    def hold_back(self) -> None:
        """Cut the standby off: what the primary writes from now on, it does not receive."""
        with self.standby.connect() as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            sql = "SELECT 1 FROM pg_stat_wal_receiver"
            assert holds_within(FOLLOW_LIMIT, lambda: connection.execute(sql).fetchone() is None)

    def freeze(self) -> list[int]:
        """Stop every process of the primary; it accepts connections and says nothing. Returns them."""
        pids = self.primary.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    def switch(self) -> None:
        """A planned switch: the primary shuts down once the standby has everything, and follows it afterwards."""
        os.kill(self.primary.pid() or 0, signal.SIGINT)
        assert holds_within(FOLLOW_LIMIT, lambda: not self.primary.pids())
        self.promote()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=2)

    def close(self) -> None:
        for server in self.servers:
            for pid in server.pids():
                signal_process(pid, signal.SIGCONT)
            server.stop()
        shutil.rmtree(self.folders[1])


def thaw(pids: list[int]) -> None:
    for pid in pids:
        signal_process(pid, signal.SIGCONT)
