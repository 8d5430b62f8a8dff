"""Circuit breaker for PostgreSQL, one per event loop: tracks whether the server is unavailable or read-only.

A caller that waits longer than SUSPECT starts one probe, shared by all callers. If the server does not respond, the breaker
opens: all callers fail at once until a background probe succeeds. A statement refused by a read-only server opens the breaker
for writes. faults.py classifies all other errors.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, AsyncCursor

from registry.data import database, faults, refusals
from registry.data.faults import Fault
from registry.data.hosts import PrimaryConnection
from registry.data.loop import PerLoop, background
from registry.data.steps import Steps, started
from registry.errors import Unavailable
from registry.telemetry import metrics

log = logging.getLogger(__name__)

SUSPECT = 0.25  # seconds that a statement may take before the server is probed
PATIENCE = 0.6  # seconds that a caller with a substitute waits for a slow statement on an available server
SLOW = 1.0  # seconds between further probes, for callers without a substitute
PROBE_LIMIT = 0.4  # seconds for a probe; with SUSPECT it leaves time to spill within a second
PROBE_EVERY = 0.2  # seconds between probes while the breaker is open
POOL_LIMIT = 3.0  # seconds for the pool to reconnect before the probe starts over
CLOSE_LIMIT = 1.0  # seconds for running probes at the end of a loop
AWAY = Fault.LOST.value
SILENT = "the database does not respond"
NO_PRIMARY = "no server of the database takes writes"
READ_ONLY = database.statements(Path(__file__).parent / "sql" / "db_breaker.sql")["read_only"]


class ProbeResult(NamedTuple):
    """The result of a probe: why the server is unavailable (empty if it is available), and whether it is read-only."""

    away: str = ""
    read_only: bool = False


class DatabaseBreaker:
    """The breaker of one event loop."""

    def __init__(self) -> None:
        self.away = False
        self.read_only = False
        self.reason = AWAY  # why it is unavailable
        self._steps = Steps()
        self._probing: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pool_probe: asyncio.Task[ProbeResult] | None = None  # the last probe on a connection of the pool

    # -- Use ------------------------------------------------------------------------------

    async def attempt[T](self, work: Callable[[], Awaitable[T]], *, writes: bool = True, patient: bool = False) -> T:
        """Run `work`. Raises Unavailable (503): at once while the breaker is open (for reads too, unless it is open for writes
        only); within SUSPECT + PROBE_LIMIT when the server becomes unavailable; after PATIENCE when the statement is slow on
        an available server, unless the caller is `patient` because it has no substitute.

        Work that had begun may still be committed.
        """
        if self.away:
            raise Unavailable(self.reason)
        if self.read_only and writes:
            raise Unavailable(Fault.READ_ONLY.value)
        task = started(work())
        try:
            await self._wait(task, patient=patient)
        except BaseException:
            task.cancel()
            # Nobody waits for it any more; it may have failed at the moment in which the caller was cancelled.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise
        return task.result()

    async def _wait(self, task: asyncio.Future, *, patient: bool) -> None:
        limit = SUSPECT
        while not await self._steps.done(task, within=limit):
            if not await self.is_available() and not task.done():
                raise Unavailable(self.reason)
            if patient:
                limit = SLOW
            elif await self._steps.done(task, within=PATIENCE - SUSPECT):
                return
            else:
                faults.warn(log, Fault.SLOW.value)
                raise Unavailable(Fault.SLOW.value)

    # -- Probes -------------------------------------------------------------------------------------------

    async def is_available(self) -> bool:
        """Probe the server, once for all concurrent callers; a failed probe opens the breaker."""
        if self.away:
            return False
        return await asyncio.shield(self._probe())

    def suspect(self) -> None:
        """Start a probe in the background after a connection was lost."""
        if not self.away:
            self._probe()

    def _probe(self) -> asyncio.Task[bool]:
        if self._probing is None:
            self._probing = background(self._check())
            self._probing.add_done_callback(self._probed)
        return self._probing

    def _probed(self, _: asyncio.Task) -> None:
        self._probing = None

    async def _check(self) -> bool:
        result = await self._ask()
        if result.away and not self.away:
            self._set_state(away=result.away)
        elif result.read_only:
            self.open_for_writes()
        return not result.away

    def open_for_writes(self) -> None:
        """Open the breaker for writes after a statement was refused as read-only. The next probe verifies it: it may have been
        one connection only."""
        if not self.read_only and not self.away:
            self._set_state(read_only=True)

    async def _ask(self, *, new_connection: bool = False) -> ProbeResult:
        """Probe within PROBE_LIMIT, on a connection of the pool or on a new one.

        The pool's connection is the default because the server may have no room for another. A probe of the pool that hangs
        stays open, and later probes use a new connection beside it: a server that was frozen responds to it when it resumes.
        """
        pending = self._pool_probe if self._pool_probe and not self._pool_probe.done() else None
        if new_connection or pending:
            probe = background(_probe_new_connection())
        else:
            probe = self._pool_probe = background(_probe_pool())
        either = _first({task for task in (probe, pending) if task})
        if await self._steps.done(either, within=PROBE_LIMIT):
            return either.result()
        if probe is not self._pool_probe:
            probe.cancel()
        return ProbeResult(SILENT)

    # -- State and recovery ----------------------------------------------------------------------------------

    def _set_state(self, *, away: str = "", read_only: bool = False) -> None:
        """Set the state, its metrics and the pool; log each change once."""
        was = (self.away, self.read_only)
        self.away, self.read_only, self.reason = bool(away), read_only, away or AWAY
        _shut(away)
        metrics.DB_AWAY.labels("away").set(self.away)
        metrics.DB_AWAY.labels("read_only").set(self.read_only)
        refusals.set_writable(not away and not read_only)
        if was == (self.away, self.read_only):
            return
        if self.away:
            metrics.DB_ERRORS.labels("away").inc()
            log.warning("the database is away", extra={"reason": away})
        elif self.read_only:
            metrics.DB_ERRORS.labels("read_only").inc()
            log.warning("the database is read-only")
        else:
            log.warning("the database is back")
        if self._watching is None and (self.away or self.read_only):
            self._watching = background(self._watch())

    async def _watch(self) -> None:
        try:
            while self.away or self.read_only:
                await asyncio.sleep(PROBE_EVERY)
                try:
                    await self._probe_again()
                except Exception:  # without this task the breaker would stay open
                    log.exception("a probe of the database failed")
        finally:
            self._watching = None

    async def _probe_again(self) -> None:
        renew = self.read_only
        result = await self._ask(new_connection=self.read_only)
        if result.away and self.read_only and not self.away:  # the server may refuse new connections only
            result, renew = await self._ask(), False
        if result.away:
            self._set_state(away=result.away, read_only=self.read_only)
            if result.away == SILENT:  # the second probe without response: running statements would wait in vain
                database.pools.get().cut()
        elif await self._pool_works(renew=renew and not result.read_only):
            self._set_state(read_only=result.read_only)

    async def _pool_works(self, *, renew: bool) -> bool:
        """Whether the pool has a connection. `renew` replaces those that were opened while the server was read-only."""
        _shut("")
        with suppress(TimeoutError, Unavailable, psycopg.Error):
            async with asyncio.timeout(POOL_LIMIT):
                if renew:
                    await database.pools.get().drain()
                async with database.connection():
                    return True
        _shut(self.reason if self.away else "")
        return False

    async def close(self) -> None:
        self._steps.close()
        _shut("")
        if self.away or self.read_only:  # what this loop saw: no later probe of it would say that the server is back
            for how in ("away", "read_only"):
                metrics.DB_AWAY.labels(how).set(0)
        tasks = [task for task in (self._probing, self._watching, self._pool_probe) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_LIMIT)


def _shut(why: str) -> None:
    """Make the pool refuse callers at once with this reason; "" reopens it."""
    if pool := database.pools.peek():
        pool.shut = why


def _first(probes: set[asyncio.Task[ProbeResult]]) -> asyncio.Future[ProbeResult]:
    """The first successful result; the last failure if all fail."""
    first: asyncio.Future[ProbeResult] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[ProbeResult]) -> None:
        probes.discard(task)
        if task.cancelled():
            return
        if error := task.exception():
            log.error("a probe of the database failed", exc_info=error)
        result = ProbeResult(AWAY) if error else task.result()
        if not first.done() and (not probes or not result.away):
            first.set_result(result)

    for task in probes:
        task.add_done_callback(ended)
    return first


# -- Statements of the probes --------------------------------------------------------------------------------


async def _probe_pool() -> ProbeResult:
    """Probe on an idle connection of the pool, dropping broken ones; on a new connection when none is idle."""
    pool = database.pools.peek()
    while pool and (conn := await pool.idle()):
        try:
            return ProbeResult(read_only=await _is_read_only(conn))
        except psycopg.Error:
            continue
        finally:
            await pool.putconn(conn)
    return await _probe_new_connection()


async def _probe_new_connection() -> ProbeResult:
    """Probe, and once more after a lost connection: an administrator who ends all sessions may end that of the probe."""
    result = await _probe_once()
    return await _probe_once() if result.away == AWAY else result


async def _probe_once() -> ProbeResult:
    parameters = {**database.connection_parameters(), "cursor_factory": AsyncCursor}
    conn: AsyncConnection | None = None
    try:
        conn = await PrimaryConnection.connect(**parameters)
        return ProbeResult(read_only=await _is_read_only(conn))
    except (psycopg.Error, OSError) as error:
        return ProbeResult(_reason(error))
    finally:
        if conn:
            await conn.close()


async def _is_read_only(conn: AsyncConnection) -> bool:
    cursor = await AsyncCursor(conn).execute(READ_ONLY)
    row = await cursor.fetchone()
    return bool(row and row[0])


REASONS = {  # part of the server's message → reason; a refused connection has no SQLSTATE
    "starting up": "the database is starting",
    "shutting down": "the database is shutting down",
    "not accepting connections": "the database is starting",
    "not yet accepting": "the database is starting",
    "recovery": "the database recovers from a crash",
    "too many clients": "the database gives no more connections",
    "connection slots": "the database gives no more connections",
    "no more connections allowed": "the database gives no more connections",  # PgBouncer
    "session is read-only": NO_PRIMARY,
    "hot standby mode": NO_PRIMARY,
}


def _reason(error: BaseException) -> str:
    """The reason for callers. The server's own message is not passed on: it names hosts and users."""
    message = str(error)
    return next((reason for part, reason in REASONS.items() if part in message), AWAY)


