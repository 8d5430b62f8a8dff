"""HTTP clients of jobs of kind `http`: one per tenant and origin, shared by all its jobs on a loop, and closed with the loop."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from queueing.jobs.decisions import LARGEST_RESULT
from registry.data.loop import PerLoop
from registry.http.client import Client
from registry.http.ssrf import Outside

CONNECTIONS = 100  # of a tenant to one origin: as many as it has jobs of one kind in flight
KEEP_ALIVE = 30.0  # seconds that an idle connection is kept
LARGEST_BODY = LARGEST_RESULT + 1  # bytes that are read of an answer: more than a result may have

type _Key = tuple[int, str]  # tenant, origin


class HttpClients:
    """The clients of one loop. Their connections close when they are idle; a client without any is then forgotten."""

    def __init__(self) -> None:
        self._outside = Outside()
        self._clients: dict[_Key, Client] = {}
        self._users: Counter[_Key] = Counter()
        self._swept_at = time.monotonic()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        self._outside.close()

    @asynccontextmanager
    async def client(self, tenant_id: int, origin: str) -> AsyncIterator[Client]:
        """The client of this origin, which stays open for as long as somebody uses it."""
        if time.monotonic() - self._swept_at > KEEP_ALIVE:
            self._forget_unused()
        key = tenant_id, origin
        if key not in self._clients:
            self._clients[key] = self._open(origin)
        self._users[key] += 1
        try:
            yield self._clients[key]
        finally:
            self._users[key] -= 1

    def _open(self, origin: str) -> Client:
        return Client(
            origin,
            connections=CONNECTIONS,
            keep_alive=KEEP_ALIVE,
            largest_body=LARGEST_BODY,
            resolve=self._outside.resolve,
        )

    def _forget_unused(self) -> None:
        self._swept_at = time.monotonic()
        for key, client in list(self._clients.items()):
            if not self._users[key] and not client.connections:
                del self._clients[key], self._users[key]


CLIENTS: PerLoop[HttpClients] = PerLoop(HttpClients, close=HttpClients.close)
