"""A way to the service that gets into trouble: it answers by itself, loses answers, cuts connections, lets no websocket through."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

CUT = b"cut"  # in place of an answer: the connection ends without one


class Unreliable:
    """`async with Unreliable(server) as way:` then `way.url`. One request per connection."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port
        self.requests: list[str] = []  # request lines without the version
        self._planned: deque[tuple[bytes, bool]] = deque()  # what is answered, and whether the service gets the request
        self._websockets = True
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.closes()

    @property
    def connections(self) -> int:
        """How many are open, on both sides."""
        return len(self._open)

    # -- Trouble -----------------------------------------------------------------------------------------------

    def answers(self, status: int, *, times: int = 1, **headers: str) -> None:
        """The next requests get this status, and do not reach the service."""
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        answer = f"HTTP/1.1 {status} Trouble\r\nContent-Length: 0\r\nConnection: close\r\n{named}\r\n".encode()
        self._planned.extend([(answer, False)] * times)

    def loses_answers(self, *, times: int = 1) -> None:
        """The next requests are executed, and their connections end without the answer."""
        self._planned.extend([(CUT, True)] * times)

    def loses_requests(self, *, times: int = 1) -> None:
        """The connections of the next requests end before the service gets them."""
        self._planned.extend([(CUT, False)] * times)

    def lets_no_websocket_through(self) -> None:
        self._websockets = False

    def cuts(self) -> None:
        """All connections end now."""
        for writer in list(self._open):
            writer.transport.abort()

    def closes(self) -> None:
        """Nobody can connect any more."""
        self._listener.close()
        self.cuts()

    # -- The way -----------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._pass_on(await reader.readuntil(b"\r\n\r\n"), reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upgrade = b"upgrade: websocket" in head.lower()
        self.requests.append(head.split(b"\r\n")[0].decode().rpartition(" ")[0])
        answer, executed = self._planned.popleft() if self._planned else (b"", True)
        if upgrade and not self._websockets:
            answer, executed = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False
        got = b""
        if executed:
            if not upgrade:
                head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            got = await self._executed(head, reader, None if answer else writer)
        if answer == CUT:
            writer.transport.abort()
        else:
            writer.write(answer or got)
            await writer.drain()

    async def _executed(self, head: bytes, reader: asyncio.StreamReader, back: asyncio.StreamWriter | None) -> bytes:
        """Send the request to the service; its answer goes `back`, or is returned."""
        answer, request = await asyncio.open_connection(self._host, self._port)
        self._open.add(request)
        forward = asyncio.create_task(_piped(reader, request))
        try:
            request.write(head)
            if back is None:
                return await answer.read()
            await _piped(answer, back)
            return b""
        finally:
            forward.cancel()
            await asyncio.gather(forward, return_exceptions=True)
            self._open.discard(request)
            request.close()


async def _piped(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(64 * 1024):
            target.write(data)
            await target.drain()
