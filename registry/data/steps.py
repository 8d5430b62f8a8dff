"""Waits for tasks with limits that are counted in steps of one timer, shared by all that wait on an event loop.

A timer and a future of its own for each caller and each step would cost a request more than its statement's parameters.
"""

import asyncio
from collections.abc import Awaitable

STEP = 0.05  # seconds


class Steps:
    """The timer, which runs while somebody waits. Delays of a busy loop do not count."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}  # the steps that each waits at most
        self._timer: asyncio.TimerHandle | None = None

    async def done(self, task: asyncio.Future, *, within: float) -> bool:
        """Whether the task ends within the limit, in seconds."""
        if task.done():
            return True
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake(_: asyncio.Future) -> None:
            if not ended.done():
                ended.set_result(None)

        self._waiting[ended] = round(within / STEP) + 1  # the step that runs already does not count
        if self._timer is None:
            self._timer = loop.call_later(STEP, self._count)
        task.add_done_callback(wake)
        try:
            await ended
        finally:
            task.remove_done_callback(wake)
            self._waiting.pop(ended, None)
        return task.done()

    def _count(self) -> None:
        for ended, left in list(self._waiting.items()):
            self._waiting[ended] = left - 1
            if left <= 1 and not ended.done():
                ended.set_result(None)
        self._timer = asyncio.get_running_loop().call_later(STEP, self._count) if self._waiting else None

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def started[T](work: Awaitable[T]) -> asyncio.Future[T]:
    """A task for `work` that runs up to its first wait at once, instead of in the loop's next turn."""
    if asyncio.iscoroutine(work):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(work)
