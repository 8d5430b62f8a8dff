"""The pytest plugin that starts the servers of a test run, before pytest-django reads the settings, which need their URLs;
conftest.py would be too late."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registry.servers import embedded


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Servers for tests, beside those of `make run`. All xdist processes use the same pair, with databases of their own."""
    data = Path(os.environ.setdefault("REGISTRY_DATA", str(early_config.rootpath / ".data" / "test"))).resolve()
    keep_bytecode()
    stack = ExitStack()
    early_config.add_cleanup(stack.close)
    stack.enter_context(embedded.use(data))
    forgo_durability(embedded.Postgres(data))
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["REDIS_URL"] = redis_of(worker, os.environ["REDIS_URL"])
        os.environ["REGISTRY_DATA"] = str(data / worker)
    return (yield)


def keep_bytecode() -> None:
    """Where PYTHONDONTWRITEBYTECODE is set, each of the many programs that tests start would compile the whole project."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def forgo_durability(server: embedded.Postgres) -> None:
    """Switch off what only survives a power cut, in the shared test server: a kill of its processes loses nothing still.
    Servers that a test starts itself keep the settings of the product."""
    pid = server.pid()
    if server.taken_over or pid is None:
        return
    server.data_folder.write(server.folder / "local.conf", "fsync = off\nfull_page_writes = off\n")
    os.kill(pid, signal.SIGHUP)


def redis_of(worker: str, url: str) -> str:
    """A Redis database number for each of gw0, gw1, …, as pytest-django does with PostgreSQL's databases."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + 1 + int(worker.removeprefix("gw"))
    return parts._replace(path=f"/{number}").geturl()
