"""A lean HTTP/1.1 client of one endpoint: persistent connections, one time limit per request. The content of requests is the caller's.

It has no redirects, cookies, proxies or decompression, on purpose. It reports exactly whether a request can
have arrived: NotSent is certain, every other error is not.
"""

import asyncio
import ipaddress
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import NamedTuple, Self
from urllib.parse import quote, urlsplit

from registry.http.connection import Answer, AnswerTimeout, BadAnswer, Connection, Disconnected, HttpError, NotSent
from registry.telemetry import traces

__all__ = [
    "Address", "Answer", "AnswerTimeout", "BadAddress", "BadAnswer", "Client", "ConnectTimeout", "Disconnected",
    "HttpError", "NotConnected", "NotSent",
]  # fmt: skip

CONNECT_TIMEOUT = 2.0  # seconds for all addresses of a name together, TLS included
NAMES_KEPT = 60.0  # seconds that a name's addresses are used before it is looked up again
REPEATABLE = frozenset({"GET", "HEAD"})

_TARGET = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9._~-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")
_METHOD = re.compile(r"GET|HEAD|POST|PUT|PATCH|DELETE")


class NotConnected(NotSent):
    """No connection could be made."""


class ConnectTimeout(NotSent):
    """No connection was free, and none could be made, in time."""


class BadAddress(NotSent, ValueError):
    """The URL is not the address of an HTTP server."""


