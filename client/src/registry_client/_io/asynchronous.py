"""Asynchronous primitives: pauses, websockets, repeated work, a stop signal. The twin of blocking.py."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from registry_client._io.sockets import SocketRefused, arguments, closed
from registry_client.models.queue import Message

type Handler = Callable[[Message], Awaitable[object]]

FINISH_TIMEOUT = 5.0  # seconds that a canceled task may take to report what it did

sleep = asyncio.sleep


class Socket(Protocol):
    """An open websocket, or that of a test double."""

    async def send(self, text: str) -> None:
        """Raises SocketClosed."""

    async def receive(self) -> str:
        """The next message. Raises SocketClosed."""


class WebSocket:
    """A websocket of the websockets library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise closed(error) from error

    async def receive(self) -> str:
        """The next message. Raises SocketClosed."""
        try:
            return await self._connection.recv(decode=True)
        except ConnectionClosed as error:
            raise closed(error) from error


@asynccontextmanager
async def opened(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> AsyncIterator[Socket]:
    """An open websocket, closed at the end. Raises SocketRefused."""
    try:
        connection = await connect(url, **arguments(url, headers, tls))
    except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
        raise SocketRefused(f"no websocket: {error!r}") from error
    async with connection:
        yield WebSocket(connection)


@asynccontextmanager
async def repeating(action: Callable[[], Awaitable[object]], *, first: float, every: float) -> AsyncIterator[None]:
    """Call `action` after `first` seconds and then every `every` seconds, until the end of the block. It raises nothing."""

    async def repeat() -> None:
        await asyncio.sleep(first)
        while True:
            await action()
            await asyncio.sleep(every)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def finish(work: Callable[[], Awaitable[object]]) -> None:
    """Complete `work` even if the caller's task is canceled meanwhile, within `FINISH_TIMEOUT`."""
    task = asyncio.ensure_future(work())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=FINISH_TIMEOUT)
        raise


class StopSignal:
    """Tells a loop to end. Thread-safe only in the blocking half."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as it is set."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
