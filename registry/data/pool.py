"""The connection pool of one event loop, with every limit of requirement D2. database.py owns it."""

import asyncio
import os
import select
import socket
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from registry.data import arrays, clock
from registry.data.hosts import PrimaryConnection
from registry.telemetry import metrics

AWAY_WAIT = (
    1.0  # seconds that a caller waits while the server accepts no connections; DB_POOL_TIMEOUT is for a busy pool
)


CLOCK = (Path(__file__).parent / "sql" / "clock.sql").read_text()


class Pool(AsyncConnectionPool[PrimaryConnection]):
    """psycopg's pool with an overflow as in SQLAlchemy: extra connections under load, closed when returned."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.keep = settings.DB_POOL_MAX
        self.refused = False  # the server refused the last new connection
        self.given_back_at = 0.0  # time.monotonic() of the last return of a working connection
        self.shut = ""  # why callers are refused at once (db_breaker.py); empty while they are not
        self._lent: set[PrimaryConnection] = set()
        self._giving: set[asyncio.Task[None]] = set()  # connections being returned
        super().__init__(
            connection_class=PrimaryConnection,
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

    async def getconn(self, timeout: float | None = None) -> PrimaryConnection:
        if self.shut:
            raise PoolTimeout(self.shut)
        if self._closed:
            await self.open()
        # Not the pool's own `check`: it waits longer after each broken connection, and a restart of the server breaks all
        # idle ones. This loop takes the next one at once.
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            # `_pool` has the idle ones; counting costs more than taking one of them.
            with nullcontext() if self._pool else metrics.DB_WAITING.track_inprogress():
                conn = await self._next(deadline)
            try:
                await _still_open(conn)
                self._lent.add(conn)
                return conn
            except psycopg.OperationalError:
                await super().putconn(conn)

    async def _next(self, deadline: float) -> PrimaryConnection:
        # Wait in slices, and give up between them when the server is gone. A server that only refuses new connections, because
        # other clients use them up, is not gone while connections of this pool are returned.
        while True:
            left = deadline - time.monotonic()
            try:
                return await super().getconn(min(left, AWAY_WAIT))
            except PoolTimeout:
                if left <= AWAY_WAIT or (self.refused and time.monotonic() - self.given_back_at > AWAY_WAIT):
                    raise

    async def _connect(self, timeout: float | None = None) -> PrimaryConnection:
        self.refused = True
        conn = await super()._connect(timeout)
        self.refused = False
        return conn

    async def idle(self) -> PrimaryConnection | None:
        if self._closed:  # not open yet, which makes its lock
            return None
        while True:
            async with self._lock:
                if not self._pool:
                    return None
                conn = self._pool.popleft()
            conn._pool = self
            if not conn.is_deposed:
                return conn
            await conn.close()
            await self.putconn(conn)

    def cut(self) -> None:
        """Close the sockets of connections in use, to end statements on a server that does not respond: psycopg's own
        cancellation takes 10 s there."""
        for conn in self._lent:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    async def reconnect_failed(self) -> None:
        """Keep reconnecting while callers wait; psycopg's pool would do so only for a new caller."""
        async with self._lock:
            if self._waiting:
                self._maybe_grow_pool()

    async def putconn(self, conn: PrimaryConnection) -> None:
        """Return a connection, also when the caller is cancelled: otherwise it would be lost and still count."""
        self._lent.discard(conn)
        giving = asyncio.Task(self._take_back(conn), loop=asyncio.get_running_loop(), eager_start=True)
        if not giving.done():  # the usual case: nothing had to be awaited
            self._giving.add(giving)
            giving.add_done_callback(self._giving.discard)
        await asyncio.shield(giving)

    async def _take_back(self, conn: PrimaryConnection) -> None:
        if conn.info.transaction_status != TransactionStatus.UNKNOWN:
            self.given_back_at = time.monotonic()
        if not self._closed and self._nconns > self.keep and not self._waiting:
            async with self._lock:
                self._nconns -= 1
            await self._close_connection(conn)
            return
        await super().putconn(conn)


async def _configure(connection: AsyncConnection) -> None:
    # Send all integers as bigint, so that a statement has one prepared form and not one per magnitude. Also those in lists, which
    # go as text: psycopg would type all lists of a statement by the numbers of the first one.
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    arrays.register(connection)
    asked = time.monotonic()
    if row := await (await connection.execute(CLOCK)).fetchone():
        clock.learn(row[0], asked=asked)


async def _still_open(connection: PrimaryConnection) -> None:
    """Raise OperationalError for a connection that the server has closed, by a poll instead of a round trip; and for one to a server
    that is not the primary any more."""
    if connection.is_deposed:
        await connection.close()
        raise psycopg.OperationalError("another host has become the primary")
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        # An idle connection has nothing to read but its end or the server's last message. A harmless message (a setting
        # changed at the server) costs a new connection.
        await connection.close()  # otherwise the pool would offer it again
        raise psycopg.OperationalError("the server closed the connection")
