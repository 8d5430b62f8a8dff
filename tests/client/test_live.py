"""Watching over a way that gets into trouble: no change is missing, none comes twice, and long polls take over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from registry_client import NO_RETRY, AsyncClient, AuthenticationFailed, ConnectionFailed, Retry
from registry_client._io.sockets import NO_RIGHT, SocketClosed
from registry_client.testing import FakeRegistry
from registry_client.testing.service import KEY, URL
from tests.client import halves
from tests.client.conftest import QUICK
from tests.client.unreliable import Unreliable
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_processor


@pytest.fixture
async def sandbox(tenant):
    """A processor in the database alone, quick and well."""
    return await in_thread(make_processor, tenant, "default", options={"delay": 0})


@asynccontextmanager
async def watching(changes: Any) -> AsyncIterator[Any]:
    async with asyncio.timeout(60), aclosing(aiter(changes)) as iterator:
        yield iterator


async def test_a_lost_connection_is_opened_again_and_nothing_is_missing(far: Any, way: Unreliable, api: Api):
    numbers = []
    for amount in range(1, 4):
        await api.pay(amount)

    async with watching(far.payments.watch_all(after=0)) as changes:
        async for change in changes:
            numbers.append((change.sequence, int(change.payment.amount)))
            if change.sequence in (3, 6):
                way.cuts()
                for amount in range(change.sequence + 1, change.sequence + 4):
                    await api.pay(amount)
            if change.sequence == 9:
                break

    assert numbers == [(n, n) for n in range(1, 10)]
    assert way.requests == ["GET /ws/payments"] * 3


async def test_a_payment_is_followed_over_a_lost_connection(far: Any, way: Unreliable, api: Api, sandbox):
    payment = await far.payments.submit("19.90")
    seen = []

    async with watching(far.payments.watch(payment.correlation_id)) as states:
        async for state in states:
            seen.append(state.sequence)
            if len(seen) == 1:
                way.cuts()
                async with at_work():
                    await api.until(str(payment.correlation_id), "succeeded")

    assert seen == [1, 2, 3]


async def test_long_polls_take_over_where_no_websocket_can_be_opened(far: Any, way: Unreliable, api: Api, sandbox):
    payment = await far.payments.submit("19.90")
    way.lets_no_websocket_through()
    way.requests.clear()
    seen = []

    async with watching(far.payments.watch(payment.correlation_id)) as states:
        async for state in states:
            seen.append(state.status)
            if len(seen) == 1:
                async with at_work():
                    await api.until(str(payment.correlation_id), "succeeded")

    assert seen == ["queued", "processing", "succeeded"]
    socket = f"GET /ws/payments/{payment.correlation_id}"
    assert way.requests[:3] == [socket, socket, f"GET /payments/{payment.correlation_id}/status"]


async def test_watching_all_ends_with_an_error_when_nothing_can_be_reached_for_too_long(
    half: str, way: Unreliable, key: str
):
    client = halves.make(half, way.url, key, reconnect=Retry(budget=0.3, first=0.01, longest=0.01))
    way.lets_no_websocket_through()

    with pytest.raises(ConnectionFailed):
        async with watching(client.payments.watch_all()) as changes:
            await anext(changes)

    assert len(way.requests) > 1
    await halves.end(client)


@pytest.mark.parametrize(("times", "states"), [(1, ["queued", "processing", "succeeded"]), (2, AuthenticationFailed)])
async def test_a_websocket_that_is_refused_for_what_can_be_read_is_tried_once_more(times: int, states: Any):
    """A payment that waits in the spill has no websocket yet; by the time that the service can say so, it may be stored."""
    fake, refusals = FakeRegistry(), [None] * times

    @asynccontextmanager
    async def refusing(path: str) -> AsyncIterator[Any]:
        if refusals and not refusals.pop():
            raise SocketClosed(NO_RIGHT, "closed")
        async with fake.sockets.opened_async(path) as socket:
            yield socket

    client = AsyncClient(URL, KEY, transport=fake.transport, opener=refusing, reconnect=QUICK)
    payment = await client.payments.submit("19.90")

    async def watched() -> list[str]:
        return [state.status async for state in client.payments.watch(payment.correlation_id, after=0)]

    if isinstance(states, list):
        assert await watched() == states
    else:
        with pytest.raises(states):
            await watched()


async def test_long_polls_go_on_over_trouble_as_long_as_a_websocket_would(
    half: str, way: Unreliable, key: str, api: Api
):
    """The client's own retries are off: the patience is that of a lost websocket."""
    client = halves.make(half, way.url, key, retry=NO_RETRY, reconnect=QUICK)
    payment = await api.pay("19.90")
    way.lets_no_websocket_through()
    seen = []

    async with watching(client.payments.watch(UUID(payment["correlationId"]))) as states:
        async for state in states:
            seen.append(state.status)
            if len(seen) == 1:
                way.answers(503, times=3)
                way.loses_answers(times=3)
                await api.post(f"/payments/{payment['correlationId']}/cancel")

    assert seen == ["queued", "canceled"]
    await halves.end(client)


async def test_a_reader_that_leaves_closes_its_websocket(far: Any, way: Unreliable, api: Api):
    await api.pay(1)

    async with watching(far.payments.watch_all(after=0)) as changes:
        await anext(changes)
        assert way.connections

    async with asyncio.timeout(10):
        while way.connections:
            await asyncio.sleep(0.01)
