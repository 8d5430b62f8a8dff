"""Whether PostgreSQL is away or read-only: a breaker per event loop, for callers who have somewhere else to turn.

Any of them that waits longer than SUSPECT has the server probed, once for all. If it does not answer, everybody hears so
at once, and nobody waits again until one probe, which goes on beside, finds it back. A statement that is refused because
the server is read-only closes the way for writes in the same manner. What else an error means, faults.py says.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, AsyncCursor

from registry import telemetry
from registry.data import database, faults, refusals
from registry.data.faults import Fault
from registry.data.loop import PerLoop
from registry.errors import Unavailable

log = logging.getLogger(__name__)

SUSPECT = 0.25  # seconds that a statement may take before somebody looks whether the server is there
PATIENCE = 0.6  # seconds that who has somewhere else to turn waits for a slow statement at a server that is there
SLOW = 1.0  # seconds between further looks, for who has nowhere else to turn
PROBE_LIMIT = 0.4  # seconds for an answer; with SUSPECT it leaves time to spill within a second
STEP = 0.05  # seconds of a step in which both limits are counted
PROBE_EVERY = 0.2  # seconds between probes while it is away
POOL_LIMIT = 3.0  # seconds for the pool to have a connection again before the probe starts over
CLOSE_LIMIT = 1.0  # seconds for probes under way at the end of a loop
AWAY = Fault.LOST.value
SILENT = "the database answers nothing"
READ_ONLY = database.statements(Path(__file__).parent / "sql" / "reach.sql")["read_only"]


class Answer(NamedTuple):
    """What a probe found: why the server is away (empty if it is not), and whether it is read-only."""

    away: str = ""
    read_only: bool = False


class Reach:
    """What one loop knows of the server."""

    def __init__(self) -> None:
        self.away = False
        self.read_only = False
        self.reason = AWAY  # why it is away
        self._probing: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unanswered: asyncio.Task[Answer] | None = None  # a question on one of the pool's connections

    # -- Asking for something ------------------------------------------------------------------------------

    async def attempt[T](self, work: Callable[[], Awaitable[T]], *, writes: bool = True, patient: bool = False) -> T:
        """Run `work`. Raises Unavailable (503) at once if the server is known to be away, or read-only where `work` writes;
        within SUSPECT + PROBE_LIMIT if it is found away; and after PATIENCE if the statement is slow at a server that is
        there, unless its caller is `patient` because nothing can stand in.

        Work that was under way then may still be committed.
        """
        if self.away:
            raise Unavailable(self.reason)
        if self.read_only and writes:
            raise Unavailable(Fault.READ_ONLY.value)
        task = asyncio.ensure_future(work())
        try:
            await self._wait(task, patient=patient)
        finally:
            if not task.done():
                task.cancel()
        return task.result()

    async def _wait(self, task: asyncio.Future, *, patient: bool) -> None:
        limit = SUSPECT
        while not await _done(task, within=limit):
            if not await self.is_there() and not task.done():
                raise Unavailable(self.reason)
            if patient:
                limit = SLOW
            elif await _done(task, within=PATIENCE - SUSPECT):
                return
            else:
                faults.say(log, Fault.SLOW.value)
                raise Unavailable(Fault.SLOW.value)

    # -- Looking -------------------------------------------------------------------------------------------

    async def is_there(self) -> bool:
        """One probe for all who ask at the same time; opens the breaker when it fails."""
        if self.away:
            return False
        return await asyncio.shield(self._probe())

    def suspect(self) -> None:
        """A connection was lost: look, and let nobody wait for it."""
        if not self.away:
            self._probe()

    def _probe(self) -> asyncio.Task[bool]:
        if self._probing is None:
            self._probing = _alone(self._look())
            self._probing.add_done_callback(self._probed)
        return self._probing

    def _probed(self, _: asyncio.Task) -> None:
        self._probing = None

    async def _look(self) -> bool:
        answer = await self._answer()
        if answer.away and not self.away:
            self._turn(away=answer.away)
        elif answer.read_only:
            self.found_read_only()
        return not answer.away

    def found_read_only(self) -> None:
        """A statement was refused, or a probe found it so. It may be one connection only: the next probe knows."""
        if not self.read_only and not self.away:
            self._turn(read_only=True)

    async def _answer(self, *, anew: bool = False) -> Answer:
        """What the server says within PROBE_LIMIT: on a connection of the pool, for all others may be taken by neighbours,
        or `anew`, for the pool's may be of yesterday. A question that hangs stays open, and no second one is asked on
        the pool's: a server that was frozen answers it when it goes on."""
        before = self._unanswered if self._unanswered and not self._unanswered.done() else None
        if anew or before:
            asking = _alone(_ask_anew())
        else:
            asking = self._unanswered = _alone(_ask())
        either = _first({task for task in (asking, before) if task})
        if await _done(either, within=PROBE_LIMIT):
            return either.result()
        if asking is not self._unanswered:
            asking.cancel()
        return Answer(SILENT)

    # -- Until it is well ----------------------------------------------------------------------------------

    def _turn(self, *, away: str = "", read_only: bool = False) -> None:
        """The one line of the log for a change of state."""
        was = (self.away, self.read_only)
        self.away, self.read_only, self.reason = bool(away), read_only, away or AWAY
        _shut(away)
        telemetry.DB_AWAY.labels("away").set(self.away)
        telemetry.DB_AWAY.labels("read_only").set(self.read_only)
        refusals.server_takes_writes(not away and not read_only)
        if was == (self.away, self.read_only):
            return
        if self.away:
            telemetry.DB_ERRORS.labels("away").inc()
            log.warning("the database is away", extra={"reason": away})
        elif self.read_only:
            telemetry.DB_ERRORS.labels("read_only").inc()
            log.warning("the database is read-only")
        else:
            log.warning("the database is back")
        if self._watching is None and (self.away or self.read_only):
            self._watching = _alone(self._watch())

    async def _watch(self) -> None:
        try:
            while self.away or self.read_only:
                await asyncio.sleep(PROBE_EVERY)
                try:
                    await self._look_again()
                except Exception:  # whoever looks for the server must not be the one that is lost
                    log.exception("a look for the database failed")
        finally:
            self._watching = None

    async def _look_again(self) -> None:
        renew = self.read_only
        answer = await self._answer(anew=self.read_only)
        if answer.away and self.read_only and not self.away:  # perhaps no more connections are given: ours must do
            answer, renew = await self._answer(), False
        if answer.away:
            self._turn(away=answer.away, read_only=self.read_only)
            if answer.away == SILENT:  # at a second look: what is under way waits for nothing
                database.pools.get().cut()
        elif await self._pool_is_back(renew=renew and not answer.read_only):
            self._turn(read_only=answer.read_only)

    async def _pool_is_back(self, *, renew: bool) -> bool:
        """Whether the pool has a connection; none that was made while the server was read-only, if `renew`."""
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
        _shut("")
        tasks = [task for task in (self._probing, self._watching, self._unanswered) if task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_LIMIT)


