"""Live events over a websocket: resume, reconnect, and long polls where no websocket can be opened."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from registry_client._io.blocking import Socket, sleep
from registry_client._io.sockets import BAD_MESSAGE, NO_RIGHT, SocketClosed, SocketRefused
from registry_client._live import PING, Change, resume, type_of
from registry_client._position import Position
from registry_client._responses import decode_bytes
from registry_client._retry import Retry, Tries
from registry_client.errors import AuthenticationFailed, ConnectionFailed, ProblemDetails

REFUSALS = 2  # handshakes in a row that fail before long polls take over


class Feed[C: Change]:
    """The numbered events of one source: one object, or all objects of a tenant."""

    def __init__(
        self,
        change: type[C],
        *,
        opened: Callable[[], Any],  # a context manager with an open websocket; raises SocketRefused
        check: Callable[[], object],  # raises the error that a refusal of the websocket stands for
        poll: Callable[[int | None], Sequence[C]] | None = None,  # events above a number; None: the current one
        reconnect: Retry,
    ) -> None:
        self._change, self._opened, self._check, self._poll = change, opened, check, poll
        self._reconnect = reconnect
        self._position = Position()
        self._tries: Tries | None = None  # since the connection was lost
        self._refused = 0
        self._denied = False  # the latest websocket was refused although the object can be read
        self._pings = 0  # without an answer, on this connection

    def changes(self, after: int | None = None) -> Generator[C]:
        """Every change above `after`, once and in order; without it, from now on. Raises RegistryError."""
        self._position = Position(after)
        while not (self._poll and self._refused >= REFUSALS):
            try:
                with closing(self._connection()) as connection:
                    for change in connection:
                        yield change
            except ConnectionFailed as error:
                self._pause_after(error)
        while True:
            for change in self._polled():
                yield change

    def _pause_after(self, error: ConnectionFailed) -> None:
        """Wait before the next connection. Raises the error if there is none."""
        if isinstance(error, SocketClosed):
            self._answer_to(error)
        self._refused = self._refused + 1 if isinstance(error, SocketRefused) else 0
        self._tries = self._tries or Tries(self._reconnect)
        pause = self._tries.pause_after(error)
        if pause is None:
            raise error
        sleep(pause)

    def _answer_to(self, error: SocketClosed) -> None:
        """Raises the service's answer if the websocket was closed for good. An object may exist only now: then try once more."""
        if error.code == NO_RIGHT:
            self._check()
            if self._denied:
                raise AuthenticationFailed(ProblemDetails(status=401, detail="the websocket was refused")) from error
            self._denied = True
        elif error.code == BAD_MESSAGE:
            raise error

    # -- The websocket -------------------------------------------------------------------------------------------

    def _connection(self) -> Generator[C]:
        """The changes of one connection, until it ends: raises SocketRefused, SocketClosed."""
        with self._opened() as socket:
            self._pings = 0
            if self._position.last is not None:
                self._resume(socket)
            while True:
                change = self._read(socket.receive())
                if change is not None and self._position.takes(change.sequence):
                    yield change
                if self._position.lacks_events:
                    self._resume(socket)

    def _resume(self, socket: Socket) -> None:
        """Ask for everything above the position; the pong after that says that it was sent."""
        socket.send(resume(self._position.starts_resume()))
        socket.send(PING)
        self._pings += 1

    def _read(self, text: str) -> C | None:
        self._tries, self._refused, self._denied = None, 0, False
        kind = type_of(text)
        if kind == "pong":
            self._pings -= 1
            if not self._pings:
                self._position.ends_resume()
        return decode_bytes(text, self._change) if kind == self._change.kind else None

    # -- Long polls ------------------------------------------------------------------------------------------------

    def _polled(self) -> Sequence[C]:
        assert self._poll is not None
        found = self._poll(self._position.last)
        for change in found:
            self._position.last = change.sequence
        return found
