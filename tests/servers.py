"""A PostgreSQL of a test's own, to stop, freeze and fill; and a database that turns read-only."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from registry.data import database, db_breaker
from registry.servers import embedded


def cut_all() -> int:
    """End every other session of this database, as an administrator or a fail-over does; how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"  # waits until the process has ended
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return cursor.fetchone()[0]


@asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[embedded.Postgres]:
    """A PostgreSQL of this test's own, and the loop's pool upon it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        place = embedded.DataFolder(folder)
        place.open_data()
        server = embedded.Postgres(folder)
        await asyncio.to_thread(server.start)
    await database.pools.close()
    real = database.connection_parameters
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            database, "connection_parameters", lambda: {**real(), **psycopg.conninfo.conninfo_to_dict(server.url)}
        )
        try:
            yield server
        finally:
            await database.pools.close()
            with pytest.MonkeyPatch.context() as inner:
                inner.delenv("DATABASE_URL", raising=False)
                await asyncio.to_thread(embedded.stop, folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def frozen(server: embedded.Postgres) -> Iterator[None]:
    """It is there, holds every connection, and says nothing."""
    pids = server.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Switch:
    """Turns the pool's database read-only, and back, for every session that begins from then on."""

    async def on(self) -> None:
        await self._alter("SET default_transaction_read_only = on")
        await database.pools.close()

    async def off(self) -> None:
        """Sessions that are open stay as they are."""
        await self._alter("RESET default_transaction_read_only")

    async def _alter(self, what: str) -> None:
        parameters = {**database.connection_parameters(), "options": "-c default_transaction_read_only=off"}
        async with await psycopg.AsyncConnection.connect(**parameters) as conn:
            await conn.execute(f'ALTER DATABASE "{conn.info.dbname}" {what}')


@asynccontextmanager
async def read_only() -> AsyncIterator[Switch]:
    """The pool's database is read-only until `off`."""
    switch = Switch()
    await switch.on()
    try:
        yield switch
    finally:
        await switch.off()
        await db_breaker.breakers.close()
        await database.pools.close()
