"""Packet boundaries do not matter: the application sees the same requests and the client the same responses."""

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from registry.edge.protocol import PIECE, BoundedProtocol
from registry.servers import serve

HEAD = b"Host: a\r\n"
REQUESTS = [
    b"GET /one HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"\r\nPOST /two HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\nabcde",
    b"POST /three HTTP/1.1\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"GET http://b:81/four?x HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET /five HTTP/1.1\r\n" + HEAD + b"A: " + b"x" * 9000 + b"\r\n\r\n",
    b"POST /six HTTP/1.1\r\n" + HEAD + b"Content-Length: 9000\r\n\r\n" + b"y" * 9000,
]
UPGRADE = b"POST /seven HTTP/1.1\r\n" + HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nabcde"
LAST = b"GET /last HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n"


class Line:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


async def talk(packets: list[bytes]) -> tuple[list[Any], Line]:
    seen: list[Any] = []

    async def application(scope: dict, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen.append((scope["method"], scope["path"], scope["query_string"], scope["headers"], body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = serve.configuration(application, lifespan="off")
    config.load()
    line, connection = Line(), BoundedProtocol(config=config, server_state=ServerState(), app_state={})
    connection.connection_made(line)  # type: ignore[arg-type]
    for packet in packets:
        connection.data_received(packet)
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return seen, line


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), max_size=4), st.booleans(), st.lists(st.integers(0, 40_000), max_size=8))
def test_requests_are_parsed_the_same_however_they_are_split(requests: list[bytes], upgrade: bool, cuts: list[int]):
    stream = (UPGRADE if upgrade else b"") + b"".join(requests) + LAST
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    packets = [stream[start:end] for start, end in pairwise(places) if start < end]

    alone = [asyncio.run(talk([one]))[0][0] for one in [*([UPGRADE] if upgrade else []), *requests, LAST]]
    seen, line = asyncio.run(talk(packets))

    assert seen == alone
    assert line.written.count(b"HTTP/1.1 204") == len(alone)
    assert line.closed


async def test_chunks_of_one_byte_are_handed_on_piece_by_piece(monkeypatch):
    """Each part is joined to all that waits: one by one, 24 MB of them kept a process for seconds."""
    handed: list[bytes] = []
    monkeypatch.setattr(HttpToolsProtocol, "on_body", lambda _self, body: handed.append(body))
    chunks = b"1\r\nx\r\n" * 3000
    request = b"POST /eight HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    await talk([request, LAST])

    assert b"".join(handed) == b"x" * 3000
    assert len(handed) <= len(request) // PIECE + 1