class Address(NamedTuple):
    """An endpoint's scheme, host, port and path, parsed from its URL."""

    tls: bool
    host: str
    port: int
    authority: str  # for the Host header
    path: str  # what every request's path begins with; "" for none

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL. Raises BadAddress, whose message never repeats the URL: it may contain a password."""
        if any(c.isspace() or not c.isprintable() for c in url):  # before urlsplit, which drops some of them
            raise BadAddress("an address has no spaces and no control characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise BadAddress(f"not an address: {error}") from None
        if parts.scheme not in ("http", "https"):
            raise BadAddress("an address begins with http:// or https://")
        if "@" in parts.netloc:
            raise BadAddress("a user or password has no place in an address")
        if "?" in url or "#" in url:
            raise BadAddress("an address has neither ? nor #")
        tls = parts.scheme == "https"
        number = port if port is not None else (443 if tls else 80)
        name = _ascii(host)
        shown = f"[{name.partition('%')[0]}]" if ":" in name else name
        if not 0 < number < 65536:
            raise BadAddress(f"there is no port {number}")
        authority = shown if number == (443 if tls else 80) else f"{shown}:{number}"
        return cls(tls, name, number, authority, quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._"))


def _ascii(host: str) -> str:
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise BadAddress(f"not the name of a host: {host[:100]!r}")
    return name


@cache
def _verified() -> ssl.SSLContext:
    """TLS settings that verify certificates and host names. Created once: reading the authorities takes milliseconds."""
    return ssl.create_default_context()


class Client:
    """A client of the endpoint at `url`, for one event loop: `connections` at most, closed after `keep_alive` idle seconds.

    Connections are made to the very addresses that `resolve` gives for host and port, be the host a name or a number; what
    it raises (OSError, ValueError) comes out as NotSent. Without it the machine's resolver is asked.

    Raises BadAddress. Leaving the block, or `close`, closes everything; what is under way then fails.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 100,
        keep_alive: float = 75.0,
        largest_body: int = 64 * 1024,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        resolve: Callable[[str, int], Awaitable[list[str]]] | None = None,
    ) -> None:
        self._address = Address.parse(url)
        self._resolve = resolve
        self._tls = (tls or _verified()) if self._address.tls else None
        self._keep_alive, self._largest_body = keep_alive, largest_body
        self._loop = asyncio.get_running_loop()
        self._head = _head(self._address, headers or {})
        self._slots = connections  # free slots: neither open connections nor connections being made use them
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # the last one used is the next one used, so that the others may expire
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[list[str]] | None = None
        self._looked_up_at = 0.0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(NotConnected("the client is closed"))
        for connection in list(self._open):
            connection.close()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        await asyncio.sleep(0)  # sockets close in the loop's next turn

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    async def request(
        self, method: str, path: str, body: bytes = b"", *, limit: float, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer, of whatever status, within `limit` seconds for everything, waiting for a connection included.

        Raises NotSent when certainly nothing was sent; AnswerTimeout, Disconnected, BadAnswer when it may have arrived.
        """
        if (sent := traces.Outgoing.current()) is None:
            return await self._ask(method, path, body, limit, headers)
        with sent.to(method, self._address.host, self._address.port):
            answer = await self._ask(method, path, body, limit, {**(headers or {}), **sent.headers})
            sent.status = answer.status
            return answer

    async def _ask(
        self, method: str, path: str, body: bytes, limit: float, headers: Mapping[str, str] | None
    ) -> Answer:
        message, no_body = self._message(method, path, body, _lines(headers) if headers else ""), method == "HEAD"
        deadline = self._loop.time() + limit
        connection = self._pooled() or await self._obtain(deadline)
        try:
            return await connection.ask(message, deadline, no_body=no_body)
        except Disconnected:
            # A server that closes an idle connection crosses our next request: harmless to repeat, if it may be repeated.
            if method not in REPEATABLE or connection.heard or not connection.answers or self._closed:
                raise
        connection = await self._obtain(deadline, fresh=True)
        return await connection.ask(message, deadline, no_body=no_body)

    def _message(self, method: str, path: str, body: bytes, more: str) -> bytes:
        target = self._address.path + path
        if not _TARGET.fullmatch(target) or not _METHOD.fullmatch(method):
            raise BadAddress("not a path or not a method")
        length = f"Content-Length: {len(body)}\r\n" if body or method not in REPEATABLE else ""
        return f"{method} {target} HTTP/1.1\r\n{self._head}{more}{length}\r\n".encode("latin-1") + body

    # -- The pool ----------------------------------------------------------------------------------------------

    def _pooled(self) -> Connection | None:
        """An idle open connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._loop.time() - connection.idle_since < self._keep_alive:
                return connection
            connection.close()
        return None

    async def _obtain(self, deadline: float, *, fresh: bool = False) -> Connection:
        """A usable connection: a new one, or the next one given back. Raises NotSent."""
        try:
            async with asyncio.timeout_at(deadline):
                while not self._closed:
                    given = await self._slot()
                    if given in self._open and fresh:
                        self._open.discard(given)  # we keep its slot
                        given.close()
                        given = None
                    if given is None:
                        given = await self._connect()
                    if given.usable:
                        return given
        except TimeoutError as error:
            raise ConnectTimeout("no connection in time") from error
        except (OSError, ValueError) as error:
            raise NotConnected(str(error) or repr(error)) from error
        raise NotConnected("the client is closed")

    async def _slot(self) -> Connection | None:
        """Wait for a connection that is given back; None is a free slot, that is the right to make one."""
        if self._slots:
            self._slots -= 1
            return None
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_on(waiter.result())  # a connection arrived at the same moment
            raise

    def _hand_on(self, connection: Connection | None) -> None:
        """Give a connection, or a slot, to the longest waiting request, or keep it."""
        if connection is not None and not connection.usable:
            connection.close()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if connection is None:
            self._slots += 1
        else:
            self._keep(connection)

    def _keep(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._keep_alive, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        expired = self._loop.time() - self._keep_alive
        for connection in [c for c in self._idle if c.idle_since <= expired]:
            connection.close()
        if self._idle:
            self._expiry = self._loop.call_at(self._idle[0].idle_since + self._keep_alive, self._expire)

    def _ended(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            with suppress(ValueError):
                self._idle.remove(connection)
            if not self._closed:
                self._hand_on(None)

    # -- Connecting --------------------------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """Make a connection on a slot that we hold; on failure the slot is given back."""
        try:
            connection = await self._reach()
        except BaseException:
            self._hand_on(None)
            raise
        self._open.add(connection)
        if self._closed:
            connection.close()
        return connection

    async def _reach(self) -> Connection:
        addresses = await self._addresses()
        failure: Exception = OSError("the name has no address")
        for address in list(addresses):
            connection = Connection(largest_body=self._largest_body, free=self._hand_on, ended=self._ended)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT / len(addresses)):
                    await self._loop.create_connection(
                        lambda taken=connection: taken,  # type: ignore[misc]
                        address,
                        self._address.port,
                        ssl=self._tls,
                        server_hostname=self._address.host if self._tls else None,
                    )
                if connection.usable:
                    addresses.remove(address)
                    addresses.insert(0, address)  # the address that works is tried first from now on
                    return connection
                failure = ConnectionResetError("closed as soon as it was open")
            except OSError as error:
                failure = error
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise failure

    async def _addresses(self) -> list[str]:
        """The host's IP addresses; concurrent callers share one look-up."""
        if self._resolve is None:
            with suppress(ValueError):
                ipaddress.ip_address(self._address.host)
                return [self._address.host]
        task, now = self._lookup, self._loop.time()
        stale = now - self._looked_up_at > NAMES_KEPT
        if task is None or (task.done() and (stale or task.cancelled() or task.exception())):
            self._looked_up_at = now
            task = self._lookup = self._loop.create_task(self._look_up())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # mark the exception as retrieved
        return await asyncio.shield(task)

    async def _look_up(self) -> list[str]:
        if self._resolve is not None:
            return list(await self._resolve(self._address.host, self._address.port))
        found = await self._loop.getaddrinfo(self._address.host, self._address.port, type=1)  # SOCK_STREAM
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _head(address: Address, headers: Mapping[str, str]) -> str:
    """Header lines that are the same in all requests."""
    return _lines({"Host": address.authority, "Accept-Encoding": "identity", **headers})


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"not a header: {name[:50]!r}")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
