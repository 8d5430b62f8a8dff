"""Drain: the loop of a worker. It claims rows of one `Work` and runs them, until it is stopped.

Beside that it registers itself as a Worker row with a heartbeat, listens for NOTIFY, and releases the leases of dead workers.
"""

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from django.conf import settings

from queueing.models import SILENT_AFTER, Worker
from queueing.work import heartbeats, pools
from queueing.work.work import Work
from registry.data import database, db_breaker, faults
from registry.data.database import Row
from registry.data.hosts import PrimaryConnection
from registry.errors import Unavailable

log = logging.getLogger(__name__)

CLAIM_AT_MOST = (
    200  # rows per claim; larger ones hold the lock on a tenant's event stream for longer than a commit should
)
CLAIM_FREE = 50  # rows; if less of the capacity is free, a claim waits for more
CLAIM_EVERY = 0.02  # seconds between small claims
POLL = 0.2  # seconds between claims while nothing is due and no NOTIFY arrives
IDLE = 5  # times POLL, between looks for open rows while there are none: then only a NOTIFY can be missed
HEARTBEAT = 1.0  # seconds
LATE = 2 * HEARTBEAT  # seconds between two heartbeats, above which the other workers' are probably late as well
GRACE = 4.0  # seconds that rows in flight get to finish after `stop`; `up` kills after 7
RETRY = 0.5  # seconds until the database is tried again
RECONNECT = 1.0  # seconds until LISTEN is tried again
LOOK_EVERY = 5.0  # seconds between looks whether the server that is listened to is still the primary


