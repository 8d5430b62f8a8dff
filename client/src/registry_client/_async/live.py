"""Live events over a websocket: resume, reconnect, and long polls where no websocket can be opened."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from registry_client._io.asynchronous import Socket, sleep
from registry_client._io.sockets import BAD_MESSAGE, NO_RIGHT, SocketClosed, SocketRefused
from registry_client._live import PING, Change, resume, type_of
from registry_client._position import Position
from registry_client._responses import decode_bytes
from registry_client._retry import Retry, Tries
from registry_client.errors import AuthenticationFailed, ConnectionFailed, ProblemDetails

REFUSALS = 2  # handshakes in a row that fail before long polls take over


class AsyncFeed[C: Change]:
    """The numbered events of one source: one object, or all objects of a tenant."""

    def __init__(
        self,
        change: type[C],
        *,
        opened: Callable[[], Any],  # a context manager with an open websocket; raises SocketRefused
        check: Callable[[], Awaitable[object]],  # raises the error that a refusal of the websocket stands for
        poll: Callable[[int | None], Awaitable[Sequence[C]]]
        | None = None,  # events above a number; None: the current one
        reconnect: Retry,
    ) -> None:
        self._change, self._opened, self._check, self._poll = change, opened, check, poll
        self._reconnect = reconnect
        self._position = Position()
        self._tries: Tries | None = None  # since the connection was lost
        self._refused = 0
        self._denied = False  # the latest websocket was refused although the object can be read
        self._pings = 0  # without an answer, on this connection

    async def changes(self, after: int | None = None) -> AsyncGenerator[C]:
        """Every change above `after`, once and in order; without it, from now on. Raises RegistryError."""
        self._position = Position(after)
        while not (self._poll and self._refused >= REFUSALS):
            try:
                async with aclosing(self._connection()) as connection:
                    async for change in connection:
                        yield change
            except ConnectionFailed as error:
                await self._pause_after(error)
        while True:
            for change in await self._polled():
                yield change

    async def _pause_after(self, error: ConnectionFailed) -> None:
        """Wait before the next connection. Raises the error if there is none."""
        if isinstance(error, SocketClosed):
            await self._answer_to(error)
        self._refused = self._refused + 1 if isinstance(error, SocketRefused) else 0
        self._tries = self._tries or Tries(self._reconnect)
        pause = self._tries.pause_after(error)
        if pause is None:
            raise error
        await sleep(pause)

    async def _answer_to(self, error: SocketClosed) -> None:
        """Raises the service's answer if the websocket was closed for good. An object may exist only now: then try once more."""
        if error.code == NO_RIGHT:
            await self._check()
            if self._denied:
                raise AuthenticationFailed(ProblemDetails(status=401, detail="the websocket was refused")) from error
            self._denied = True
        elif error.code == BAD_MESSAGE:
            raise error

    # -- The websocket -------------------------------------------------------------------------------------------

    async def _connection(self) -> AsyncGenerator[C]:
        """The changes of one connection, until it ends: raises SocketRefused, SocketClosed."""
        async with self._opened() as socket:
            self._pings = 0
            if self._position.last is not None:
                await self._resume(socket)
            while True:
                change = self._read(await socket.receive())
                if change is not None and self._position.takes(change.sequence):
                    yield change
                if self._position.lacks_events:
                    await self._resume(socket)

    async def _resume(self, socket: Socket) -> None:
        """Ask for everything above the position; the pong after that says that it was sent."""
        await socket.send(resume(self._position.starts_resume()))
        await socket.send(PING)
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

    async def _polled(self) -> Sequence[C]:
        assert self._poll is not None
        found = await self._poll(self._position.last)
        for change in found:
            self._position.last = change.sequence
        return found
