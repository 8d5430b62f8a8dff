"""A Valkey of a test's own, and its kinds of trouble: it refuses writes, refuses clients, or does not respond."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from registry.servers import embedded

type Change = Callable[[redis.Redis], Any]


@contextmanager
def own_valkey() -> Iterator[embedded.Valkey]:
    folder = Path(tempfile.mkdtemp(prefix="registry-test-", dir="/tmp"))
    folder.chmod(0o711)
    server = embedded.Valkey(folder)
    server.start()
    try:
        yield server
    finally:
        if pid := server.pid():
            os.kill(pid, signal.SIGCONT)
        server.stop()
        shutil.rmtree(folder)


def _configure(**settings: Any) -> Change:
    return lambda client: [client.config_set(name.replace("_", "-"), value) for name, value in settings.items()]


def _fail_to_save(client: redis.Redis) -> None:
    """A background save that cannot be written, with the rule that no write is taken then."""
    client.config_set("save", "3600 1")
    folder = Path(client.config_get("dir")["dir"])
    folder.chmod(0o500)
    client.set("to-save", 1)
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] != "err":
        pass
    client.config_set("stop-writes-on-bgsave-error", "yes")


def _save_again(client: redis.Redis) -> None:
    Path(client.config_get("dir")["dir"]).chmod(0o700)
    client.config_set("save", "")
    client.config_set("stop-writes-on-bgsave-error", "no")


def _password(client: redis.Redis) -> str:
    return client.connection_pool.connection_kwargs["password"]


def _busy(client: redis.Redis) -> None:
    client.config_set("busy-reply-threshold", 50)
    other = redis.Connection(**{k: v for k, v in client.connection_pool.connection_kwargs.items() if k != "retry"})
    other.connect()
    other.send_command("EVAL", "while true do end", 0)  # and nobody waits for the answer
    _kept.append(other)
    while True:
        try:
            client.ping()
        except redis.ResponseError:
            return


def _freeze(client: redis.Redis) -> None:
    _frozen.append(client.info("server")["process_id"])
    os.kill(_frozen[-1], signal.SIGSTOP)


_frozen: list[int] = []
_kept: list[redis.Connection] = []  # a connection that is closed would end its script

# name → how to get into it and out of it, by a connection that exists already
TROUBLES: dict[str, tuple[Change, Change]] = {
    "full": (_configure(maxmemory="1mb"), _configure(maxmemory="0")),
    "read_only": (lambda client: client.replicaof("127.0.0.1", 1), lambda client: client.replicaof("NO", "ONE")),
    "too_few_replicas": (_configure(min_replicas_to_write=1), _configure(min_replicas_to_write=0)),
    "cannot_save": (_fail_to_save, _save_again),
    "not_permitted": (
        lambda client: client.execute_command("ACL", "SETUSER", "default", "-@write"),
        lambda client: client.execute_command("ACL", "SETUSER", "default", "+@all"),
    ),
    "password_refused": (
        lambda client: client.config_set("requirepass", "another"),
        lambda client: client.config_set("requirepass", _password(client)),
    ),
    "too_many_clients": (_configure(maxclients=1), _configure(maxclients=10000)),
    "busy": (_busy, lambda client: client.script_kill()),
    "no_answer": (_freeze, lambda client: os.kill(_frozen.pop(), signal.SIGCONT)),
}


class Troubled:
    """A connection that came before the trouble, to begin and end it by."""

    def __init__(self, server: embedded.Valkey) -> None:
        self.url = server.url
        self.client = redis.Redis.from_url(server.url, single_connection_client=True)
        self.client.ping()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        begin, end = TROUBLES[name]
        begin(self.client)
        try:
            yield
        finally:
            end(self.client)
