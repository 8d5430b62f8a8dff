"""Inline work: a web process does rows of one `Work` itself, at once, and all due rows while no worker is alive.

It runs a drain with a Worker row and heartbeat of its own: if the process is killed, its leases end and a worker does the rows.
Rows that it cannot do stay queued for the workers.
"""

import asyncio
import contextvars
import enum
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from queueing.work.drain import GRACE, HEARTBEAT, Drain, forever
from queueing.work.keyed import Key
from queueing.work.table import SQL
from queueing.work.work import PublicId, Work
from registry.data import database, db_breaker
from registry.data.loop import PerLoop, Tasks
from registry.errors import Unavailable

log = logging.getLogger(__name__)

WATCH_EVERY = 0.8  # seconds between checks of the workers' heartbeats
DRAIN_SECONDS = 900.0  # then the next request starts a new drain
STRANDED_AFTER = (
    8.0  # seconds without a worker until this process stands in; longer than a worker takes to start its next drain
)


class Result(enum.Enum):
    """What became of a requested row."""

    SETTLED = "settled"
    UNFINISHED = "unfinished"  # sent; it is tried again, or its outcome is looked up
    ELSEWHERE = "elsewhere"  # a worker has claimed it, it is left to a pool of workers, or it is not due
    QUEUED = "queued"  # not claimed: no capacity, no processor available, or the database too slow


class Inline:
    """The inline work of one kind in one web process and event loop.

    `queue` is the queue of the workers it stands in for, `name` the one of its own Worker row. Of the rows that are requested, at
    most `limit` are in progress; others stay queued. `on_result` is called with each result.
    """

    def __init__(
        self,
        work: Callable[[], Work],
        *,
        queue: str,
        name: str,
        limit: int,
        on_result: Callable[[Result], None] = lambda _: None,
    ) -> None:
        self.limit = limit
        self._work, self._queue, self._name, self._on_result = work, queue, name, on_result
        self._drain: _InlineDrain | None = None
        self._drains = Tasks()  # also those that were stopped and finish their rows
        self._watching: asyncio.Task[None] | None = None
        self._worker_seen_at = time.monotonic()  # when a worker was alive last, as far as this process knows

    @property
    def has_capacity(self) -> bool:
        return self._drain is None or len(self._drain.requested) < self.limit

    @property
    def stands_in(self) -> bool:
        """Whether this process does the work of workers that are missing."""
        return self._drain is not None and self._drain.stands_in

    def submit(self, tenant_id: int, id: UUID) -> asyncio.Future[Result]:
        """Claim a durable row and do it at once; the future of its result. Never raises."""
        drain, public_id = self._current_drain(), (tenant_id, id)
        if public_id not in drain.requested and not self.has_capacity:
            self._on_result(Result.QUEUED)
            rejected: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            rejected.set_result(Result.QUEUED)
            return rejected
        return asyncio.shield(drain.request(public_id))

    async def watch(self) -> None:
        """Stand in, from now on, while no worker is alive. The processes of a server call this."""
        if self._watching is None:
            self._watching = asyncio.create_task(forever(self._check_workers), context=contextvars.Context())

    def stop(self) -> None:
        """Claim nothing more, and stand in for nobody. The end of a loop calls this for all inline work before it closes any."""
        if self._watching:
            self._watching.cancel()
        if self._drain:
            self._drain.stop()

    async def close(self) -> None:
        """Finish the rows in flight, or give them back."""
        self.stop()
        if self._watching:
            await asyncio.gather(self._watching, return_exceptions=True)
        while self._drains.running:
            self.stop()
            await asyncio.gather(*self._drains.running, return_exceptions=True)

    def _current_drain(self) -> "_InlineDrain":
        if self._drain is None or self._drain.stopping:
            self._drain = _InlineDrain(self._work(), self._name, self._on_result)
            self._drains.start(self._drain.run_and_close())
        return self._drain

    async def _check_workers(self) -> None:
        try:
            [(silent_for,)] = await database.fetch(SQL["silent_for"], {"queue": self._queue}, repeatable=False)
        except Unavailable:
            self._worker_seen_at = time.monotonic()  # nothing is known of workers now
            raise
        if db_breaker.current().read_only:  # no worker can write its heartbeat
            self._worker_seen_at = time.monotonic()
        if silent_for is not None:
            self._worker_seen_at = max(self._worker_seen_at, time.monotonic() - silent_for)
        self._stand_in(time.monotonic() - self._worker_seen_at > STRANDED_AFTER)
        await asyncio.sleep(WATCH_EVERY)

    def _stand_in(self, needed: bool) -> None:
        if needed != self.stands_in:
            log.warning("no worker is alive: this process does their work" if needed else "workers are alive again")
        if needed:
            self._current_drain().stands_in = True
        elif self._drain is not None:
            self._drain.stands_in = False


