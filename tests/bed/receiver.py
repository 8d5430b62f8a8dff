"""A tenant's receiver of webhooks: stores requests, responds as configured, verifies with the library that tenants would use."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook

from tests.bed.wire import Answer, Request, Reset, Server, Silence, response


class Heard(NamedTuple):
    """One call."""

    target: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        return self.message["type"]

    @property
    def data(self) -> dict[str, Any]:
        return self.message["data"]

    def verify(self, secret: str) -> Any:
        """Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """`async with Receiver() as receiver:` then `receiver.url`, `receiver.heard`; well until told otherwise."""

    def __init__(self, *, port: int = 0) -> None:
        self.heard: list[Heard] = []
        self.calls = 0
        self._answer: Callable[[Heard], Any] = lambda _: response(200, b"{}")
        self._server = Server(self._hear, port)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.__aexit__(*error)

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def connections(self) -> int:
        """Number of open ones."""
        return len(self._server.connections)

    @property
    def types(self) -> list[str]:
        return [one.type for one in self.heard]

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.heard]

    # -- What it does ------------------------------------------------------------------------------------------

    def answers(self, status: int = 200, body: bytes = b"{}", **headers: str) -> None:
        self._answer = lambda _: response(status, body, **headers)

    def answers_by(self, choose: Callable[[Heard], Any]) -> None:
        """`choose` gives bytes of an answer, a Silence, a Reset, or something to await that does."""
        self._answer = choose

    def is_silent(self) -> None:
        self._answer = lambda _: Silence()

    def resets(self) -> None:
        self._answer = lambda _: Reset()

    def _hear(self, request: Request) -> Any:
        self.calls += 1
        heard = Heard(request.target, headers_of(request), request.body, request.method)
        self.heard.append(heard)
        return self._answer(heard)


def headers_of(request: Request) -> dict[str, str]:
    lines = request.head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


# -- In a process of its own, for benchmarks ---------------------------------------------------------------------


class _Counting:
    """Counts by path; `/dead…` never answers. `GET /counts` tells."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def answer(self, request: Request) -> Answer:
        if request.method == "GET":
            return response(200, json.dumps(self.counts).encode())
        self.counts[request.target] = self.counts.get(request.target, 0) + 1
        return Silence() if request.target.startswith("/dead") else response(200, b"{}")


async def serve(port: int) -> None:
    async with Server(_Counting().answer, port) as server:
        print(f"ready http://127.0.0.1:{server.port}", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
