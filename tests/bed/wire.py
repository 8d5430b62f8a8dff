"""Just enough HTTP/1.1 to be a fast server: keep-alive, one request at a time, bodies by Content-Length."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qsl

REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error"}  # fmt: skip
LARGEST = 1024 * 1024  # bytes of a request; ours are small, anything above is a fault of the caller


class Request(NamedTuple):
    method: str
    target: str
    head: bytes  # as it came, request line included
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))

    def header(self, name: str) -> str:
        return find_header(self.head, name.lower().encode()).decode("latin-1")


def find_header(head: bytes, name: bytes) -> bytes:
    """The value of a header, its name in lower case; empty if there is none."""
    lower = head.lower()
    start = lower.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an answer; `retry_after="5"` becomes the header Retry-After."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    ).encode() + body


class Silence:
    """In place of an answer: the connection stays open and nothing is ever said."""


class Reset:
    """In place of an answer: the connection is cut with RST."""


type Answer = bytes | Silence | Reset
type Handler = Callable[[Request], Answer | Awaitable[Answer]]


class Connection(asyncio.Protocol):
    """One client. A handler that answers at once costs no task; one that waits runs on after the client hung up."""

    def __init__(self, handler: Handler, connections: set["Connection"]) -> None:
        self.handler = handler
        self.connections = connections
        self.transport: asyncio.Transport
        self.unread = b""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.unread = self.unread + data if self.unread else data
        self.work()

    def work(self) -> None:
        while self.unread and not self.busy and (request := self.next_request()):
            answer = self.handler(request)
            if isinstance(answer, (bytes, Silence, Reset)):
                self.give(answer)
            else:
                self.busy = True
                asyncio.ensure_future(answer).add_done_callback(self.answered)

    def next_request(self) -> Request | None:
        """Take one whole request off what was read, if there is one."""
        end = self.unread.find(b"\r\n\r\n")
        if end < 0 or len(self.unread) > LARGEST:
            return self.refuse() if len(self.unread) > LARGEST else None
        head = self.unread[:end]
        try:
            method, target, _ = head[: head.find(b"\r\n")].decode("latin-1").split(" ")
            length = 0 if method == "GET" else int(find_header(head, b"content-length") or 0)
        except ValueError:
            return self.refuse()
        total = end + 4 + length
        if len(self.unread) < total:
            return None
        body, self.unread = self.unread[end + 4 : total], self.unread[total:]
        return Request(method, target, head, body)

    def refuse(self) -> None:
        self.unread = b""
        self.transport.write(response(400, connection="close"))
        self.transport.close()

    def answered(self, task: asyncio.Future[Answer]) -> None:
        if task.cancelled():
            return
        self.busy = False
        self.give(task.result() if task.exception() is None else response(500, repr(task.exception()).encode()))
        self.work()

    def give(self, answer: Answer) -> None:
        if isinstance(answer, Silence):
            self.busy = True
        elif isinstance(answer, Reset):
            self.busy = True
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(answer)


class Server:
    """Listens on one address for as long as the block runs; then cuts every connection."""

    def __init__(self, handler: Handler, port: int = 0, host: str = "127.0.0.1") -> None:
        self.handler = handler
        self.host, self.port = host, port
        self.connections: set[Connection] = set()

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_server(
            lambda: Connection(self.handler, self.connections), self.host, self.port, backlog=1024
        )
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        self.cut_connections()
        await asyncio.sleep(0)

    def cut_connections(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()
