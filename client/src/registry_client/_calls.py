"""One request as a value, and the limits of a client."""

import ssl
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import msgspec

from registry_client._io.sockets import USER_AGENT
from registry_client._responses import encode
from registry_client._retry import DEFAULT_RETRY, RECONNECT, Retry, Safety
from registry_client.errors import ConnectionFailed, NotConnected, RequestTimeout

CONNECT_TIMEOUT = 5.0  # seconds to open a connection
REQUEST_TIMEOUT = 15.0  # seconds that a response may be silent, beyond what the request asks the service to wait
KEEP_ALIVE = 30.0  # seconds that an idle connection is kept; shorter than the service or a proxy keeps it
CONNECTIONS = 100  # at once
LONGEST_POLL = 20.0  # seconds that one long poll may wait

type Params = Mapping[str, Any]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a client; times are seconds. Raises ValueError for those with which every request would fail."""

    url: str
    key: str | None = None
    timeout: float = REQUEST_TIMEOUT
    connections: int = CONNECTIONS
    retry: Retry = DEFAULT_RETRY
    reconnect: Retry = RECONNECT
    tls: Any = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no address of a service: it begins with http:// or https://")
        if self.key is not None and not (self.key and self.key.isascii() and self.key.isprintable()):
            raise ValueError("an API key has printable ASCII characters only; has it a line break at its end?")

    def http(self) -> dict[str, Any]:
        """The arguments of the HTTP client."""
        key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        context: ssl.SSLContext | bool = True if self.tls is None else self.tls
        return {
            "base_url": self.url,
            "headers": {"User-Agent": USER_AGENT, **key},
            "timeout": self.timeout_for(0),
            "limits": httpx2.Limits(max_connections=self.connections, keepalive_expiry=KEEP_ALIVE),
            "verify": context,
        }

    def timeout_for(self, wait: float) -> httpx2.Timeout:
        """The limits of a request that asks the service to wait for `wait` seconds."""
        return httpx2.Timeout(self.timeout, connect=min(CONNECT_TIMEOUT, self.timeout), read=self.timeout + wait)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request; all its tries send the same."""

    method: str
    path: str
    params: dict[str, str] = {}
    body: bytes | None = None
    headers: dict[str, str] = {}
    safety: Safety = Safety.REPEATABLE
    wait: float = 0.0  # seconds that the service was asked to wait
    retry: Retry | None = None  # in place of the client's


def get(path: str, params: Params | None = None, **more: Any) -> Call:
    return Call(method="GET", path=path, params=texts(params or {}), headers=named(), **more)


def post(path: str, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any) -> Call:
    return sending("POST", path, body, headers, **more)


def sending(method: str, path: str, body: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Call:
    """A request with a JSON body."""
    head = {"Content-Type": "application/json", **(headers or {})}
    return Call(method=method, path=path, body=encode({} if body is None else body), headers=named(head), **more)


def named(headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """The headers with a request id, by which the service's log names the request."""
    return {"X-Request-Id": uuid4().hex, **(headers or {})}


def texts(params: Params) -> dict[str, str]:
    """Query parameters as the service reads them; those that are None are left out."""
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.isoformat()
    return str(value.value if isinstance(value, Enum) else value)


def failure(error: httpx2.TransportError) -> ConnectionFailed:
    """The error of a request without a response."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)):
        return NotConnected(text)
    return RequestTimeout(text) if isinstance(error, httpx2.TimeoutException) else ConnectionFailed(text)
