"""Inline work: a web process runs rows of a `Work` by name, and all due rows while no worker is alive.

It is a drain like a worker's, with a Worker row of its own that beats: when the process is killed, its leases lapse, and a worker
settles the rows. Rows that it does not get to, for whatever reason, stay queued.
"""

import asyncio
import contextvars
import enum
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from queueing.work.drain import HEARTBEAT, Drain, forever
from queueing.work.table import SQL
from queueing.work.work import Key, Name, Work
from registry.data import database, db_breaker
from registry.errors import Unavailable

log = logging.getLogger(__name__)

WATCH_EVERY = 0.8  # seconds between looks at the workers' heartbeats
SHIFT = 900.0  # seconds; then a fresh drain begins with the next row
STRANDED_AFTER = 8.0  # seconds without a worker before this process stands in: longer than a drain's change of shift


class Answer(enum.Enum):
    """What became of a row that was asked for."""

    SETTLED = "settled"
    UNFINISHED = "unfinished"  # it was sent, and is tried again or asked about
    ELSEWHERE = "elsewhere"  # a worker was faster, or it is not due
    QUEUED = "queued"  # not taken: no room, nowhere to send it to, or the database too slow


class Inline:
    """The inline work of one kind in one web process. One per event loop.

    `queue` is that of the workers it stands in for, `name` that of its Worker row. At most `most` rows are asked for and not
    settled yet; what comes on top stays queued. `answered` is called with each answer.
    """

    def __init__(
        self,
        work: Callable[[], Work],
        *,
        queue: str,
        name: str,
        most: int,
        answered: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self.most = most
        self._work, self._queue, self._name, self._answered = work, queue, name, answered
        self._drain: _Drain | None = None
        self._running: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._heard_at = time.monotonic()  # of a worker, as far as this process knows

    @property
    def has_room(self) -> bool:
        return self._drain is None or len(self._drain.asked) < self.most

    @property
    def stands_in(self) -> bool:
        """Whether this process does what workers should."""
        return self._drain is not None and self._drain.stands_in

    def ask(self, tenant_id: int, id: UUID) -> asyncio.Future[Answer]:
        """Claim a durable row and do it, at once; the future of what became of it. Never raises."""
        drain, name = self._at_work(), (tenant_id, id)
        if name not in drain.asked and not self.has_room:
            self._answered(Answer.QUEUED)
            full: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            full.set_result(Answer.QUEUED)
            return full
        return asyncio.shield(drain.ask(name))

    async def watch(self) -> None:
        """Stand in from now on while no worker is alive. A server's process does this."""
        if self._watch is None:
            self._watch = asyncio.create_task(forever(self._look), context=contextvars.Context())

    async def close(self) -> None:
        """Finish what is in flight, or give it back."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._drain and self._running:
            self._drain.stop()
            await asyncio.gather(self._running, return_exceptions=True)

    def _at_work(self) -> "_Drain":
        if self._drain is None or self._running is None or self._running.done() or self._drain.stopping:
            self._drain = _Drain(self._work(), self._name, self._answered)
            # In a context of its own: not the connection, nor the log's request id, of whoever asked first.
            self._running = asyncio.get_running_loop().create_task(self._drain.live(), context=contextvars.Context())
        return self._drain

    async def _look(self) -> None:
        try:
            [(silent_for,)] = await database.fetch(SQL["heard"], {"queue": self._queue}, repeatable=False)
        except Unavailable:
            self._heard_at = time.monotonic()  # nobody can be heard of now
            raise
        if db_breaker.current().read_only:  # no worker's heartbeat goes through
            self._heard_at = time.monotonic()
        if silent_for is not None:
            self._heard_at = max(self._heard_at, time.monotonic() - silent_for)
        self._stand_in(time.monotonic() - self._heard_at > STRANDED_AFTER)
        await asyncio.sleep(WATCH_EVERY)

    def _stand_in(self, needed: bool) -> None:
        if needed != self.stands_in:
            log.warning(
                "no worker is alive, standing in for them" if needed else "workers are alive again, standing back"
            )
        if needed:
            self._at_work().stands_in = True
        elif self._drain is not None:
            self._drain.stands_in = False


class _Drain(Drain):
    """A drain that claims rows by name."""

    def __init__(self, work: Work, name: str, answered: Callable[[Answer], None]) -> None:
        super().__init__(work, name=name)
        self.stands_in = False
        self.asked: dict[Name, asyncio.Future[Answer]] = {}  # and not answered yet
        self._wanted: list[Name] = []  # of these, what is not claimed yet
        self._names: dict[Key, Name] = {}  # in flight
        self._answered = answered

    def ask(self, name: Name) -> asyncio.Future[Answer]:
        future = self.asked.get(name)
        if future is None:
            future = self.asked[name] = asyncio.get_running_loop().create_future()
            self._wanted.append(name)
            self._wake.set()
        return future

    async def live(self) -> None:
        """Until `stop`, or until the Worker row is gone: then whoever asks next begins anew."""
        try:
            await self.run(seconds=SHIFT)
        finally:
            self._answer(list(self.asked), Answer.QUEUED)
            await self.work.close()

    async def _claim(self, limit: int) -> Sequence[Any]:
        items = await self._claim_wanted(limit) if self._wanted else []
        if self.stands_in and len(items) < limit:
            try:
                items += await self.work.claim(self.worker_id, limit - len(items))
            except Exception:
                if not items:
                    raise
        return items

    async def _claim_wanted(self, limit: int) -> list[Any]:
        names, self._wanted = self._wanted[:limit], self._wanted[limit:]
        try:
            found = await self.work.claim_named(self.worker_id, names)
        except BaseException:
            self._answer(names, Answer.QUEUED)
            raise
        self._answer([name for name in names if name not in found], Answer.ELSEWHERE)
        self._answer([name for name, item in found.items() if item is None], Answer.QUEUED)
        items = {name: item for name, item in found.items() if item is not None}
        self._names.update({item.key: name for name, item in items.items()})
        return list(items.values())

    def _done(self, task: asyncio.Task[list[bool]]) -> None:
        group = self.in_flight[task]
        super()._done(task)
        lost = task.cancelled() or task.exception()
        for item, done in zip(group, [False] * len(group) if lost else task.result(), strict=True):
            if name := self._names.pop(item.key, None):
                self._answer([name], Answer.SETTLED if done else Answer.UNFINISHED)

    def _answer(self, names: Sequence[Name], answer: Answer) -> None:
        for name in names:
            if future := self.asked.pop(name, None):
                self._answered(answer)
                if not future.done():  # its caller may have hung up
                    future.set_result(answer)

    async def _listen(self) -> None:
        await asyncio.sleep(HEARTBEAT)  # it is told what to claim