class Drain:
    """A worker of one kind of work, with up to `capacity` rows in flight."""

    def __init__(
        self,
        work: Work,
        *,
        capacity: int | None = None,
        name: str = "",
        pool: str = "",
        takes: Sequence[str] = (),
        pool_size: str = "",
    ) -> None:
        """`pool` and `takes`: of the worker's pool, where it belongs to one. `pool_size`: for people."""
        self.work = work
        self.name = name or work.table.queue  # the `queue` of its Worker row
        self.capacity = work.capacity if capacity is None else capacity
        self.in_flight: dict[asyncio.Task[list[bool]], Sequence[Any]] = {}  # the groups, by the tasks that run them
        self.pool, self.takes, self.pool_size = pool, list(takes), pool_size
        self.finished = self.failed = 0
        self.worker_id = 0
        self._listening = False  # to NOTIFY
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._stop = asyncio.Event()
        # time.monotonic() since when our heartbeats succeed. Before that, those of others may have failed as well: after an
        # outage all workers look dead, and the first one that recovers must not release the leases of the others.
        self._beating_since = -math.inf
        self._beat_at = math.inf  # time.monotonic() of the last heartbeat that succeeded
        work.wake = self._wake.set
        work.division = pools.division(pool, takes, ())

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Claim nothing more. Rows in flight have GRACE seconds to finish; then they are given back."""
        self._stop.set()
        self._wake.set()
        self._free.set()

    async def run(self, *, seconds: float) -> None:
        """Claim and run for `seconds`, or until `stop`."""
        async with (
            database.own_connection()
        ):  # the task that started this one may hold one, which this task would share
            await self._run(seconds)

    async def _run(self, seconds: float) -> None:
        if not await self._register():
            return
        with contextlib.suppress(Unavailable):  # then a later one succeeds
            await database.faults_as_unavailable(self._beat_once)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self.stop)
        background = [loop.create_task(forever(work)) for work in (self._beat, self._listen, *self.work.background())]
        try:
            while not self._stop.is_set():
                await self._step()
            await self._finish()
        finally:
            timer.cancel()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._deregister()

    # -- Claiming ------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        free = self._free_capacity()
        if free < min(CLAIM_FREE, self.capacity):
            await _wait(self._free, within=POLL)
            self._free.clear()
            return
        self._wake.clear()
        try:
            items = await self._claim(min(free, CLAIM_AT_MOST))
        except Exception as error:  # rows in flight must still be settled
            if not faults.is_temporary(error):
                log.exception("the claim failed")
            await self._until_available()
            return
        for group in self.work.groups(items):
            self._start(group)
        if not items:
            await self._idle()
        elif (
            len(items) < CLAIM_FREE
        ):  # few rows arrive: let some more gather, for one claim of many costs less than many of one
            await asyncio.sleep(CLAIM_EVERY)

    def _free_capacity(self) -> int:
        return self.capacity - self.work.in_flight

    async def _claim(self, limit: int) -> Sequence[Any]:
        if not self.work.division.takes_some(self.work.table.queue):
            return []
        return await self.work.claim(self.worker_id, limit)

    async def _idle(self) -> None:
        """Wait for a NOTIFY, or until it is time to look again."""
        if await _wait(self._wake, within=POLL):
            return
        while not await self._expects_work():
            if await _wait(self._wake, within=POLL * IDLE):
                return

    async def _expects_work(self) -> bool:
        """Whether a row may become due without a NOTIFY."""
        if not self._listening or self.work.in_flight:
            return True
        try:
            [[found]] = await database.fetch(self.work.table.any_open)
        except Exception:  # the claim that follows fails as well, and says so
            return True
        return found

    async def _until_available(self) -> None:
        """Wait until the database is available, and RETRY seconds longer after an outage, for outcomes to be written first.

        Leases have ended during the outage, and an outcome is lost if another worker claims its row before it is written.
        """
        await asyncio.sleep(RETRY)
        state = db_breaker.current()
        while state.away or state.read_only:
            await asyncio.sleep(POLL)
            if self._stop.is_set():
                return
            if not state.away and not state.read_only:
                await asyncio.sleep(RETRY)

    def _start(self, group: Sequence[Any]) -> None:
        task = asyncio.Task(self.work.run(group), loop=asyncio.get_running_loop(), eager_start=True)
        self.in_flight[task] = group
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[list[bool]]) -> None:
        group = self.in_flight.pop(task)
        if self._free_capacity() >= min(CLAIM_FREE, self.capacity):
            self._free.set()
        if task.cancelled():
            return
        if error := task.exception():
            log.error("work failed unexpectedly; it is claimed again when its lease ends", exc_info=error)
        self.finished += len(group)
        self.failed += len(group) if error else task.result().count(False)

    # -- Stopping ------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        if self.in_flight:
            await asyncio.wait(self.in_flight, timeout=GRACE)
        unfinished = dict(self.in_flight)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        with contextlib.suppress(Unavailable):  # then the leases end by themselves
            await self.work.finish()
            if items := [item for group in unfinished.values() for item in group]:
                await self.work.give_back(items)

    # -- Worker row --------------------------------------------------------------------------------------

    async def _register(self) -> bool:
        """Returns False if `stop` was called while the database was unavailable."""
        while not self.stopping:
            try:
                worker = await database.faults_as_unavailable(
                    lambda: Worker.async_objects.acreate(
                        queue=self.name,
                        hostname=settings.REGISTRY_HOST,
                        pid=os.getpid(),
                        capacity=self.capacity,
                        pool=self.pool,
                        takes=self.takes,
                        pool_size=self.pool_size,
                    )
                )
                self.worker_id = worker.id
                return True
            except Unavailable:
                self._beating_since = time.monotonic()
                await self._until_available()
            finally:
                await database.release()
        return False

    async def _beat(self) -> None:
        try:
            await database.faults_as_unavailable(self._beat_once)
        except Unavailable:
            self._beating_since = math.inf
            raise
        # To the next whole heartbeat of the loop's clock, so that all drains of a process report with one statement.
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(HEARTBEAT - now % HEARTBEAT)

    async def _beat_once(self) -> None:
        processes, places = self.work.processes()
        report = heartbeats.Report(self.worker_id, len(self.in_flight), processes, places, self.finished, self.failed)
        rows = await heartbeats.report(report)
        if all(id != self.worker_id for id, *_ in rows):  # another worker has released its leases
            log.warning(
                "the Worker row was deleted: another worker took this one for dead; restarting",
                extra={"worker": self.worker_id},
            )
            self.stop()
        self._look_at(rows)
        now = time.monotonic()
        if now - self._beat_at > LATE:  # it waited for a lock, or for a server that was suspended
            self._beating_since = now
        self._beat_at, self._beating_since = now, min(self._beating_since, now)
        if now - self._beating_since > SILENT_AFTER.total_seconds() and not all(alive for *_, alive in rows):
            async with database.own_connection():
                await heartbeats.reap()

    def _look_at(self, workers: Sequence[Row]) -> None:
        """Learn which pools have living workers, and whether this worker is asked to stop."""
        living = [(pool, takes) for _, pool, takes, _, alive in workers if alive]
        self.work.division = pools.division(self.pool, self.takes, living)
        if any(asked for id, _, _, asked, _ in workers if id == self.worker_id):
            log.info("asked to stop", extra={"worker": self.worker_id})
            self.stop()

    async def _deregister(self) -> None:
        with contextlib.suppress(Unavailable):
            await database.faults_as_unavailable(lambda: Worker.async_objects.filter(id=self.worker_id).adelete())
        await database.release()

    async def _listen(self) -> None:
        """Listen on a connection of its own, past the pool, which recycles, and past a pooler in transaction mode: it would give the
        session to others, and they would get the notifications."""
        session = database.session_parameters()
        if session is None:  # polling is enough; this hint only makes it faster
            await asyncio.sleep(HEARTBEAT)
            return
        try:
            async with await PrimaryConnection.connect(**{**session, "cursor_factory": psycopg.AsyncCursor}) as conn:
                await conn.execute(f"LISTEN {self.work.table.queue}")
                self._listening = True
                self._hint()
                while not conn.is_deposed:
                    async for _ in conn.notifies(timeout=LOOK_EVERY):
                        self._hint()
        except psycopg.Error as error:
            faults.warn(log, "LISTEN failed; polling until it succeeds", error=error)
        finally:
            self._listening = False
        await asyncio.sleep(RECONNECT)

    def _hint(self) -> None:
        self.work.shares.hint()
        self._wake.set()


async def _wait(event: asyncio.Event, *, within: float) -> bool:
    """Whether the event came within the time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            return await event.wait()
    return False


async def run_until_idle(work: Work, *, worker_id: int = 1, limit: int = 400) -> list[bool]:
    """Claim and run until a claim is empty; returns for each row whether it is finished. For tests.

    Unlike a drain it has no Worker row and no background tasks, and does not wait for rows that are scheduled.
    """
    done: list[bool] = []
    while True:
        work.shares.forget()
        work.shares.lower()
        items = await work.claim(worker_id, limit)
        if not items:
            return done
        for results in await asyncio.gather(*map(work.run, work.groups(items))):
            done += results


async def forever(work: Callable[[], Awaitable[None]]) -> None:
    """Repeat `work`. Errors are logged, and it is repeated after a pause."""
    while True:
        try:
            await work()
        except Exception as error:
            name = getattr(work, "__qualname__", str(work))
            if faults.is_temporary(error):
                faults.warn(log, "background work interrupted", error=error, work=name)
            else:
                log.warning("background work interrupted", extra={"work": name, "error": repr(error)})
            await asyncio.sleep(HEARTBEAT)
