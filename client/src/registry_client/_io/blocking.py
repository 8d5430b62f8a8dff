"""Blocking primitives: pauses, websockets, repeated work in a thread, a stop signal. The twin of asynchronous.py."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from registry_client._io.sockets import SocketRefused, arguments, closed
from registry_client.models.queue import Message

type Handler = Callable[[Message], object]

sleep = time.sleep


class Socket(Protocol):
    """An open websocket, or that of a test double."""

    def send(self, text: str) -> None:
        """Raises SocketClosed."""

    def receive(self) -> str:
        """The next message. Raises SocketClosed."""


class WebSocket:
    """A websocket of the websockets library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, text: str) -> None:
        try:
            self._connection.send(text)
        except ConnectionClosed as error:
            raise closed(error) from error

    def receive(self) -> str:
        """The next message. Raises SocketClosed."""
        try:
            return self._connection.recv(decode=True)
        except ConnectionClosed as error:
            raise closed(error) from error


@contextmanager
def opened(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> Iterator[Socket]:
    """An open websocket, closed at the end. Raises SocketRefused."""
    try:
        connection = connect(url, **arguments(url, headers, tls))
    except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
        raise SocketRefused(f"no websocket: {error!r}") from error
    with connection:
        yield WebSocket(connection)


@contextmanager
def repeating(action: Callable[[], object], *, first: float, every: float) -> Iterator[None]:
    """Call `action` after `first` seconds and then every `every` seconds, until the end of the block. It raises nothing."""
    ended = threading.Event()

    def repeat() -> None:
        pause = first
        while not ended.wait(pause):
            action()
            pause = every

    thread = threading.Thread(target=repeat, name="registry-client", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def finish(work: Callable[[], object]) -> None:
    """Complete `work`. (The asynchronous half protects it from cancellation.)"""
    work()


class StopSignal:
    """Tells a loop to end; any thread may set it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as it is set."""
        self._event.wait(seconds)
