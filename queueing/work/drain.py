"""The loop of a worker: Worker row, LISTEN, claims, groups in flight, gentle end. It runs any `Work`."""

import asyncio
import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from django.db.models.functions import Now

from queueing.models import SILENT_AFTER, Worker
from queueing.work.table import TABLES
from queueing.work.work import Work
from registry.data import database, db_breaker, faults
from registry.errors import Unavailable

log = logging.getLogger(__name__)

CLAIM_AT_MOST = 200  # rows per claim; larger ones hold the stream's lock for longer than a commit should
CLAIM_FREE = 50  # rows; nothing is claimed for less room while more is in flight
CLAIM_EVERY = 0.02  # seconds between small claims
POLL = 0.2  # seconds between looks when nothing wakes us
HEARTBEAT = 1.0  # seconds
LATE = 2 * HEARTBEAT  # seconds between two that went through, after which others are given time to be heard as well
GRACE = 4.0  # seconds that what is in flight gets after the signal to stop; `up` kills after 7
AWAY = 0.5  # seconds before the database is tried again
RECONNECT = 1.0  # seconds before LISTEN is tried again


class Drain:
    """A worker of one kind of work: its Worker row beats, NOTIFY wakes it, and up to `capacity` rows are in flight."""

    def __init__(self, work: Work, *, capacity: int | None = None, name: str = "") -> None:
        self.work = work
        self.name = name or work.table.queue  # of its Worker row
        self.capacity = work.capacity if capacity is None else capacity
        self.in_flight: dict[asyncio.Task[list[bool]], Sequence[Any]] = {}  # groups
        self.finished = self.failed = 0
        self.worker_id = 0
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._stop = asyncio.Event()
        # Since when our heartbeats go through (time.monotonic()). Before, nobody else's could either: after an outage all
        # workers look silent, and whoever beats first would take the others for dead.
        self._heard_since = -math.inf
        self._heard_at = math.inf  # when the last one went through
        work.wake = self._wake.set

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Claim nothing more; finish what is in flight, or hand it back after GRACE."""
        self._stop.set()
        self._wake.set()
        self._free.set()

    async def run(self, *, seconds: float) -> None:
        """Drain for about `seconds`, or until `stop`."""
        async with database.own_connection():  # whoever started this task may hold one of its own
            await self._run(seconds)

    async def _run(self, seconds: float) -> None:
        if not await self._register():
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self.stop)
        beside = [loop.create_task(forever(work)) for work in (self._beat, self._listen, *self.work.background())]
        try:
            while not self._stop.is_set():
                await self._step()
            await self._finish()
        finally:
            timer.cancel()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._sign_off()

    # -- Claiming ------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        free = self._room()
        if free < min(CLAIM_FREE, self.capacity):
            await _happens(self._free, within=POLL)
            self._free.clear()
            return
        self._wake.clear()
        try:
            items = await self._claim(min(free, CLAIM_AT_MOST))
        except Exception as error:  # what is in flight must still come to its outcome
            if not faults.is_temporary(error):
                log.exception("nothing could be claimed")
            await self._until_well()
            return
        for group in self.work.groups(items):
            self._start(group)
        if not items:
            await _happens(self._wake, within=POLL)
        elif len(items) < CLAIM_FREE:  # a trickle: rather one claim of many than many of one
            await asyncio.sleep(CLAIM_EVERY)

    def _room(self) -> int:
        return self.capacity - self.work.held

    async def _claim(self, limit: int) -> Sequence[Any]:
        return await self.work.claim(self.worker_id, limit)

    async def _until_well(self) -> None:
        """Until the database may be asked again. After an outage everybody's outcomes are written first: leases have lapsed
        meanwhile, and an outcome whose row somebody else claims before is lost."""
        await asyncio.sleep(AWAY)
        found = db_breaker.current()
        while found.away or found.read_only:
            await asyncio.sleep(POLL)
            if self._stop.is_set():
                return
            if not found.away and not found.read_only:
                await asyncio.sleep(AWAY)

    def _start(self, group: Sequence[Any]) -> None:
        task = asyncio.get_running_loop().create_task(self.work.run(group))
        self.in_flight[task] = group
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[list[bool]]) -> None:
        group = self.in_flight.pop(task)
        if self._room() >= min(CLAIM_FREE, self.capacity):
            self._free.set()
        if task.cancelled():
            return
        if error := task.exception():
            log.error("work failed unexpectedly; its lease will lapse", exc_info=error)
        self.finished += len(group)
        self.failed += len(group) if error else task.result().count(False)

    # -- Ending --------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        if self.in_flight:
            await asyncio.wait(self.in_flight, timeout=GRACE)
        left = dict(self.in_flight)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.work.leave([item for group in left.values() for item in group])

    # -- Being seen ----------------------------------------------------------------------------------------

    async def _register(self) -> bool:
        """Whether we are registered; not if we were told to stop while the database was away."""
        while not self.stopping:
            try:
                worker = await database.guarded(
                    lambda: Worker.async_objects.acreate(
                        queue=self.name,
                        hostname=socket.gethostname(),
                        pid=os.getpid(),
                        capacity=self.capacity,
                    )
                )
                self.worker_id = worker.id
                return True
            except Unavailable:
                self._heard_since = time.monotonic()
                await self._until_well()
            finally:
                await database.release()
        return False

    async def _beat(self) -> None:
        try:
            await database.guarded(self._beat_once)
        except Unavailable:
            self._heard_since = math.inf
            raise
        await asyncio.sleep(HEARTBEAT)

    async def _beat_once(self) -> None:
        async with database.own_connection():
            row = Worker.async_objects.filter(id=self.worker_id)
            beating = await row.aupdate(
                heartbeat_at=Now(), in_flight=len(self.in_flight), finished=self.finished, failed=self.failed
            )
            if not beating:  # taken for dead while the database or this process was away; our leases have lapsed
                log.warning("worker was taken for dead; starting anew", extra={"worker": self.worker_id})
                self.stop()
            now = time.monotonic()
            if now - self._heard_at > LATE:  # it waited: for a lock, or a server that was frozen
                self._heard_since = now
            self._heard_at, self._heard_since = now, min(self._heard_since, now)
            if now - self._heard_since > SILENT_AFTER.total_seconds():
                await reap()

    async def _sign_off(self) -> None:
        with contextlib.suppress(Unavailable):
            await database.guarded(lambda: Worker.async_objects.filter(id=self.worker_id).adelete())
        await database.release()

    async def _listen(self) -> None:
        """LISTEN needs a connection of its own: it does not pass PgBouncer's transaction mode, nor the pool's recycling."""
        parameters = {**database.connection_parameters(), "cursor_factory": psycopg.AsyncCursor}
        try:
            async with await psycopg.AsyncConnection.connect(**parameters) as conn:
                await conn.execute(f"LISTEN {self.work.table.queue}")
                self._look()
                async for _ in conn.notifies():
                    self._look()
        except psycopg.Error as error:
            faults.warn(log, "not listening, polling meanwhile", error=error)
        await asyncio.sleep(RECONNECT)

    def _look(self) -> None:
        self.work.hint()
        self._wake.set()


async def _happens(event: asyncio.Event, *, within: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()


async def run_until_idle(work: Work, *, worker_id: int = 1, limit: int = 400) -> list[bool]:
    """Claim and run until a claim is empty; which rows were done for good. It waits for no date, has no Worker row and runs
    nothing beside. What tests use."""
    done: list[bool] = []
    while True:
        work.look_anew()
        items = await work.claim(worker_id, limit)
        if not items:
            return done
        for results in await asyncio.gather(*map(work.run, work.groups(items))):
            done += results


async def forever(work: Callable[[], Awaitable[None]]) -> None:
    """Repeat `work`; an error is said and not the end."""
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


async def reap() -> None:
    """Release the leases of workers that fell silent, in all work tables, and forget them."""
    silent = [worker.id async for worker in Worker.async_objects.all().silent()]
    if silent:
        for table in TABLES.values():
            await table.release(silent)
        await Worker.async_objects.filter(id__in=silent).adelete()
        log.warning("workers fell silent; their leases lapsed", extra={"workers": silent})
