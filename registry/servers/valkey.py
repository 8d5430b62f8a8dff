"""The embedded Valkey: its configuration, and what happens when it runs and does not answer."""

import logging
import signal
import socket

from registry.servers.binaries import find_valkey
from registry.servers.processes import holds_within
from registry.servers.server import ANSWER_LIMIT, TROUBLE_LIMIT, Server

log = logging.getLogger(__name__)

VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # the append-only file is the persistence
    "maxmemory-policy": "noeviction",
}


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
        """True for a Valkey that hangs, loads a large file or refuses clients: the service goes on without Redis."""
        pid = self.pid()
        if not pid or holds_within(TROUBLE_LIMIT, lambda: self.answers() or self.pid() != pid):
            return False
        log.warning("valkey runs as process %d but does not answer; going on without it", pid)
        return True

    def prepare(self) -> None:
        self.binary = self.data_folder.usable(find_valkey())
        self.data_folder.make_folder(self.name)

    def configure(self) -> None:
        settings = VALKEY_SETTINGS | {"port": self.port, "requirepass": self.password, "dir": f'"{self.folder}"'}
        lines = [f"{name} {value}" for name, value in settings.items()]
        self.data_folder.write(self.folder / "valkey.conf", "\n".join([*lines, ""]))

    def command(self) -> list[str]:
        return [str(self.binary), str(self.folder / "valkey.conf")]
