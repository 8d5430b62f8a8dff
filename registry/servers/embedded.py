"""PostgreSQL and Valkey from wheels, one pair per data folder: start, stop and use both. Knows nothing of Django.

`DATABASE_URL` and `REDIS_URL` in the environment take a server's place.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.servers.binaries import EmbeddedError
from registry.servers.data_folder import LOCK_LIMIT, DataFolder, lock_within, locked
from registry.servers.postgres import Postgres
from registry.servers.server import Server
from registry.servers.valkey import Valkey

__all__ = ["EmbeddedError", "Postgres", "Server", "Urls", "Valkey", "ensure", "servers", "stop", "urls", "use"]


@dataclass(frozen=True)
class Urls:
    database_url: str
    redis_url: str


def servers(data: Path) -> list[Server]:
    """The embedded servers of this data folder, without those that a URL in the environment replaces."""
    return [server for kind in (Postgres, Valkey) if not (server := kind(data)).taken_over]


def ensure(data: Path) -> Urls:
    """Start the servers that do not run yet; any number of callers may do so at once. Raises EmbeddedError."""
    for server in servers(data):
        server.start()
    return urls(data)


def urls(data: Path) -> Urls:
    """The servers' URLs: from the environment if set there, else of the embedded servers, whether they run or not."""
    return Urls(*(os.environ.get(kind.variable) or kind(data).url for kind in (Postgres, Valkey)))


def stop(data: Path) -> None:
    """Stop both servers at the same time; their data stays."""
    running = servers(data)
    with DataFolder(data).lock():
        for server in running:
            server.ask_to_stop()
        for server in running:
            server.see_gone()


@contextmanager
def use(data: Path) -> Iterator[Urls]:
    """Run the servers while the block runs, with their URLs in the environment; the last process that uses them stops them."""
    missing = [kind for kind in (Postgres, Valkey) if not os.environ.get(kind.variable)]
    if not missing:
        yield urls(data)
        return
    DataFolder(data).open_data()
    owner = os.getpid()
    with open(data / "users.lock", "a") as users:
        lock_within(LOCK_LIMIT, users, fcntl.LOCK_SH)
        try:
            found = ensure(data)
            os.environ.update({kind.variable: kind(data).url for kind in missing})
            yield found
        finally:
            if os.getpid() == owner and locked(
                users, fcntl.LOCK_EX
            ):  # a forked child shares our lock but must not stop the servers
                stop(data)
            for kind in missing:
                os.environ.pop(kind.variable, None)


def main(arguments: list[str]) -> int:
    """`python -m registry.servers.embedded start|stop|status FOLDER`: the supervisor starts a server this way without blocking its loop."""
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
