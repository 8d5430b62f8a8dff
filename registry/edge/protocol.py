"""uvicorn's HTTP/1.1 protocol with limits of size and time for a request's head, and with answers before the body's end.

uvicorn has neither limit, and its parser joins the pieces of a header value again and again: one value of 40 MB stops the
whole process for seconds. This module does not need Django.
"""

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11

from registry.edge.heads import FIELDS, LIMIT
from registry.errors import HeadTooLarge, InvalidRequest, Problem

HEAD_TIMEOUT = 10.0  # seconds for a head to arrive; uvicorn waits for ever. The handler limits the body
CHUNK_FRAME = 20  # bytes around each chunk of a body that are not extensions: its size (16 digits) and two line ends
PIECE = 4 * 1024  # bytes that are parsed before the limits are looked at again
DROP_BYTES = 128 * 1024 * 1024  # of a body that was answered before it had arrived; read, so that the answer is read
DROP_TIME = 30.0  # seconds for that

# The websockets library parses a handshake a second time, with other limits of its own.
http11.MAX_NUM_HEADERS, http11.MAX_LINE_LENGTH = FIELDS, LIMIT

TOO_LARGE = f"the head of a request has at most {LIMIT} bytes and {FIELDS} fields, its trailers as many"


class _TooLarge(Exception):
    """The head or the trailers exceed the limits. Stops the parser."""


class EarlyAnswer(RequestResponseCycle):
    """An answer given before the whole request has arrived ends the connection: what follows may be its body, or not."""

    async def send(self, message: Any) -> None:
        if self.more_body and message["type"] == "http.response.start":
            self.keep_alive = False
        await super().send(message)


