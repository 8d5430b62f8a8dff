"""Websockets of a client: where they connect, and with which key."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from registry_client._calls import Options
from registry_client._io.asynchronous import Socket, opened
from registry_client._io.sockets import key_headers, socket_url

type AsyncOpener = Callable[[str], AbstractAsyncContextManager[Socket]]


class AsyncSockets:
    """Opens websockets of the service, or those of a test double."""

    def __init__(self, options: Options, opener: AsyncOpener | None = None) -> None:
        self._options, self._opener = options, opener

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[Socket]:
        """An open websocket. Raises SocketRefused."""
        if self._opener:
            async with self._opener(path) as socket:
                yield socket
            return
        options = self._options
        async with opened(socket_url(options.url, path), key_headers(options.key), options.tls) as real:
            yield real
