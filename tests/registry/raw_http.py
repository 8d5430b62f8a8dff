"""Raw connections to the service, for bytes that no well-behaved client sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


@asynccontextmanager
async def line(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def answer_to(address: str, request: bytes, within: float = 5) -> tuple[int, bytes]:
    """Status and the whole answer, read until the server closes or the body is complete."""
    async with line(address) as (reader, writer), asyncio.timeout(within):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length")).split(b":")[1])
        return int(head.split()[1]), head + await reader.readexactly(length)


async def all_of(address: str, request: bytes, within: float = 5) -> bytes:
    """Everything that is answered until the server ends the connection."""
    async with line(address) as (reader, writer), asyncio.timeout(within):
        writer.write(request)
        return await reader.read()


def status_of(answer: bytes) -> int:
    """0 where there is none."""
    return int(answer.split()[1]) if answer else 0
