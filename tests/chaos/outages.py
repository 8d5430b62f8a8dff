"""Ways in which PostgreSQL is unavailable, and how it comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from registry.servers.processes import holds_within
from tests.chaos.service import Service
from tests.waiting import eventually


@asynccontextmanager
async def away(service: Service, number: int = signal.SIGQUIT) -> AsyncIterator[None]:
    """PostgreSQL is ended, immediately, and `up` is kept from starting it again for as long as the block runs."""
    pid = await eventually(service.postgres.pid)
    with service.postgres.data_folder.lock():
        os.kill(pid, number)
        assert await asyncio.to_thread(holds_within, 5.0, lambda: not service.postgres.pids())
        yield


@asynccontextmanager
async def frozen(service: Service) -> AsyncIterator[None]:
    """It is there, holds every connection, and says nothing."""
    pids = service.postgres.pids()
    send(signal.SIGSTOP, pids)
    try:
        yield
    finally:
        send(signal.SIGCONT, pids)


def send(number: int, pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a connection's process may end at any moment
            os.kill(pid, number)


def takes_writes(service: Service) -> None:
    with service.connect() as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
