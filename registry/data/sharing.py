"""Answers that many ask for at the same moment: worked out once per process, and good for a moment longer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from registry.data import database
from registry.data.loop import PerLoop


class Shared[K: Hashable, T]:
    """`work` by key: who asks while it runs waits for it, who asks within `fresh` seconds after it gets the same answer.

    Readers must not change the answer. A failure goes to those who wait, and is not kept.
    """

    def __init__(self, work: Callable[[K], Awaitable[T]], *, fresh: float) -> None:
        self.work, self.fresh = work, fresh
        self._loops: PerLoop[dict[K, asyncio.Task[T]]] = PerLoop(dict, close=_cancel)

    async def get(self, key: K) -> T:
        tasks = self._tasks()
        task = tasks.get(key)
        if task is None:
            task = tasks[key] = asyncio.get_running_loop().create_task(self._run(key))
            task.add_done_callback(lambda done: self._expire(key, done))
        return await asyncio.shield(task)  # whoever hangs up takes the answer from nobody else

    def forget(self, key: K) -> None:
        """What is asked from now on is worked out anew."""
        self._tasks().pop(key, None)

    def _tasks(self) -> dict[K, asyncio.Task[T]]:
        return self._loops.get()

    async def _run(self, key: K) -> T:
        async with database.own_connection():  # the asker's own is the asker's
            return await self.work(key)

    def _expire(self, key: K, task: asyncio.Task[T]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed:
            self._drop(key, task)
        else:
            task.get_loop().call_later(self.fresh, self._drop, key, task)

    def _drop(self, key: K, task: asyncio.Task[T]) -> None:
        tasks = self._loops.peek()
        if tasks and tasks.get(key) is task:
            del tasks[key]


async def _cancel(tasks: dict[Any, asyncio.Task[Any]]) -> None:
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
