"""An HTTP server for tests: a test scripts each connection byte by byte."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

type Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Server"], Awaitable[None]]


class Server:
    """`async with Server(talk) as server:`; each connection is `talk`'s, and closed when that returns."""

    def __init__(self, talk: Talk, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.talk, self.host, self.tls = talk, host, tls
        self.accepted = 0
        self.requests: list[bytes] = []
        self.open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self.listener = await asyncio.start_server(self.serve, self.host, 0, ssl=self.tls)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.listener.close()
        for writer in list(self.open):
            writer.transport.abort()

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open.add(writer)
        try:
            await self.talk(reader, writer, self)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open.discard(writer)

    async def hear(self, reader: asyncio.StreamReader) -> bytes:
        """One whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        return request


def saying(*answers: bytes, then_close: bool = False) -> Talk:
    """Answer the first request with the first of `answers`, and so on; the last one again and again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        for number in range(10_000):
            await server.hear(reader)
            writer.write(answers[min(number, len(answers) - 1)])
            if then_close:
                return

    return talk


async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
    """Hear everything, say nothing."""
    while True:
        await server.hear(reader)


def in_pieces(*pieces: bytes, then_close: bool = False) -> Talk:
    """Answer in so many writes, each on its way before the next."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        while True:
            await server.hear(reader)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if then_close:
                return

    return talk