class _Line:
    """The transport as the response cycle sees it: the protocol decides when it is closed."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. Arriving bytes are parsed once, in pieces, and nothing grows beyond its limit."""

    timer: asyncio.TimerHandle | None = None  # limits the time of the head, or of dropping
    in_head = False
    in_message = False
    declined = False  # the current head asks for a protocol that we do not speak
    upgraded = False  # the connection is a websocket
    dropping = False  # the answer is sent; bytes that still arrive are read and discarded
    dropped = 0  # bytes
    # Of the current head, or of the body and the trailers that follow it:
    framing = 0  # bytes that are no content, counted by piece: at most one piece too many
    size = 0  # bytes of complete fields
    fields = 0
    # Of the current piece:
    content = 0  # bytes
    chunks = 0
    parts: list[bytes]  # of a body, not handed on yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parts = []
        self.line = _Line(transport, self.hang_up)
        self.limit_time(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.dropping:
            self.transport.close()
        else:
            super().shutdown()

    # -- Reading -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.dropping:
            self.drop(len(data))
            return
        if len(data) <= PIECE:
            self.read(data)
        else:
            view = memoryview(data)
            for start in range(0, len(data), PIECE):
                if self.dropping or self.upgraded or self.transport.is_closing():
                    return
                self.read(view[start : start + PIECE])
        if self.dropping or self.upgraded:
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.in_head or not (self.in_message or answering):  # the latter: line ends before a request
            if self.timer is None:
                self.limit_time(HEAD_TIMEOUT)
        else:
            self.stop_timer()

    def read(self, piece: bytes | memoryview) -> None:
        self._unset_keepalive_if_required()
        self.content = self.chunks = 0
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self.declined:
                self.read_without_upgrade(piece[upgrade.args[0] :])
            else:
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError:
            too_large = self.size > LIMIT or self.fields > FIELDS
            self.refuse(HeadTooLarge(TOO_LARGE) if too_large else InvalidRequest("this is not HTTP/1.1 (RFC 9112)"))
            return
        self.hand_on()
        self.framing = max(0, self.framing + len(piece) - self.content - CHUNK_FRAME * self.chunks)
        if self.framing > LIMIT:
            self.refuse(HeadTooLarge(TOO_LARGE))

    def read_without_upgrade(self, rest: bytes | memoryview) -> None:
        """Parse the request as if it had no Upgrade header. Java's client offers h2c with its first request."""
        self.declined = False
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += name, b": ", value, b"\r\n"
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it, for pipelined requests
        self.read(b"".join([*head, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        self.in_message = self.in_head = True
        self.framing = self.size = self.fields = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self.size += len(url)
        if self.size > LIMIT:
            raise _TooLarge
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields += 1
        self.size += len(name) + len(value) + 4
        if self.size > LIMIT or self.fields > FIELDS:
            raise _TooLarge
        if self.in_head:  # a trailer must not add headers to a request that was checked without them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.framing = self.size = self.fields = 0
        if not self.url.startswith(b"/") and b"://" in self.url:
            self.read_absolute_target()
        if self.parser.should_upgrade() and not self._should_upgrade():
            self.scope["method"] = self.parser.get_method().decode()
            self.declined = self.scope["method"] != "CONNECT"
        if not self.declined:
            super().on_headers_complete()  # it cannot parse the target of a CONNECT

    def read_absolute_target(self) -> None:
        """`GET http://host/path`: the target's host counts, whatever `Host` says (RFC 9112 section 3.2.2)."""
        target = httptools.parse_url(self.url)
        host = b"[%b]" % target.host if b":" in target.host else target.host
        authority = b"%b:%d" % (host, target.port) if target.port else host
        self.headers[:] = [(n, authority if n == b"host" else v) for n, v in self.headers]
        self.url = (target.path or b"/") + (b"?" + target.query if target.query else b"")

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_body(self, body: bytes) -> None:
        self.content += len(body)
        self.parts.append(body)

    def hand_on(self) -> None:
        """Pass the body's bytes of a piece to the application together: uvicorn joins each part to all that waits there."""
        if self.parts:
            body = b"".join(self.parts)
            self.parts.clear()
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.declined:
            self.hand_on()
            self.in_message = False
            self.framing = 0
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self.upgraded = True
        self.stop_timer()
        super().handle_websocket_upgrade()

    # -- Answering ---------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = EarlyAnswer
        cycle.transport = self.line  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if not self.dropping:
            super().on_response_complete()

    def refuse(self, problem: Problem) -> None:
        """Answer this request and close the connection; while another answer is being sent, close it without an answer."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.in_head or self.pipeline or cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True  # the application must not wait for the rest of the body
            cycle.message_event.set()
        self.transport.write(refusal(problem))
        self.start_dropping()

    def hang_up(self) -> None:
        """Close the connection, after a client that is still sending has had time to read the answer."""
        if self.in_message and not self.transport.is_closing():
            self.start_dropping()
        else:
            self.transport.close()

    def start_dropping(self) -> None:
        """Send EOF and go on reading: closing a connection with unread bytes resets it, and the client loses the answer."""
        if self.dropping or self.transport.is_closing():
            return
        self.dropping = True
        self._unset_keepalive_if_required()
        self.limit_time(DROP_TIME)
        self.flow.resume_reading()
        self.transport.write_eof()

    def drop(self, size: int) -> None:
        self.dropped += size
        if self.dropped > DROP_BYTES:
            self.transport.abort()

    # -- Time --------------------------------------------------------------------------------------------------

    def limit_time(self, seconds: float) -> None:
        self.stop_timer()
        self.timer = self.loop.call_later(seconds, self.transport.abort if self.dropping else self.transport.close)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket protocol, which answers every handshake that it refuses, and logs none of them as an error."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # it was answered over HTTP; uvicorn would report a missing answer

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The library could not parse the handshake; uvicorn would leave the client waiting.
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.handshake_complete = self.close_sent = True
            self.transport.write(b"".join(self.conn.data_to_send()) or refusal(InvalidRequest("this is no handshake")))
            self.transport.close()


def refusal(problem: Problem) -> bytes:
    """A complete response (RFC 9457) for a request that does not reach the application."""
    body = json.dumps(
        {"type": problem.type, "title": problem.title, "status": problem.status, "detail": problem.detail}
    ).encode()
    head = (
        b"content-type: application/problem+json\r\nconnection: close\r\nx-request-id: %016x\r\ncontent-length: %d\r\n\r\n"
        % (random.getrandbits(64), len(body))
    )
    return STATUS_LINE[problem.status] + head + body