# -- Of the running loop -----------------------------------------------------------------------------------

breakers: PerLoop[DatabaseBreaker] = PerLoop(DatabaseBreaker, close=DatabaseBreaker.close)
current = breakers.get


async def attempt[T](work: Callable[[], Awaitable[T]], *, writes: bool = True, patient: bool = False) -> T:
    """`DatabaseBreaker.attempt` on the running loop."""
    return await current().attempt(work, writes=writes, patient=patient)


async def trouble() -> str:
    """Why the database is unhealthy, for /health; empty if it is healthy. Raises Unavailable (503)."""
    breaker = current()
    if breaker.away:
        return breaker.reason
    [(read_only,)] = await breaker.attempt(
        lambda: database.fetch(READ_ONLY, repeatable=False), writes=False, patient=True
    )
    if read_only:
        breaker.open_for_writes()
    if breaker.read_only:
        return Fault.READ_ONLY.value
    return next((str(refusal) for refusal in refusals.current()), "")


def _on_fault(fault: Fault) -> None:
    try:
        breaker = current()
    except RuntimeError:  # in a thread, which has no event loop and no breaker
        return
    if fault is Fault.READ_ONLY:
        breaker.open_for_writes()
    elif fault is Fault.LOST:
        breaker.suspect()


faults.listeners.append(_on_fault)