def per_loop(make: Callable[[], Inline]) -> PerLoop[Inline]:
    """The inline work of each event loop; the end of a loop closes it."""
    return PerLoop(make, stop=Inline.stop, close=Inline.close, within=GRACE + 2.0)


class _InlineDrain(Drain):
    """A drain that claims the rows that are requested; all due rows too while it stands in for workers."""

    def __init__(self, work: Work, name: str, on_result: Callable[[Result], None]) -> None:
        super().__init__(work, name=name)
        self.stands_in = False
        self.requested: dict[PublicId, asyncio.Future[Result]] = {}  # without a result so far
        self._unclaimed: list[PublicId] = []
        self._claimed: dict[Key, PublicId] = {}
        self._on_result = on_result

    def request(self, id: PublicId) -> asyncio.Future[Result]:
        future = self.requested.get(id)
        if future is None:
            future = self.requested[id] = asyncio.get_running_loop().create_future()
            self._unclaimed.append(id)
            self._wake.set()
        return future

    async def run_and_close(self) -> None:
        """Run until `stop`, or until the Worker row is deleted; the next request then starts a new drain."""
        try:
            await self.run(seconds=DRAIN_SECONDS)
        finally:
            self.stop()  # also after an error: the next request starts a new drain
            self._resolve(list(self.requested), Result.QUEUED)
            await self.work.close()

    async def _claim(self, limit: int) -> Sequence[Any]:
        items = await self._claim_requested(limit) if self._unclaimed else []
        if self.stands_in and len(items) < limit:
            try:
                items += await self.work.claim(self.worker_id, limit - len(items))
            except Exception:
                if not items:
                    raise
        return items

    async def _claim_requested(self, limit: int) -> list[Any]:
        ids, self._unclaimed = self._unclaimed[:limit], self._unclaimed[limit:]
        if not self.work.division.takes_some(self.work.table.queue):  # a pool does this work
            self._resolve(ids, Result.ELSEWHERE)
            return []
        try:
            claimed = await self.work.claim_by_id(self.worker_id, ids)
        except BaseException:
            self._resolve(ids, Result.QUEUED)
            raise
        self._resolve([id for id in ids if id not in claimed], Result.ELSEWHERE)
        self._resolve([id for id, item in claimed.items() if item is None], Result.QUEUED)
        items = {id: item for id, item in claimed.items() if item is not None}
        self._claimed.update({item.key: id for id, item in items.items()})
        return list(items.values())

    def _done(self, task: asyncio.Task[list[bool]]) -> None:
        group = self.in_flight[task]
        super()._done(task)
        lost = task.cancelled() or task.exception()
        for item, done in zip(group, [False] * len(group) if lost else task.result(), strict=True):
            if id := self._claimed.pop(item.key, None):
                self._resolve([id], Result.SETTLED if done else Result.UNFINISHED)

    def _resolve(self, ids: Sequence[PublicId], result: Result) -> None:
        for id in ids:
            if future := self.requested.pop(id, None):
                self._on_result(result)
                if not future.done():  # the caller may have cancelled it
                    future.set_result(result)

    async def _listen(self) -> None:
        await asyncio.sleep(HEARTBEAT)  # requests wake it; NOTIFY is for workers
