"""HTTP requests and responses of the sandbox."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from sandbox.errors import StripeError

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]

LARGEST = 1024 * 1024  # maximum bytes of a body
WITHIN = 20  # seconds until the body must have arrived


class Request(NamedTuple):
    """A request with its complete body."""

    id: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: str

    @property
    def key(self) -> str:
        return self.headers.get("idempotency-key", "") if self.method == "POST" else ""

    @property
    def encoded(self) -> str:
        """The encoded parameters: query string or body."""
        return self.body if self.method == "POST" else self.query

    @property
    def values(self) -> dict[str, str]:
        """Parameters of query string and body, without nesting."""
        return dict(parse_qsl(f"{self.query}&{self.body}", keep_blank_values=True))


class Received(msgspec.Struct, kw_only=True, rename="camel"):
    """Record of a request, for tests."""

    id: str
    method: str
    path: str
    params: dict[str, Any]
    idempotency_key: str
    status: int = 0  # 0: no response (yet)
    replayed: bool = False


class Answer(NamedTuple):
    """A response."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class HangUp(Exception):
    """Close the connection without a response."""


async def read(request_id: str, scope: Message, receive: Receive) -> Request:
    """Read a request. Raises HangUp if the body is incomplete, StripeError (413) if it is too large."""
    body, more = b"", True
    try:
        async with asyncio.timeout(WITHIN):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HangUp
                body, more = body + message.get("body", b""), message.get("more_body", False)
                if len(body) > LARGEST:
                    raise StripeError(413, f"The request has more than {LARGEST} bytes.", remembered=False)
    except TimeoutError:
        raise HangUp from None
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    return Request(request_id, scope["method"], scope["path"], query, headers, body.decode(errors="replace"))


def encode(body: Any) -> bytes:
    """JSON, indented like Stripe's responses."""
    return json.dumps(body, indent=2).encode()


def refusal(error: StripeError) -> Answer:
    return Answer(error.status, encode(error.body()))
