"""Clients of both halves, of the service that the tests run."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry_client import Retry
from tests.client import halves
from tests.client.unreliable import Unreliable

QUICK = Retry(budget=20.0, first=0.001, longest=0.01)  # tries that follow at once


@pytest.fixture(params=halves.HALVES)
def half(request: pytest.FixtureRequest) -> str:
    """The half of the client that a test runs with: every test that asks for it runs with both."""
    return request.param


@pytest.fixture
async def client(half: str, server: str, key: str) -> AsyncIterator[Any]:
    """A client with the tenant's key."""
    made = halves.make(half, server, key)
    yield made
    await halves.end(made)


@pytest.fixture
async def way(server: str) -> AsyncIterator[Unreliable]:
    """A way to the service that gets into trouble when told to."""
    async with Unreliable(server) as way:
        yield way


@pytest.fixture
async def far(half: str, way: Unreliable, key: str) -> AsyncIterator[Any]:
    """A client that reaches the service by `way`, and tries again at once."""
    made = halves.make(half, way.url, key, retry=QUICK, reconnect=QUICK)
    yield made
    await halves.end(made)
