"""One HTTP/1.1 connection: one write per request, then its answer. The pool is in client.py."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import httptools

LARGEST_WIRE = 1024 * 1024  # bytes of one answer on the wire, including head, framing and interim answers (1xx)


class HttpError(Exception):
    """The request has no complete answer."""


class NotSent(HttpError):
    """No byte of the request was sent: the server never saw it."""


class AnswerTimeout(HttpError, TimeoutError):
    """The complete answer did not arrive in time."""


class Disconnected(HttpError):
    """The connection ended before the answer did."""


class BadAnswer(HttpError):
    """The answer is not valid HTTP/1."""


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]  # names in lower case; of several with one name the last
    body: bytes  # at most the size that the caller allowed; not decompressed

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")


class Connection(asyncio.Protocol):
    """Takes one request at a time. Calls `free` when it can take the next one, `ended` when it never will."""

    def __init__(
        self, *, largest_body: int, free: Callable[["Connection"], None], ended: Callable[["Connection"], None]
    ) -> None:
        self.closed = False
        self.answers = 0  # answers read completely
        self.idle_since = 0.0  # loop time; set by the pool
        self.heard = False  # whether any byte arrived since the last request
        self._largest_body = largest_body
        self._free, self._ended = free, ended
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._asked: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return not self.closed and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, deadline: float, *, no_body: bool = False) -> Answer:
        """Send `request` and read its answer until `deadline` of the loop's clock. The caller must hold it exclusively.

        `no_body`: the answer ends with its head, whatever length that names (HEAD). Such a connection is not used again.
        """
        asked = self._asked = self._loop.create_future()
        self._answer: Answer | None = None
        self._reusable, self.heard, self._wire, self._no_body = not no_body, False, 0, no_body
        self._begin()
        self._timer = self._loop.call_at(deadline, self._fail, AnswerTimeout("no whole answer in time"))
        try:
            self._transport.write(request)  # type: ignore[union-attr]
            return await asked
        finally:
            if self._asked is asked:  # cancelled: the rest of this answer must not reach the next request
                self.close()

    def close(self) -> None:
        """Close at once, whatever is under way."""
        if not self.closed:
            self.closed = True
            self._fail(Disconnected("closed by ourselves"))
            if self._transport is not None:
                self._transport.abort()
            self._parser = None  # it refers back to us
            self._ended(self)

    def _fail(self, error: HttpError) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            self._stop_timer()
            if not asked.done():
                asked.set_exception(error)
            self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- Calls of the transport -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if self.closed:
            transport.abort()  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._asked is None:
            self.close()  # unrequested bytes must not answer the next request
            return
        self.heard = True
        self._wire += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reusable = False
            if self._answer is None:
                self._fail(BadAnswer(str(error)))
                return
        if self._answer is not None:
            self._finish()
        elif self._size > self._largest_body:
            self._cut()
        elif self._wire > LARGEST_WIRE:
            self._fail(BadAnswer(f"more than {LARGEST_WIRE} bytes and no end"))

    def eof_received(self) -> bool:
        if self._asked is not None and self._until_close:
            self._cut()
        self._lost("the server closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(repr(exc) if exc else "the server closed the connection")

    def _lost(self, why: str) -> None:
        self._fail(Disconnected(why))
        self.close()

    def _cut(self) -> None:
        """Complete the answer with what was read."""
        self._reusable = False
        self._complete()
        self._finish()

    def _finish(self) -> None:
        asked, answer, self._asked, self._answer = self._asked, self._answer, None, None
        self._stop_timer()
        if self._reusable and self.usable:
            self.answers += 1
            self._free(self)
        else:
            self.close()
        if asked is not None and answer is not None and not asked.done():
            asked.set_result(answer)

    # -- Calls of the parser ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._until_close = False

    def on_message_begin(self) -> None:
        if self._answer is not None:
            self._reusable = False  # a second answer to one request
        self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # else it is a trailer
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status < 100 or self._parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("not HTTP/1")
        if not self._parser.should_keep_alive():
            self._reusable = False
        coding = self._headers.get(b"transfer-encoding")
        framed = b"content-length" in self._headers if coding is None else coding.lower().endswith(b"chunked")
        self._until_close = status >= 200 and status not in (204, 304) and not framed
        if self._no_body and status >= 200:
            self._complete()

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)

    def on_message_complete(self) -> None:
        if self._status >= 200 and self._answer is None:  # 1xx only announce the answer
            self._reusable = self._reusable and self._size <= self._largest_body
            self._complete()

    def _complete(self) -> None:
        self._answer = Answer(self._status, self._headers, b"".join(self._pieces)[: self._largest_body])