def _shut(why: str) -> None:
    """Let nobody wait for a connection of a server that is away; "" lets them in again."""
    if pool := database.pools.peek():
        pool.shut = why


def _alone[T](work: Awaitable[T]) -> asyncio.Task[T]:
    """A task that inherits nothing: neither a request's connection nor its names in the log."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())  # type: ignore[arg-type]


async def _done(task: asyncio.Future, *, within: float) -> bool:
    """Whether it is done, counted in steps of the loop's own time: what a busy loop comes late is not the server's."""
    for _ in range(round(within / STEP)):
        await asyncio.wait({task}, timeout=STEP)
        if task.done():
            return True
    return False


def _first(asking: set[asyncio.Task[Answer]]) -> asyncio.Future[Answer]:
    """The first answer, but of two rather one that finds the server there."""
    first: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answered(task: asyncio.Task[Answer]) -> None:
        asking.discard(task)
        if task.cancelled():
            return
        if error := task.exception():
            log.error("a probe of the database failed", exc_info=error)
        found = Answer(AWAY) if error else task.result()
        if not first.done() and (not asking or not found.away):
            first.set_result(found)

    for task in asking:
        task.add_done_callback(answered)
    return first


# -- Probes ------------------------------------------------------------------------------------------------


async def _ask() -> Answer:
    """On a connection that the pool has idle; those found dead are replaced. Anew when it has none."""
    pool = database.pools.peek()
    while pool and (conn := await pool.idle()):
        try:
            return Answer(read_only=await _is_read_only(conn))
        except psycopg.Error:
            continue
        finally:
            await pool.putconn(conn)
    return await _ask_anew()


async def _ask_anew() -> Answer:
    """Twice, if need be: where somebody ends all sessions, that of the probe may be among them, and the server is well."""
    answer = await _ask_once()
    return await _ask_once() if answer.away == AWAY else answer


async def _ask_once() -> Answer:
    parameters = {**database.connection_parameters(), "cursor_factory": AsyncCursor}
    conn: AsyncConnection | None = None
    try:
        conn = await AsyncConnection.connect(**parameters)
        return Answer(read_only=await _is_read_only(conn))
    except (psycopg.Error, OSError) as error:
        return Answer(_in_words(error))
    finally:
        if conn:
            await conn.close()


async def _is_read_only(conn: AsyncConnection) -> bool:
    cursor = await AsyncCursor(conn).execute(READ_ONLY)
    row = await cursor.fetchone()
    return bool(row and row[0])


WORDS = {  # of the server, which has no SQLSTATE to give with a connection that it refuses
    "starting up": "the database is starting",
    "shutting down": "the database is shutting down",
    "not accepting connections": "the database is starting",
    "not yet accepting": "the database is starting",
    "recovery": "the database recovers from a crash",
    "too many clients": "the database gives no more connections",
    "connection slots": "the database gives no more connections",
}


def _in_words(error: BaseException) -> str:
    """For everybody to read: the server's own words name hosts and users."""
    said = str(error)
    return next((words for part, words in WORDS.items() if part in said), AWAY)


# -- Of the running loop -----------------------------------------------------------------------------------

breakers: PerLoop[Reach] = PerLoop(Reach, close=Reach.close)
reach = breakers.get


async def attempt[T](work: Callable[[], Awaitable[T]], *, writes: bool = True, patient: bool = False) -> T:
    """`Reach.attempt` on the running loop."""
    return await reach().attempt(work, writes=writes, patient=patient)


async def trouble() -> str:
    """Why the database is not well, for /health; empty if it is. Raises Unavailable (503)."""
    found = reach()
    if found.away:
        return found.reason
    asking = lambda: database.fetch(READ_ONLY, repeatable=False)  # noqa: E731
    [(read_only,)] = await found.attempt(asking, writes=False, patient=True)
    if read_only:
        found.found_read_only()
    if found.read_only:
        return Fault.READ_ONLY.value
    return next((str(refusal) for refusal in refusals.found()), "")


def _hear(fault: Fault) -> None:
    try:
        found = reach()
    except RuntimeError:  # in a thread, where nobody has somewhere else to turn
        return
    if fault is Fault.READ_ONLY:
        found.found_read_only()
    elif fault is Fault.LOST:
        found.suspect()


faults.listeners.append(_hear)
