"""The connection pool of one event loop, with every limit of requirement D2. database.py owns it."""

import asyncio
import os
import select
import socket
import time
from contextlib import suppress
from typing import Any

import psycopg
from django.conf import settings
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from registry.data import arrays

AWAY_WAIT = 1.0  # seconds that a caller waits while the server takes no connections: DB_POOL_TIMEOUT is for a busy pool


class Pool(AsyncConnectionPool):
    """psycopg's pool with SQLAlchemy's overflow: up to `overflow` more in a rush, closed when given back."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.keep = settings.DB_POOL_MAX
        self.refused = False  # the server gave no new connection when last asked
        self.given_back_at = 0.0  # time.monotonic() of the last one that was alive
        self.shut = ""  # why nobody gets a connection now (reach.py); empty while they do
        self._lent: set[AsyncConnection] = set()
        self._giving: set[asyncio.Task[None]] = set()  # connections on their way back
        super().__init__(
            kwargs=parameters,
            min_size=settings.DB_POOL_MIN,
            max_size=settings.DB_POOL_MAX + settings.DB_POOL_OVERFLOW,
            timeout=settings.DB_POOL_TIMEOUT,
            max_lifetime=settings.DB_POOL_RECYCLE,
            max_idle=600,
            reconnect_timeout=5,
            configure=_configure,
            open=False,
            name="registry",
        )

    async def getconn(self, timeout: float | None = None) -> AsyncConnection:
        if self.shut:
            raise PoolTimeout(self.shut)
        if self._closed:
            await self.open()
        # Not the pool's own `check`: it waits longer and longer after each dead connection, and after a restart of
        # the server all that were idle are dead. Here the next is taken at once; each can be found dead only once.
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            conn = await self._next(deadline)
            try:
                await _still_open(conn)
                self._lent.add(conn)
                return conn
            except psycopg.OperationalError:
                await super().putconn(conn)

    async def _next(self, deadline: float) -> AsyncConnection:
        # In slices, to notice between them that there is no server to wait for. One that refuses us more connections may
        # be full of neighbours' while ours work: then one of them is waited for.
        while True:
            left = deadline - time.monotonic()
            try:
                return await super().getconn(min(left, AWAY_WAIT))
            except PoolTimeout:
                if left <= AWAY_WAIT or (self.refused and time.monotonic() - self.given_back_at > AWAY_WAIT):
                    raise

    async def _connect(self, timeout: float | None = None) -> AsyncConnection:
        self.refused = True
        conn = await super()._connect(timeout)
        self.refused = False
        return conn

    async def idle(self) -> AsyncConnection | None:
        if self._closed:  # not open yet, which makes its lock
            return None
        async with self._lock:
            if not self._pool:
                return None
            conn = self._pool.popleft()
        conn._pool = self
        return conn

    def cut(self) -> None:
        """End the connections in use, and with them the statements that wait for a server which answers nothing: to cancel
        one takes psycopg 10 s there."""
        for conn in self._lent:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    async def reconnect_failed(self) -> None:
        """Go on trying while somebody waits: by itself the pool tries again only for a new caller, and there may be none."""
        async with self._lock:
            if self._waiting:
                self._maybe_grow_pool()

    async def putconn(self, conn: AsyncConnection) -> None:
        """To the end, whoever is cancelled meanwhile: half given back, a connection is nobody's and counted all the same."""
        self._lent.discard(conn)
        giving = asyncio.Task(self._take_back(conn), loop=asyncio.get_running_loop(), eager_start=True)
        if not giving.done():  # it mostly is: nothing had to be waited for
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)
        await asyncio.shield(giving)

    async def _take_back(self, conn: AsyncConnection) -> None:
        if conn.info.transaction_status != TransactionStatus.UNKNOWN:
            self.given_back_at = time.monotonic()
        if not self._closed and self._nconns > self.keep and not self._waiting:
            async with self._lock:
                self._nconns -= 1
            await self._close_connection(conn)
            return
        await super().putconn(conn)


async def _configure(connection: AsyncConnection) -> None:
    # All integers travel as bigint, so that a statement has one prepared form and not one per magnitude. Lists of them, which
    # go as text, as well: psycopg would give all lists of a statement the type that the numbers of the first one need.
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    arrays.register(connection)


async def _still_open(connection: AsyncConnection) -> None:
    """Notice a connection that the server has closed, at the price of a poll and not of a round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        # An idle connection has nothing to read but its end, of which the server's farewell may come first. What is
        # harmless (a setting changed at the server) costs a new connection.
        await connection.close()  # else the pool would offer it again
        raise psycopg.OperationalError("the server closed the connection")
