"""The client: one connection pool for payments, jobs, schedules and queues."""

import ssl
from types import TracebackType
from typing import Self

import httpx2

from registry_client._calls import CONNECTIONS, REQUEST_TIMEOUT, Options
from registry_client._retry import DEFAULT_RETRY, RECONNECT, Retry
from registry_client._sync.http import Http
from registry_client._sync.jobs import Jobs
from registry_client._sync.payments import Payments
from registry_client._sync.queue import Queue
from registry_client._sync.schedules import Schedules
from registry_client._sync.sockets import Opener, Sockets


class Client:
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
        transport: httpx2.BaseTransport | None = None,
        opener: Opener | None = None,
    ) -> None:
        options = Options(
            url=url, key=key, timeout=timeout, retry=retry, reconnect=reconnect, connections=connections, tls=tls
        )
        self._http = Http(options, transport)
        sockets = Sockets(options, opener)
        self.payments = Payments(self._http, sockets)
        self.jobs = Jobs(self._http, sockets)
        self.schedules = Schedules(self._http)
        self.queue = Queue(self._http)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()
