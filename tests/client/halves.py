"""Both halves of the client under one interface: the blocking one runs in threads, so that one test reads for both."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from types import GeneratorType
from typing import Any

from registry_client import AsyncClient, Client

HALVES = ("async", "blocking")
_END = object()


def make(half: str, *arguments: Any, **options: Any) -> Any:
    """A client of this half; awaited like AsyncClient in both cases."""
    return AsyncClient(*arguments, **options) if half == "async" else InThreads(Client(*arguments, **options))


async def end(client: Any) -> None:
    await (client.aclose() if isinstance(client, AsyncClient) else client.close())


class InThreads:
    """A blocking object whose methods are awaited; each call runs in a thread."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._blocking, name)
        if not callable(found):
            return InThreads(found)
        if name in ("consumer", "stop"):  # neither blocks
            return lambda *given, **named: _wrapped(found(*map(_blocking, given), **named))
        return lambda *given, **named: _Called(found, [*map(_blocking, given)], named)


class _Called:
    """A call of which its caller decides: awaited, iterated or entered."""

    def __init__(self, call: Callable[..., Any], given: list[Any], named: dict[str, Any]) -> None:
        self._call = lambda: call(*given, **named)

    def __await__(self) -> Any:
        return asyncio.to_thread(self._call).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return _iterated(self._call)

    async def aclose(self) -> None:
        """Nothing was begun."""

    async def __aenter__(self) -> Any:
        self._entered = _entered(self._call)
        return await self._entered.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        await self._entered.__aexit__(*error)


async def _iterated(call: Callable[[], Any]) -> AsyncIterator[Any]:
    iterator = await asyncio.to_thread(call)
    try:
        while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield item
    finally:
        if isinstance(iterator, GeneratorType):
            await asyncio.to_thread(iterator.close)


@asynccontextmanager
async def _entered(call: Callable[[], AbstractContextManager[Any]]) -> AsyncIterator[Any]:
    manager = await asyncio.to_thread(call)
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield _iterated(lambda: iter(entered))
    except Exception as error:
        if not await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def _wrapped(value: Any) -> Any:
    return value if value is None else InThreads(value)


def _blocking(value: Any) -> Any:
    """A coroutine function of the test as the function that the blocking half calls in its thread."""
    if not inspect.iscoroutinefunction(value):
        return value
    loop = asyncio.get_running_loop()
    return lambda *given: asyncio.run_coroutine_threadsafe(value(*given), loop).result()
