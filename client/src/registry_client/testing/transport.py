"""The transport of the test double: httpx2 passes requests to it instead of the network."""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx2

from registry_client.testing.changes import Changes
from registry_client.testing.wire import Answer, Asked

if TYPE_CHECKING:
    from registry_client.testing.service import FakeRegistry


def wait_of(asked: Asked) -> float:
    """Seconds that a request asks the service to wait: of a long poll, in seconds, or of a pop, in milliseconds."""
    if asked.path.endswith("/events"):
        return float(asked.number("wait", 20))
    return asked.number("timeout", 30_000) / 1000 if asked.query.get("wait") == "true" else 0.0


class FakeTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Requests to the double, of both halves of the client."""

    def __init__(self, service: "FakeRegistry", changes: Changes) -> None:
        self._service, self._changes = service, changes

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        asked, deadline = self._begin(request)
        while True:
            changed = self._changes.thread_waiter()
            left = deadline - time.monotonic()
            if response := self._answer(request, asked, left <= 0):
                return response
            changed.wait(left)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        asked, deadline = self._begin(request)
        while True:
            changed = self._changes.loop_waiter()
            left = deadline - time.monotonic()
            if response := self._answer(request, asked, left <= 0):
                return response
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()

    def _begin(self, request: httpx2.Request) -> tuple[Asked, float]:
        """The request, and when a long poll has to answer."""
        asked = Asked(request, request.url.path)
        return asked, time.monotonic() + wait_of(asked)

    def _answer(self, request: httpx2.Request, asked: Asked, last: bool) -> Answer:
        """The response; None where nothing happened yet and it is not the `last` time to ask."""
        with self._changes.lock:
            return self._service.answer(request, asked, last=last)
