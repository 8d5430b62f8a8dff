"""Requests over HTTP: tries, pauses between them, and errors in place of error responses."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from registry_client._calls import Call, Options, failure
from registry_client._io.asynchronous import sleep
from registry_client._responses import decode, error_of
from registry_client._retry import Tries
from registry_client.errors import RegistryError


class AsyncHttp:
    """The HTTP side of a client."""

    def __init__(self, options: Options, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.options = options
        self._client = httpx2.AsyncClient(transport=transport, **options.http())

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get_as[T](self, kind: type[T], call: Call) -> T:
        """The JSON body of the response. Raises RegistryError."""
        return decode(await self.request(call), kind)

    async def request(self, call: Call) -> httpx2.Response:
        """A successful response, read to its end. Raises RegistryError."""
        return await self._tried(call, self._read)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """A successful response whose body is read by the caller. Tried again only before the body begins."""
        response = await self._tried(call, self._begin)
        try:
            yield response
        except httpx2.TransportError as error:
            raise failure(error) from error
        finally:
            await response.aclose()

    async def _tried(self, call: Call, send: Callable[[Call], Awaitable[httpx2.Response]]) -> httpx2.Response:
        tries = Tries(call.retry or self.options.retry, call.safety)
        while True:
            try:
                return await send(call)
            except RegistryError as error:
                pause = tries.pause_after(error)
                if pause is None:
                    raise
            await sleep(pause)

    async def _read(self, call: Call) -> httpx2.Response:
        try:
            response = await self._client.request(**self._arguments(call))
        except httpx2.TransportError as error:
            raise failure(error) from error
        if (problem := error_of(response)) is not None:
            raise problem
        return response

    async def _begin(self, call: Call) -> httpx2.Response:
        try:
            response = await self._client.send(self._client.build_request(**self._arguments(call)), stream=True)
            if not response.is_success:
                await response.aread()
        except httpx2.TransportError as error:
            raise failure(error) from error
        if (problem := error_of(response)) is not None:
            raise problem
        return response

    def _arguments(self, call: Call) -> dict[str, Any]:
        return {
            "method": call.method,
            "url": call.path,
            "params": call.params or None,
            "content": call.body,
            "headers": call.headers,
            "timeout": self.options.timeout_for(call.wait),
        }
