#!/usr/bin/env python
"""The command line: every command finds the database and Valkey by itself, and starts them if they are down."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    from registry.servers import embedded, listening
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}. Run `make run` once, and then .venv/bin/python manage.py")

WITHOUT_SERVERS = {"help", "--help", "-h", "version", "--version"}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")
    data = Path(os.environ.get("REGISTRY_DATA") or Path(__file__).resolve().parent / ".data").resolve()
    os.environ["REGISTRY_DATA"] = str(data)
    leave_in_order(0 if command == "up" else 128 + signal.SIGTERM)
    without_servers = WITHOUT_SERVERS & {command, *sys.argv[2:3]}
    try:
        if command == "up" and not without_servers:
            listening.refuse_taken_port(sys.argv[2:])
        with named_only(data) if without_servers else embedded.use(data):
            from django.core.management import execute_from_command_line

            execute_from_command_line(sys.argv)
    except (embedded.EmbeddedError, listening.PortTaken) as error:
        sys.exit(f"registry: {error}")


def leave_in_order(status: int) -> None:
    """Told to stop, a command still stops the servers it started. Commands with work in flight handle the signal."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))
    if status == 0:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(status))


@contextmanager
def named_only(data: Path) -> Iterator[None]:
    """Settings want the servers' names even where nobody calls them."""
    urls = embedded.urls(data)
    os.environ.setdefault("DATABASE_URL", urls.database_url)
    os.environ.setdefault("REDIS_URL", urls.redis_url)
    yield


if __name__ == "__main__":
    main()
