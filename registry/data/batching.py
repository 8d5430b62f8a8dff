"""Group commit: concurrent callers share one statement and one fsync."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence

from registry.data import faults

MAX_ROWS = 500  # per statement; with more, the first caller waits for the last
IN_FLIGHT = 2  # concurrent statements: one is prepared while the other commits
WORTH_ANOTHER = 64  # waiting rows from which a second concurrent statement costs less than it saves

KEPT = 1000  # batchers of a family; above that the idle ones are dropped


class Batcher[In, Out]:
    """Collects items while earlier batches commit, without an artificial wait.

    `write` takes the collected items and returns one result per item, in order. When it raises for a batch, the items are
    written one by one, so that only a bad one fails; a temporary error of the database (faults.is_temporary) fails all at once.
    `linger`: seconds between statements, where fewer commits matter more than latency. `weigh`: the rows of an item.
    """

    def __init__(
        self,
        write: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        max_rows: int = MAX_ROWS,
        in_flight: int = IN_FLIGHT,
        linger: float = 0.0,
        weigh: Callable[[In], int] | None = None,
    ) -> None:
        self._write = write
        self._max_rows = max_rows
        self._weigh = weigh
        self._in_flight = in_flight
        self._linger = linger
        self._wrote_at = -linger
        self._waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self._rows = 0  # that wait
        self._writers: set[asyncio.Task[None]] = set()

    def submit(self, item: In) -> asyncio.Future[Out]:
        """The future of `item`'s result. Cancelling it does not withdraw the item: it may be committed already."""
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._rows += 1 if self._weigh is None else self._weigh(item)
        if not self._writers or (len(self._writers) < self._in_flight and self._rows >= WORTH_ANOTHER):
            # In an empty context: the log lines of a batch would carry the request of whoever happened to start its writer.
            task = asyncio.get_running_loop().create_task(self._drain(), context=contextvars.Context())
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)
        return future

    @property
    def idle(self) -> bool:
        return not self._writers

    async def finish(self) -> None:
        """Wait until everything submitted so far is written."""
        while self._writers:
            await asyncio.gather(*self._writers)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                if (pause := self._wrote_at + self._linger - time.monotonic()) > 0 and len(
                    self._waiting
                ) < self._max_rows:
                    await asyncio.sleep(pause)
                    if not self._waiting:  # the other writer took them
                        return
                self._wrote_at = time.monotonic()
                end, rows = self._end_of_batch()
                batch, self._waiting = self._waiting[:end], self._waiting[end:]
                self._rows -= rows
                await self._settle(batch)
        finally:
            # Not by a done-callback, which runs later: an item submitted in between would find this writer and start none.
            self._writers.discard(asyncio.current_task())  # type: ignore[arg-type]

    def _end_of_batch(self) -> tuple[int, int]:
        """The number of items of the next batch, and of their rows."""
        if self._weigh is None:
            count = min(len(self._waiting), self._max_rows)
            return count, count
        rows = 0
        for end, (item, _) in enumerate(self._waiting):
            weight = self._weigh(item)
            if end and rows + weight > self._max_rows:
                return end, rows
            rows += weight
        return len(self._waiting), rows

    async def _settle(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            results = await self._write([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not faults.is_temporary(error):
                for pair in batch:
                    await self._settle([pair])
                return
            for _, future in batch:
                _fail(future, error)
        except asyncio.CancelledError:  # at the end of the loop: nobody may wait for ever
            for _, future in batch:
                future.cancel()
            raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


class Family[In, Out]:
    """A batcher per tenant: a tenant that waits for a lock in the database does not delay others."""

    def __init__(self, make: Callable[[], Batcher[In, Out]]) -> None:
        self._make = make
        self._batchers: dict[int, Batcher[In, Out]] = {}

    def of(self, tenant_id: int) -> Batcher[In, Out]:
        found = self._batchers.get(tenant_id)
        if found is None:
            if len(self._batchers) >= KEPT:
                self._batchers = {tenant: batcher for tenant, batcher in self._batchers.items() if not batcher.idle}
            found = self._batchers[tenant_id] = self._make()
        return found

    async def finish(self) -> None:
        """Wait until everything submitted so far is written."""
        await asyncio.gather(*(batcher.finish() for batcher in self._batchers.values()))


def _fail(future: asyncio.Future, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieve it: a cancelled caller never does, and asyncio would log that
