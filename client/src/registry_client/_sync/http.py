"""Requests over HTTP: tries, pauses between them, and errors in place of error responses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from registry_client._calls import Call, Options, failure
from registry_client._io.blocking import sleep
from registry_client._responses import decode, error_of
from registry_client._retry import Tries
from registry_client.errors import RegistryError


class Http:
    """The HTTP side of a client."""

    def __init__(self, options: Options, transport: httpx2.BaseTransport | None = None) -> None:
        self.options = options
        self._client = httpx2.Client(transport=transport, **options.http())

    def close(self) -> None:
        self._client.close()

    def get_as[T](self, kind: type[T], call: Call) -> T:
        """The JSON body of the response. Raises RegistryError."""
        return decode(self.request(call), kind)

    def request(self, call: Call) -> httpx2.Response:
        """A successful response, read to its end. Raises RegistryError."""
        return self._tried(call, self._read)

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx2.Response]:
        """A successful response whose body is read by the caller. Tried again only before the body begins."""
        response = self._tried(call, self._begin)
        try:
            yield response
        except httpx2.TransportError as error:
            raise failure(error) from error
        finally:
            response.close()

    def _tried(self, call: Call, send: Callable[[Call], httpx2.Response]) -> httpx2.Response:
        tries = Tries(call.retry or self.options.retry, call.safety)
        while True:
            try:
                return send(call)
            except RegistryError as error:
                pause = tries.pause_after(error)
                if pause is None:
                    raise
            sleep(pause)

    def _read(self, call: Call) -> httpx2.Response:
        try:
            response = self._client.request(**self._arguments(call))
        except httpx2.TransportError as error:
            raise failure(error) from error
        if (problem := error_of(response)) is not None:
            raise problem
        return response

    def _begin(self, call: Call) -> httpx2.Response:
        try:
            response = self._client.send(self._client.build_request(**self._arguments(call)), stream=True)
            if not response.is_success:
                response.read()
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
