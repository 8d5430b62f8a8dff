"""A pool of open objects by key, such as processors by address or HTTP clients by endpoint. A `Work` owns and closes it."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple


class _Entry[T](NamedTuple):
    object: T
    stack: AsyncExitStack


class Opened[K, T]:
    """Opens an object when it is first used. Closes it in `close`, or in `close_idle` after `keep` seconds without use."""

    def __init__(self, *, keep: float = math.inf) -> None:
        self._keep = keep
        self._entries: dict[K, _Entry[T]] = {}
        self._used_at: dict[K, float] = {}
        self._opening = asyncio.Lock()

    async def get(
        self, key: K, make: Callable[[], AbstractAsyncContextManager[T]], *, fits: Callable[[T], bool] = lambda _: True
    ) -> T:
        """The object of this key. If it does not fit any more, it is replaced and closed."""
        self._used_at[key] = time.monotonic()
        entry = self._entries.get(key)
        if entry is not None and fits(entry.object):
            return entry.object
        async with self._opening:
            entry = self._entries.get(key)  # another task may have opened it meanwhile
            if entry is None or not fits(entry.object):
                before, entry = entry, await self._open(make)
                self._entries[key] = entry
                if before is not None:
                    await before.stack.aclose()
            return entry.object

    async def _open(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> _Entry[T]:
        stack = AsyncExitStack()
        return _Entry(await stack.enter_async_context(make()), stack)

    async def close_idle(self) -> None:
        """Close objects that were not used for `keep` seconds."""
        then = time.monotonic() - self._keep
        for key in [key for key, at in self._used_at.items() if at < then]:
            await self._close(key)

    async def close(self) -> None:
        """Close everything."""
        for key in list(self._entries):
            await self._close(key)

    async def _close(self, key: K) -> None:
        self._used_at.pop(key, None)
        if entry := self._entries.pop(key, None):
            await entry.stack.aclose()
