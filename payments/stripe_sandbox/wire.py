"""Requests and answers between the server and the sandbox."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from payments.stripe_sandbox.errors import StripeError
from payments.stripe_sandbox.state import new_id

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]

LARGEST = 1024 * 1024  # bytes of a body


class Request(NamedTuple):
    """A request, read whole."""

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
        """Where its parameters are."""
        return self.body if self.method == "POST" else self.query

    @property
    def values(self) -> dict[str, str]:
        """Its parameters without their nesting, the address's and the body's."""
        return dict(parse_qsl(f"{self.query}&{self.body}", keep_blank_values=True))


class Received(msgspec.Struct, kw_only=True, rename="camel"):
    """A request as a test wants to see it."""

    id: str
    method: str
    path: str
    params: dict[str, Any]
    idempotency_key: str
    status: int = 0  # 0: not answered (yet)
    replayed: bool = False


class Answer(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class HangUp(Exception):
    """The connection ends without an answer."""


async def read(scope: Message, receive: Receive) -> Request:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > LARGEST:
            break
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    return Request(new_id("req", 14), scope["method"], scope["path"], query, headers, body.decode(errors="replace"))


def encode(body: Any) -> bytes:
    """Indented, as Stripe's answers are."""
    return json.dumps(body, indent=2).encode()


def refusal(error: StripeError) -> Answer:
    return Answer(error.status, encode(error.body()))
