"""Websockets of a client: where they connect, and with which key."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from registry_client._calls import Options
from registry_client._io.blocking import Socket, opened
from registry_client._io.sockets import key_headers, socket_url

type Opener = Callable[[str], AbstractContextManager[Socket]]


class Sockets:
    """Opens websockets of the service, or those of a test double."""

    def __init__(self, options: Options, opener: Opener | None = None) -> None:
        self._options, self._opener = options, opener

    @contextmanager
    def opened(self, path: str) -> Iterator[Socket]:
        """An open websocket. Raises SocketRefused."""
        if self._opener:
            with self._opener(path) as socket:
                yield socket
            return
        options = self._options
        with opened(socket_url(options.url, path), key_headers(options.key), options.tls) as real:
            yield real
