"""Resources of an event loop: `PerLoop` opens one for each running loop, and `end_loop` closes all that the loop opened.

Every owner of a loop (the ASGI lifespan, a command, an RQ entry point, a synchronous twin) calls `end_loop` last; nothing else
closes the resources. `sync_twin` offers an async service to callers in threads, such as admin pages.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import async_to_sync

from registry.data import orm

log = logging.getLogger(__name__)

CLOSE_LIMIT = 3.0  # seconds for one resource to close, unless it names a limit of its own
FINISH_LIMIT = 1.0  # seconds for background tasks to finish at the end of their loop; then they are cancelled
REOPENED = 3  # how often a resource may be reopened while others close

_declared: list["PerLoop[Any]"] = []


class PerLoop[T]:
    """One resource for each event loop, opened by the first `get` on it. Declare it at module level.

    Resources close in reverse order of declaration: a module imports what it uses, so what it uses was declared before it.
    `stop` runs for every open resource before the first one closes, so that slow ones finish at the same time.
    """

    def __init__(
        self,
        open: Callable[[], T],
        *,
        close: Callable[[T], Awaitable[None]] | None = None,
        stop: Callable[[T], None] | None = None,
        within: float = CLOSE_LIMIT,
    ) -> None:
        self._open, self._stop, self._close, self._within = open, stop, close, within
        self._resources: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()
        _declared.append(self)

    def get(self) -> T:
        """The running loop's resource, opened by the first call. Raises RuntimeError without a running loop."""
        loop = asyncio.get_running_loop()
        resource = self._resources.get(loop)
        if resource is None:
            resource = self._resources[loop] = self._open()
        return resource

    def peek(self) -> T | None:
        """The running loop's resource, or None if it is not open."""
        return self._resources.get(asyncio.get_running_loop())

    def stop(self) -> None:
        resource = self.peek()
        if resource is not None and self._stop is not None:
            self._stop(resource)

    async def close(self) -> None:
        """Close the running loop's resource if it is open; the next `get` opens a new one. Never raises: errors are logged."""
        resource = self._resources.pop(asyncio.get_running_loop(), None)
        if resource is None or self._close is None:
            return
        try:
            async with asyncio.timeout(self._within):
                await self._close(resource)
        except Exception:
            log.exception(
                "a resource of the event loop was not closed", extra={"resource": type(resource).__qualname__}
            )


async def end_loop() -> None:
    """Close everything that the running loop opened, also what is reopened meanwhile, such as by a final write."""
    for resource in still_open():
        resource.stop()
    for _ in range(REOPENED * len(_declared)):
        opened = still_open()
        if not opened:
            return
        await opened[-1].close()
    log.error("resources of the event loop are reopened again and again", extra={"resources": len(still_open())})


def still_open() -> list[PerLoop[Any]]:
    """The open resources of the running loop, in order of declaration."""
    return [resource for resource in _declared if resource.peek() is not None]


def background[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in an empty context: it inherits neither the caller's database connection nor the request id of its logs."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


class Tasks:
    """Background tasks of one loop, which end with it."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[Any]] = set()

    def start[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = background(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def close(self) -> None:
        """Wait FINISH_LIMIT for the tasks, then cancel those still running."""
        if self.running:
            await asyncio.wait(self.running, timeout=FINISH_LIMIT)
            await self.cancel()

    async def cancel(self) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


# -- Synchronous twins ---------------------------------------------------------------------------------------


def sync_twin[**P, T](service: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """`service` for a caller in a thread. It runs on the server's loop, or without one on a new loop for this call."""

    @wraps(service)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return async_to_sync(_run)(lambda: service(*args, **kwargs))

    return call


async def _run[T](service: Callable[[], Awaitable[T]]) -> T:
    new_loop = len(asyncio.all_tasks()) == 1  # then this call ends it
    try:
        # The task inherits the request's context, including the connection of the request's own task.
        async with orm.own_connection():
            return await service()
    finally:
        if new_loop:
            await end_loop()
