"""A PostgreSQL of a test's own, to stop, freeze and fill; and a database that turns read-only."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from registry.data import database, db_breaker, pool
from registry.servers import embedded
from registry.servers.processes import holds_within
from tests.bed.template import empty_folder, end_pooled_sessions, fill_postgres

CUT_LIMIT = 10.0  # seconds for sessions to end


@contextmanager
def administering() -> Iterator[Any]:
    """A cursor whose statements are all of one session, also where a pooler stands before the server."""
    if not settings.DB_TRANSACTION_POOLING:
        with connection.cursor() as cursor:
            yield cursor
        return
    place = {**settings.DATABASE_DIRECT, "dbname": connection.settings_dict["NAME"]}
    with psycopg.connect(**place, autocommit=True) as own, own.cursor() as cursor:
        yield cursor


def cut_all() -> int:
    """End every other session of this database, as an administrator or a fail-over does; how many there were.

    pg_terminate_backend itself could wait for the end of each, but would do so in steps of 0.1 s, one after the other.
    """
    with administering() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        cut = [pid for (pid,) in cursor.fetchall()]
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [cut])

        def are_gone() -> bool:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", [cut])
            return not cursor.fetchall()

        assert holds_within(CUT_LIMIT, are_gone)
    return len(cut)


@asynccontextmanager
async def own_server() -> AsyncIterator[embedded.Postgres]:
    """A PostgreSQL of this test's own with the schema, and the loop's pool upon it."""
    folder = empty_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL")
        await asyncio.to_thread(fill_postgres, folder)
        server = embedded.Postgres(folder)
        await asyncio.to_thread(server.start)
    try:
        async with other_pool(**psycopg.conninfo.conninfo_to_dict(server.url)):
            yield server
    finally:
        with pytest.MonkeyPatch.context() as inner:
            inner.delenv("DATABASE_URL", raising=False)
            await asyncio.to_thread(embedded.stop, folder)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def other_pool(**changed: Any) -> AsyncIterator[None]:
    """The loop's pool with these parameters changed.

    The last pool is closed when they are the real ones again: work in the background, such as the log of requests, opens a pool at
    any moment, and one with the address of nobody counts its connections for 5 s, until it gives up.
    """
    real = database.connection_parameters
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "connection_parameters", lambda: {**real(), **changed})
            await database.pools.close()
            yield
    finally:
        await database.pools.close()


@asynccontextmanager
async def unreachable() -> AsyncIterator[None]:
    """Nobody listens where the pool's server was; a caller waits a fifth of the product's time for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "AWAY_WAIT", pool.AWAY_WAIT / 5)
        async with other_pool(port=1):
            yield


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
        parameters = {**(database.session_parameters() or {}), "options": "-c default_transaction_read_only=off"}
        async with await psycopg.AsyncConnection.connect(**parameters) as conn:
            await conn.execute(f'ALTER DATABASE "{conn.info.dbname}" {what}')
            await asyncio.to_thread(end_pooled_sessions, conn.info.dbname)


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
