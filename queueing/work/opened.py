"""A pool of open things by key, such as processors by address or clients by endpoint. One per `Work`, which closes it."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple


class _Kept[T](NamedTuple):
    thing: T
    stack: AsyncExitStack


class Opened[K, T]:
    """Each thing is opened by its first use and closed by `close`, or by `close_idle` after `keep` seconds without a use."""

    def __init__(self, *, keep: float = math.inf) -> None:
        self._keep = keep
        self._kept: dict[K, _Kept[T]] = {}
        self._used_at: dict[K, float] = {}
        self._opening = asyncio.Lock()

    async def get(
        self, key: K, make: Callable[[], AbstractAsyncContextManager[T]], *, fits: Callable[[T], bool] = lambda _: True
    ) -> T:
        """The thing of this key. One that does not fit any more is closed, and another takes its place."""
        self._used_at[key] = time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and fits(kept.thing):
            return kept.thing
        async with self._opening:
            kept = self._kept.get(key)  # somebody may have opened it meanwhile
            if kept is None or not fits(kept.thing):
                before, kept = kept, await self._open(make)
                self._kept[key] = kept
                if before is not None:
                    await before.stack.aclose()
            return kept.thing

    async def _open(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> _Kept[T]:
        stack = AsyncExitStack()
        return _Kept(await stack.enter_async_context(make()), stack)

    async def close_idle(self) -> None:
        """Close what nobody has used for a while."""
        then = time.monotonic() - self._keep
        for key in [key for key, at in self._used_at.items() if at < then]:
            await self._close(key)

    async def close(self) -> None:
        """Close everything."""
        for key in list(self._kept):
            await self._close(key)

    async def _close(self, key: K) -> None:
        self._used_at.pop(key, None)
        if kept := self._kept.pop(key, None):
            await kept.stack.aclose()
