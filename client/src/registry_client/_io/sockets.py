"""What both kinds of websockets share: the limits, the close codes, and how a failure is described."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed

from registry_client._version import __version__
from registry_client.errors import ConnectionFailed

NO_RIGHT, BAD_MESSAGE = 4401, 4400
OPEN_TIMEOUT = 10.0  # seconds for connection and handshake
CLOSE_TIMEOUT = 2.0  # seconds that a service may take to confirm the end
LARGEST_MESSAGE = 1024 * 1024  # bytes
USER_AGENT = f"registry-client/{__version__}"


class SocketRefused(ConnectionFailed):
    """No websocket could be opened: no service there, or a proxy that lets none through."""


class SocketClosed(ConnectionFailed):
    """The service closed the websocket, or the connection broke off."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def closed(error: ConnectionClosed) -> SocketClosed:
    return SocketClosed(error.rcvd.code if error.rcvd else 1006, f"the websocket was closed: {error}")


def socket_url(base: str, path: str) -> str:
    """The address of a websocket: the service's own with ws or wss."""
    parts = urlsplit(base)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def arguments(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> dict[str, Any]:
    """The arguments of `connect` of the websockets library, beside the address."""
    return {
        "additional_headers": headers,
        "user_agent_header": USER_AGENT,
        "open_timeout": OPEN_TIMEOUT,
        "close_timeout": CLOSE_TIMEOUT,
        "max_size": LARGEST_MESSAGE,
        **({"ssl": tls} if tls and url.startswith("wss:") else {}),
    }


def key_headers(key: str | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}
