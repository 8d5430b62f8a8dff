"""The test double as a whole: its parts, its clients, and faults on demand."""

import httpx2

from registry_client._async.client import AsyncClient
from registry_client._retry import Retry
from registry_client._sync.client import Client
from registry_client.testing.changes import Changes
from registry_client.testing.faults import Faults, broken, raise_status
from registry_client.testing.jobs import FakeJobs
from registry_client.testing.payments import FakePayments
from registry_client.testing.queue import FakeQueue
from registry_client.testing.schedules import FakeSchedules
from registry_client.testing.sockets import FakeSockets
from registry_client.testing.transport import FakeTransport
from registry_client.testing.wire import Answer, Asked, Refused, Routes, problem

URL = "http://registry.test"
KEY = "rk_test_double"
RETRY = Retry(budget=5.0, first=0.001, longest=0.01)  # a test does not wait


class FakeRegistry:
    """One tenant of a service, in memory. Threads and event loops may share it."""

    def __init__(self, *, currency: str = "BRL") -> None:
        self._changes, self._faults, self._routes = Changes(), Faults(), Routes()
        self.requests: list[tuple[str, str]] = []  # method and path of all requests, in order
        self.payments = FakePayments(self._routes, self._changes, currency)
        self.queue = FakeQueue(self._routes, self._changes)
        self.jobs = FakeJobs(self._routes, self._changes)
        self.schedules = FakeSchedules(self._routes, self.jobs)
        self.transport = FakeTransport(self, self._changes)
        self.sockets = FakeSockets(self._changes, {"payment": self.payments.stream, "job": self.jobs.stream})

    def client(self, *, retry: Retry = RETRY, key: str = KEY) -> Client:
        """A blocking client of the double."""
        return Client(URL, key, retry=retry, transport=self.transport, opener=self.sockets.opened)

    def async_client(self, *, retry: Retry = RETRY, key: str = KEY) -> AsyncClient:
        """An asynchronous client of the double."""
        return AsyncClient(URL, key, retry=retry, transport=self.transport, opener=self.sockets.opened_async)

    # -- Faults ----------------------------------------------------------------------------------------------------

    def fails(self, status: int = 503, *, times: int = 1, retry_after: int | None = None) -> None:
        """The next requests are answered with an error, and not executed."""
        self._faults.plan(times, status=status, retry_after=retry_after)

    def disconnects(self, *, times: int = 1, executed: bool = True) -> None:
        """The connections of the next requests break off: after they are executed, or before."""
        self._faults.plan(times, executed=executed)

    # -- Requests --------------------------------------------------------------------------------------------------

    def answer(self, request: httpx2.Request, asked: Asked, *, last: bool) -> Answer:
        """The response to a request; None where it may wait. `last`: it waits no longer."""
        try:
            response = self._executed(request, asked, last)
        except Refused as refused:
            response = problem(refused)
        if response is not None:
            response.headers["X-Request-Id"] = request.headers.get("X-Request-Id", "")
        return response

    def _executed(self, request: httpx2.Request, asked: Asked, last: bool) -> Answer:
        fault = None
        if not request.extensions.get("counted"):
            request.extensions["counted"] = True
            self.requests.append((request.method, asked.path))
            fault = self._faults.next()
        if fault:
            raise_status(fault)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise Refused(401, "unauthorized", "A valid API key is needed.")
        if fault and not fault.executed:
            raise broken(request)
        asked.last = last
        response = self._routes.call(request.method, asked)
        if fault:
            raise broken(request)
        return response
