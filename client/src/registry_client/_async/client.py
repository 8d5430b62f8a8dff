"""The client: one connection pool for payments, jobs, schedules and queues."""

import ssl
from types import TracebackType
from typing import Self

import httpx2

from registry_client._async.http import AsyncHttp
from registry_client._async.jobs import AsyncJobs
from registry_client._async.payments import AsyncPayments
from registry_client._async.queue import AsyncQueue
from registry_client._async.schedules import AsyncSchedules
from registry_client._async.sockets import AsyncOpener, AsyncSockets
from registry_client._calls import CONNECTIONS, REQUEST_TIMEOUT, Options
from registry_client._retry import DEFAULT_RETRY, RECONNECT, Retry


class AsyncClient:
    """A client of one Registry service with one API key. Close it, or use it as a context manager.

    `timeout`: seconds that a response may be silent. `retry`: time budget and pauses of a request's tries. `reconnect`: the same
    for a lost websocket. `tls`: for a service with a certificate of your own authority.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        reconnect: Retry = RECONNECT,
        connections: int = CONNECTIONS,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        opener: AsyncOpener | None = None,
    ) -> None:
        options = Options(
            url=url, key=key, timeout=timeout, retry=retry, reconnect=reconnect, connections=connections, tls=tls
        )
        self._http = AsyncHttp(options, transport)
        sockets = AsyncSockets(options, opener)
        self.payments = AsyncPayments(self._http, sockets)
        self.jobs = AsyncJobs(self._http, sockets)
        self.schedules = AsyncSchedules(self._http)
        self.queue = AsyncQueue(self._http)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()
